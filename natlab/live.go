package natlab

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Live is a topology in memory whose hosts have sockets, on the process's clock.
// It is for programs with goroutines of their own: in a testing/synctest bubble
// they run in fake time, and delays cost nothing. What is made in a bubble is to
// be closed in it. A bubble's time begins with the year 2000; what counts time from
// the start of the process, as QUIC does, wants it moved on to there first, by a
// [time.Sleep]. All methods are safe for concurrent use.
type Live struct {
	mu     sync.Mutex
	fabric *Fabric
	hosts  map[string]*LiveHost
	byPort []*LiveHost
	out    []Delivery
	timer  *time.Timer
	wake   time.Time // when the timer fires; zero if not at all
	closed bool
}

// NewLive builds a topology.
func NewLive(t Topology) (*Live, error) {
	f, err := NewFabric(FabricConfig{Topology: t, Start: time.Now()})
	if err != nil {
		return nil, err
	}
	l := &Live{fabric: f, hosts: make(map[string]*LiveHost)}
	for _, h := range t.Hosts {
		place, _ := f.Place(h.Name)
		port := f.Port(h.Name)
		x := &LiveHost{live: l, conns: make(map[*liveConn]bool)}
		x.stack = newStack(place, t.Seed, func(ip []byte) { f.Inject(time.Now(), port, ip) })
		l.hosts[h.Name] = x
		l.byPort = append(l.byPort, x)
	}
	l.timer = time.AfterFunc(time.Hour, l.tick)
	l.timer.Stop()
	l.do(func() {})
	return l, nil
}

func (l *Live) tick() {
	l.do(func() { l.wake = time.Time{} })
}

// do does f under the lock, then what the fabric has to do by now.
func (l *Live) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	if l.closed {
		return
	}
	for {
		now := time.Now()
		var next time.Time
		l.out, next = l.fabric.Step(now, l.out[:0])
		for _, d := range l.out {
			l.byPort[d.Port].stack.receive(d.Frame.Bytes())
			d.Frame.Release()
		}
		if len(l.out) > 0 {
			continue // what the hosts answered may be due, too
		}
		switch {
		case next.IsZero():
			l.timer.Stop()
			l.wake = next
		case !next.After(now):
			continue
		case !next.Equal(l.wake):
			l.timer.Reset(next.Sub(now))
			l.wake = next
		}
		return
	}
}

// Host is the host of that name, nil if there is none.
func (l *Live) Host(name string) *LiveHost { return l.hosts[name] }

// Place is where a box or host is; false if there is none of that name.
func (l *Live) Place(name string) (p Place, ok bool) {
	l.do(func() { p, ok = l.fabric.Place(name) })
	return p, ok
}

// SetLink changes what happens on the link of a box or host, to packets that
// enter it from now on.
func (l *Live) SetLink(name string, link Link) (err error) {
	l.do(func() { err = l.fabric.SetLink(name, link) })
	return err
}

// Reboot makes a box forget its mappings; with another it also has a public address
// that it never had.
func (l *Live) Reboot(box string, another bool) (err error) {
	l.do(func() { err = l.fabric.Reboot(box, another) })
	return err
}

// Block drops what the function says of packets that come to the core, until
// unblock is called. The packet's data is the function's only until it returns.
func (l *Live) Block(drop func(Packet) bool) (unblock func()) {
	var stop func()
	l.do(func() { stop = l.fabric.Block(drop) })
	return func() { l.do(stop) }
}

// Observe shows every event to the observer, until stop is called.
func (l *Live) Observe(o Observer) (stop func()) {
	l.do(func() { stop = l.fabric.Observe(o) })
	undo := stop
	return func() { l.do(undo) }
}

// Close takes the network down, with every socket on it.
func (l *Live) Close() {
	var open []*liveConn
	l.do(func() {
		l.closed = true
		l.timer.Stop()
		for _, h := range l.hosts {
			for c := range h.conns {
				open = append(open, c)
			}
		}
	})
	for _, c := range open {
		_ = c.Close()
	}
}

// LiveHost is a machine in a Live. It answers pings, and refuses what comes to a
// port where nobody listens.
type LiveHost struct {
	live  *Live
	stack *stack
	conns map[*liveConn]bool // under the lock of live
}

// Name is the host's name.
func (h *LiveHost) Name() string { return h.stack.place.Name }

// Addr is the host's IPv4 address.
func (h *LiveHost) Addr() netip.Addr { return h.stack.place.Addr[0].Addr() }

// Addr6 is the host's IPv6 address; not valid without IPv6.
func (h *LiveHost) Addr6() netip.Addr { return h.stack.place.Addr[1].Addr() }

// Prefixes are the host's addresses with the length of their link's prefix.
func (h *LiveHost) Prefixes() ([]netip.Prefix, error) { return h.stack.prefixes(), nil }

// ListenPacket opens a UDP socket on the host; network is udp4 or udp6. With no
// valid address, or a port of 0, the host chooses one. The socket also has a method
// WriteToTTL, which sends one packet with a TTL of its own.
func (h *LiveHost) ListenPacket(_ context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	f := slices.Index([]string{"udp4", "udp6"}, network)
	if f < 0 {
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	own := h.stack.place.Addr[f].Addr()
	if a := local.Addr(); !own.IsValid() || a.IsValid() && !a.IsUnspecified() && a != own {
		return nil, &net.OpError{Op: "listen", Net: network, Err: errNoAddress}
	}
	bound := local.Addr()
	if !bound.IsValid() {
		bound = netip.IPv4Unspecified()
		if f == 1 {
			bound = netip.IPv6Unspecified()
		}
	}
	c := &liveConn{host: h, family: f, changed: make(chan struct{})}
	var err error
	h.live.do(func() {
		if h.live.closed {
			err = net.ErrClosed
			return
		}
		var port uint16
		port, err = h.stack.bind(local.Port(), c.push, f)
		c.local = netip.AddrPortFrom(bound, port)
		h.conns[c] = true
	})
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	return c, nil
}
