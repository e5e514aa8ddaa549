package path

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bodkin/internal/wire"
	"bodkin/punch"
)

// table is the routes to a peer, best first, as the data plane reads them.
type table []*outlet

// outlet is where packets of one route leave.
type outlet struct {
	key    Key
	class  punch.Transport
	socket Sender
	link   *link
	// avoided says that the route was left for the relay, or is narrow: no packet
	// takes it as long as there is another.
	avoided bool
}

// pick is the best route of a class, unless it is avoided, or else
// the best of all.
func (t *table) pick(class punch.Transport) *outlet {
	if t == nil || len(*t) == 0 {
		return nil
	}
	for _, r := range *t {
		if r.class == class && !r.avoided {
			return r
		}
	}
	return (*t)[0]
}

// relayBuffers hold what quic-go hands over at once, with a header a packet.
var relayBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 72<<10); return &b }}

func (r *outlet) send(b []byte, segment int) {
	if r.key.Channel == 0 {
		r.socket.Queue(r.key.To, b, segment)
		return
	}
	buf := relayBuffers.Get().(*[]byte)
	out := (*buf)[:0]
	for len(b) > 0 {
		n := min(segment, len(b))
		out = wire.AppendChannelData(out, r.key.Channel, b[:n])
		b = b[n:]
	}
	r.socket.Queue(r.key.To, out, segment+wire.ChannelOverhead)
	*buf = out
	relayBuffers.Put(buf)
}

// entry is the data plane's part of one peer.
type entry struct {
	overlay  netip.Addr
	table    atomic.Pointer[table]
	sent     [punch.UDP + 1]atomic.Uint64 // bytes by route class
	received [punch.UDP + 1]atomic.Uint64
	kicked   atomic.Int64
	latest   atomic.Int64 // when something last left, UnixNano
	pauses   atomic.Int32 // before what left since something last came in
	largest  atomic.Int64 // the largest packet since then, in bytes
	over     atomic.Int64 // the latest one above wideSize
	taken    atomic.Int32 // the class that these left by
	// epoch is the number that the paths of now have, and shown the highest that QUIC was
	// shown. A path that the peer tries has one of its own, and each outage makes a new
	// epoch.
	epoch uint32
	shown atomic.Uint32

	mu   sync.Mutex
	last []byte // the last packet written
	was  punch.Transport

	origins origins
}

// measure takes note of how large the packets are that leave by a class. QUIC tries with
// single packets, each of another size, whether larger ones pass: one that does not
// says nothing about the route.
func (e *entry) measure(class punch.Transport, n int) {
	if c := int32(class); e.taken.Load() != c {
		e.taken.Store(c)
		e.largest.Store(0)
	}
	size := int64(n)
	if size > wideSize && e.over.Load() != size {
		e.over.Store(size)
		size = wideSize
	}
	if size > e.largest.Load() {
		e.largest.Store(size)
	}
}

// keep remembers the last packet: when a route comes back after an outage it is
// sent once more, or else QUIC's backed-off timers would wait for many seconds.
func (e *entry) keep(class punch.Transport, b []byte, segment int) {
	if !e.mu.TryLock() {
		return
	}
	if tail := len(b) % segment; tail != 0 {
		b = b[len(b)-tail:]
	} else {
		b = b[len(b)-segment:]
	}
	e.last, e.was = append(e.last[:0], b...), class
	e.mu.Unlock()
}

func (e *entry) resend() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.table.Load().pick(e.was); r != nil && len(e.last) > 0 {
		r.link.sent.Add(uint64(len(e.last)))
		r.send(e.last, len(e.last))
	}
}

// Again sends the last packet to every peer once more.
func (s *Socket) Again() {
	for overlay, e := range *s.peers.Load() {
		if overlay == e.overlay {
			e.resend()
		}
	}
}

// Heard is when data of a peer last came in, by whichever source; zero if never.
func (s *Socket) Heard(overlay netip.Addr) time.Time { return s.heard((*s.peers.Load())[overlay]) }

func (s *Socket) heard(e *entry) (latest time.Time) {
	for _, l := range *s.sources.Load() {
		if at := l.heard.Load(); l.peer == e && at != 0 && time.Unix(0, at).After(latest) {
			latest = time.Unix(0, at)
		}
	}
	return latest
}

// Traffic is how many bytes went to and came from a peer, by route class.
type Traffic struct{ Sent, Received [punch.UDP + 1]uint64 }

// update replaces a published map by a changed copy.
func update[K comparable, V any](p *atomic.Pointer[map[K]V], change func(map[K]V)) {
	m := maps.Clone(*p.Load())
	change(m)
	p.Store(&m)
}

// SetSocket adds, or with nil removes, the socket that a Local names.
func (s *Socket) SetSocket(l punch.Local, c Sender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(&s.sockets, func(m map[punch.Local]Sender) {
		if m[l] = c; c == nil {
			delete(m, l)
		}
	})
}

// SetServers names the endpoints from which ChannelData is taken.
func (s *Socket) SetServers(endpoints ...netip.AddrPort) {
	m := make(map[netip.AddrPort]bool)
	for _, e := range endpoints {
		m[e] = true
	}
	s.servers.Store(&m)
}

// AddPeer makes a peer known under an overlay address.
func (s *Socket) AddPeer(overlay netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(&s.peers, func(m map[netip.Addr]*entry) {
		if m[overlay] == nil {
			e := &entry{overlay: overlay}
			e.table.Store(&table{})
			m[overlay] = e
		}
	})
}

// Alias makes overlay another address of the peer known as of. A peer that was
// known under no other address is forgotten.
func (s *Socket) Alias(overlay, of netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	peers := *s.peers.Load()
	e, old := peers[of], peers[overlay]
	if e == nil || old == e {
		return
	}
	update(&s.peers, func(m map[netip.Addr]*entry) { m[overlay] = e })
	if old != nil && old.overlay == overlay {
		s.forget(old)
	}
}

// RemovePeer forgets a peer with its routes.
func (s *Socket) RemovePeer(overlay netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := (*s.peers.Load())[overlay]; e != nil {
		s.forget(e)
	}
}

// forget drops every address and source of a peer. Under the lock.
func (s *Socket) forget(e *entry) {
	update(&s.sources, func(m map[Key]*link) {
		maps.DeleteFunc(m, func(_ Key, l *link) bool { return l.peer == e })
	})
	update(&s.peers, func(m map[netip.Addr]*entry) {
		maps.DeleteFunc(m, func(_ netip.Addr, x *entry) bool { return x == e })
	})
}

// Hear takes data from a source as the peer's own, from now on. A source that
// has proved to be another peer's route stays that peer's: a probe tells who
// sent it, not whether it came from where it says.
func (s *Socket) Hear(overlay netip.Addr, k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := (*s.peers.Load())[overlay]
	if old := (*s.sources.Load())[k]; e == nil || old != nil && (old.peer == e || old.peer.uses(k)) {
		return
	}
	l := s.assign(e, k)
	var kept []early
	for _, w := range s.early {
		switch {
		case w.key == k && time.Since(w.at) < earlyLife:
			s.receive(l, s.readerOf(w.data), w.data, len(w.data), false)
		case w.key != k:
			kept = append(kept, w)
		}
	}
	s.early = kept
}

// assign makes a source a peer's. Under the lock.
func (s *Socket) assign(e *entry, k Key) *link {
	l := newLink(e, k)
	update(&s.sources, func(m map[Key]*link) { m[k] = l })
	return l
}

// uses reports whether k is one of the peer's confirmed routes.
func (e *entry) uses(k Key) bool {
	return slices.ContainsFunc(*e.table.Load(), func(o *outlet) bool { return o.key == k })
}

// classBits are the lower ones of the port that QUIC sees, which tell the class; the
// others tell one path from another.
const classBits = 4

// classOf is the route class that a port of the overlay names.
func classOf(port int) punch.Transport { return punch.Transport(port & (1<<classBits - 1)) }

func newLink(e *entry, k Key) *link {
	class := k.Transport()
	return &link{peer: e, class: class, from: e.at(class, e.epoch), counters: new(counters)}
}

// at is the address of a path, as QUIC sees it.
func (e *entry) at(class punch.Transport, n uint32) *net.UDPAddr {
	return &net.UDPAddr{IP: e.overlay.AsSlice(), Port: int(uint16(class) | uint16(n)<<classBits)}
}

// Unhear no longer takes data from a source.
func (s *Socket) Unhear(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(&s.sources, func(m map[Key]*link) { delete(m, k) })
}

// Publish sets the routes to a peer, best first. It reports whether there is one again
// after an outage: connections that we dialled should start afresh, too.
func (s *Socket) Publish(overlay netip.Addr, routes []Route) (afresh bool) {
	s.mu.Lock()
	e := (*s.peers.Load())[overlay]
	if e == nil {
		s.mu.Unlock()
		return false
	}
	var t table
	for _, r := range routes {
		c := (*s.sockets.Load())[r.Local]
		if c == nil {
			continue
		}
		if l := (*s.sources.Load())[r.Key]; l == nil || l.peer != e {
			s.assign(e, r.Key) // the route is confirmed: it is this peer's
		}
		t = append(t, &outlet{key: r.Key, class: r.Transport(), socket: c, avoided: r.Narrow || r.Direct() && !routes[0].Direct()})
	}
	o := e.table.Load().pick(0)
	another := len(t) > 0 && (o == nil || o.key != t[0].key)
	heard := s.heard(e)
	if afresh = another && !heard.IsZero() && time.Since(heard) >= outage; afresh {
		s.afresh(e)
	}
	for _, o := range t {
		o.link = (*s.sources.Load())[o.key]
	}
	e.table.Store(&t)
	s.mu.Unlock()
	if another {
		e.resend()
	}
	return afresh
}

// RouteTraffic is how many bytes of data left by a route, and arrived by it.
func (s *Socket) RouteTraffic(k Key) (sent, arrived uint64) {
	if l := (*s.sources.Load())[k]; l != nil {
		return l.sent.Load(), l.received.Load()
	}
	return 0, 0
}

// Traffic is what went to and came from a peer.
func (s *Socket) Traffic(overlay netip.Addr) (t Traffic) {
	if e := (*s.peers.Load())[overlay]; e != nil {
		for i := range t.Sent {
			t.Sent[i], t.Received[i] = e.sent[i].Load(), e.received[i].Load()
		}
	}
	return t
}
