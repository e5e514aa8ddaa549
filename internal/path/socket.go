package path

import (
	"bytes"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bodkin/internal/wire"
	"bodkin/punch"
)

// kickEvery is how often sending to a peer wakes the control loop, which then
// looks whether the route still works.
const kickEvery = 250 * time.Millisecond

// SocketConfig is what a Socket is made of.
type SocketConfig struct {
	Overlay netip.Addr // this node's overlay address
	// Dialled tells from a QUIC packet whether it belongs to a connection that
	// this node dialled.
	Dialled func(quic []byte) bool
	// ConnID is the connection ID that a QUIC packet goes to, 0 if it begins a connection,
	// and whether the packet has the form of one that tries a path. With nil, packets
	// are taken as of the class that they came by.
	ConnID func(quic []byte) (id uint64, probes bool)
	// Control takes every STUN packet, relayed ones too; the bytes are its own. It
	// must not block.
	Control func(by Key, b []byte)
	// Active says that data is being sent to a peer by that route, in packets of
	// that size at the most, and when something last came in by it. It must not
	// block.
	Active func(overlay netip.Addr, by Key, lastHeard time.Time, size int)
	// Answered says that something came in after an outage that no route was lost in. It
	// must not block.
	Answered func(overlay netip.Addr)
}

// Socket is the data plane: it takes packets apart below QUIC and sends QUIC's
// by the routes that the control loop published.
type Socket struct {
	cfg     SocketConfig
	accept  *Conn
	base    *Conn
	moved   [punch.UDP + 1]*Conn
	mu      sync.Mutex // of those who publish
	sockets atomic.Pointer[map[punch.Local]Sender]
	servers atomic.Pointer[map[netip.AddrPort]bool]
	sources atomic.Pointer[map[Key]*link]
	peers   atomic.Pointer[map[netip.Addr]*entry]

	early []early // relayed packets that came a moment before their channel

	// Stray counts packets from sources that are no route.
	Stray atomic.Uint64
	// Overrun counts packets that QUIC did not read in time, or has no use for.
	Overrun atomic.Uint64
}

// Sender is the write side of a socket: a UDP socket, or one of another transport.
type Sender interface {
	// Send sends one packet of the control plane; a ttl other than 0 holds for it
	// alone.
	Send(to netip.AddrPort, ttl uint8, b []byte) error
	// Queue sends packets of segment bytes, the last one as long as is left. It never
	// blocks, never keeps b, and drops what there is no room for.
	Queue(to netip.AddrPort, b []byte, segment int)
	// SyscallConn is the system's handle of a UDP socket; an error otherwise.
	SyscallConn() (syscall.RawConn, error)
}

// link is where packets of one source go.
type link struct {
	peer  *entry
	class punch.Transport
	from  *net.UDPAddr // what QUIC sees of a path that begins here
	known atomic.Pointer[origin]
	*counters
}

// counters are those of a source, and of the route back to it.
type counters struct {
	heard          atomic.Int64 // when something last came in, UnixNano
	sent, received atomic.Uint64
}

// NewSocket makes a Socket without sockets or routes.
func NewSocket(cfg SocketConfig) *Socket {
	s := &Socket{cfg: cfg}
	s.accept, s.base = newConn(s, 0, cfg.Overlay), newConn(s, 0, cfg.Overlay)
	for class := punch.Relay; class <= punch.UDP; class++ {
		s.moved[class] = newConn(s, class, cfg.Overlay)
	}
	s.sockets.Store(&map[punch.Local]Sender{})
	s.servers.Store(&map[netip.AddrPort]bool{})
	s.sources.Store(&map[Key]*link{})
	s.peers.Store(&map[netip.Addr]*entry{})
	return s
}

// Accept is the connection that QUIC accepts on. Call it, Dial and Moved after
// SetSocket: they return a *[Conn] where there is a socket of the system's, and
// one without the methods that ask the system where all are simulated.
func (s *Socket) Accept() net.PacketConn { return s.dress(s.accept) }

// Dial is the connection that QUIC dials on. Whatever comes in for a connection
// that was dialled is read here, by whichever route it came.
func (s *Socket) Dial() net.PacketConn { return s.dress(s.base) }

// Moved is the connection of a class that dialled QUIC connections migrate to.
// It only writes.
func (s *Socket) Moved(class punch.Transport) net.PacketConn { return s.dress(s.moved[class]) }

func (s *Socket) dress(c *Conn) net.PacketConn {
	if _, err := s.syscallConn(); err != nil {
		return plain{c}
	}
	return c
}

// keepFrom is how large a piece is kept instead of copied: a buffer has 64 kB.
const keepFrom = 8 << 10

// DeliverRun takes packets that came to a socket in one piece, all of segment bytes
// but the last, as sock.Socket.ReadRuns hands them over. QUIC's packets by a direct
// route, which is what comes in bulk, are looked at one by one and handled together.
func (s *Socket) DeliverRun(local punch.Local, from netip.AddrPort, b []byte, segment int) (kept bool) {
	if segment < len(b) && segment <= maxPacket && !(*s.servers.Load())[from] {
		if l := (*s.sources.Load())[Key{Local: local, To: from}]; l != nil {
			if to := s.reader(b, segment); to != nil {
				return s.receive(l, to, b, segment, len(b) >= keepFrom)
			}
		}
	}
	for len(b) > 0 {
		n := min(segment, len(b))
		s.Deliver(local, from, b[:n])
		b = b[n:]
	}
	return false
}

// reader is the connection that all these packets are for, nil if there is none, or if
// they go to several connection IDs.
func (s *Socket) reader(b []byte, segment int) *Conn {
	var all *Conn
	var id uint64
	for len(b) > 0 {
		p := b[:min(segment, len(b))]
		b = b[len(p):]
		to, at := s.readerOf(p), s.connID(p)
		if wire.Classify(p, false) != wire.ClassOther || all != nil && (to != all || at != id) {
			return nil
		}
		all, id = to, at
	}
	return all
}

// readerOf is the connection that a packet of QUIC's is for.
func (s *Socket) readerOf(packet []byte) *Conn {
	if s.cfg.Dialled(packet) {
		return s.base
	}
	return s.accept
}

// Deliver takes a packet that came to a socket. The bytes are Deliver's only
// until it returns.
func (s *Socket) Deliver(local punch.Local, from netip.AddrPort, b []byte) {
	key := Key{Local: local, To: from}
	switch wire.Classify(b, (*s.servers.Load())[from]) {
	case wire.ClassSTUN:
		s.cfg.Control(key, bytes.Clone(b))
		return
	case wire.ClassChannel:
		channel, data, ok := wire.ParseChannelData(b)
		if !ok {
			s.Stray.Add(1)
			return
		}
		key.Channel, b = channel, data
		if wire.Classify(b, false) == wire.ClassSTUN {
			s.cfg.Control(key, bytes.Clone(b))
			return
		}
	case wire.ClassOther:
	}
	l := (*s.sources.Load())[key]
	if l == nil {
		if l = s.hold(key, b); l == nil {
			s.Stray.Add(1)
			return
		}
	}
	s.receive(l, s.readerOf(b), b, len(b), false)
}

// receive hands packets of a known source to QUIC.
func (s *Socket) receive(l *link, to *Conn, b []byte, segment int, keep bool) (kept bool) {
	l.heard.Store(time.Now().UnixNano())
	l.received.Add(uint64(len(b)))
	l.peer.received[l.class].Add(uint64(len(b)))
	if l.peer.answered() && s.cfg.Answered != nil {
		s.cfg.Answered(l.peer.overlay)
	}
	from := l.from
	if to == s.accept {
		from = s.origin(l, b[:min(segment, len(b))])
	}
	if len(b) > 0 && to.push(b, segment, from, keep) {
		return keep
	}
	s.Overrun.Add(uint64(max(1, count(b, max(1, segment)))))
	return false
}

// early is a relayed packet whose introduction is still on its way through the
// control loop: the asker's first data travels right behind it.
type early struct {
	key  Key
	data []byte
	at   time.Time
}

const (
	maxEarly  = 32
	earlyLife = time.Second
)

// hold keeps a relayed packet for a moment, unless its channel has become known
// meanwhile.
func (s *Socket) hold(k Key, b []byte) *link {
	if k.Channel == 0 || len(b) > maxPacket {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := (*s.sources.Load())[k]; l != nil {
		return l
	}
	if len(s.early) == maxEarly {
		s.early = slices.Delete(s.early, 0, 1)
	}
	s.early = append(s.early, early{k, bytes.Clone(b), time.Now()})
	return nil
}

// send sends QUIC's packets to a peer, by the best route of the class, or in an
// emergency by whatever route there is.
func (s *Socket) send(overlay netip.Addr, class punch.Transport, b []byte, segment int) {
	e := (*s.peers.Load())[overlay]
	if e == nil || len(b) == 0 {
		return
	}
	if segment <= 0 || segment > len(b) {
		segment = len(b)
	}
	e.keep(class, b, segment)
	r := e.table.Load().pick(class)
	if r == nil {
		return
	}
	e.sent[r.class].Add(uint64(len(b)))
	r.link.sent.Add(uint64(len(b)))
	r.send(b, segment)
	e.measure(r.class, segment)
	now := time.Now().UnixNano()
	e.repeats(now)
	if now-e.kicked.Load() >= int64(kickEvery) {
		e.kicked.Store(now)
		s.cfg.Active(e.overlay, r.key, time.Unix(0, r.link.heard.Load()), int(e.largest.Swap(0)))
	}
}

// SendControl sends one packet of the control plane, with a TTL if not 0.
func (s *Socket) SendControl(local punch.Local, to netip.AddrPort, ttl uint8, b []byte) error {
	if c := (*s.sockets.Load())[local]; c != nil {
		return c.Send(to, ttl, b)
	}
	return net.ErrClosed
}

// syscallConn is the handle of the first socket that has one.
func (s *Socket) syscallConn() (syscall.RawConn, error) {
	sockets := *s.sockets.Load()
	for _, l := range slices.Sorted(maps.Keys(sockets)) {
		if raw, err := sockets[l].SyscallConn(); err == nil {
			return raw, nil
		}
	}
	return nil, errors.ErrUnsupported
}

// Close closes the connections, not the sockets beneath.
func (s *Socket) Close() {
	for _, c := range append(s.moved[punch.Relay:], s.accept, s.base) {
		_ = c.Close()
	}
}
