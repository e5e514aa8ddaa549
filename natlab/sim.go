package natlab

import (
	"net/netip"
	"time"
)

// Sim is a topology in virtual time, for state machines that take time as an
// argument: thousands of runs in seconds, each the same for the same seed. Hosts
// have UDP ports with functions behind them; for real sockets in memory see
// [Live].
type Sim struct {
	*Loop
	fabric *Fabric
	hosts  map[string]*SimHost
	byPort []*SimHost
	wake   *Timer
	out    []Delivery
}

// simStart is when a Sim begins: a day like any other.
var simStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// NewSim builds a topology.
func NewSim(t Topology) (*Sim, error) {
	f, err := NewFabric(FabricConfig{Topology: t, Start: simStart})
	if err != nil {
		return nil, err
	}
	s := &Sim{Loop: NewLoop(simStart), fabric: f, hosts: make(map[string]*SimHost)}
	s.wake = s.NewTimer(s.step)
	for _, h := range t.Hosts {
		place, _ := f.Place(h.Name)
		port := f.Port(h.Name)
		x := &SimHost{sim: s}
		x.stack = newStack(place, t.Seed, func(ip []byte) {
			f.Inject(s.now, port, ip)
			s.arm()
		})
		s.hosts[h.Name] = x
		s.byPort = append(s.byPort, x) // the fabric's ports are the hosts in order
	}
	s.arm()
	return s, nil
}

// step does what the fabric has to do by now.
func (s *Sim) step() {
	for {
		var next time.Time
		s.out, next = s.fabric.Step(s.now, s.out[:0])
		for _, d := range s.out {
			s.byPort[d.Port].stack.receive(d.Frame.Bytes())
			d.Frame.Release()
		}
		if next.IsZero() || next.After(s.now) {
			break
		}
	}
	s.arm()
}

// arm wakes the loop when the fabric has something to do.
func (s *Sim) arm() {
	next := s.fabric.Next()
	switch {
	case next.IsZero():
		s.wake.Stop()
	case s.wake.place < 0 || !s.wake.at.Equal(next):
		s.wake.Reset(next)
	}
}

// Host is the host of that name, nil if there is none.
func (s *Sim) Host(name string) *SimHost { return s.hosts[name] }

// Place is where a box or host is; false if there is none of that name.
func (s *Sim) Place(name string) (Place, bool) { return s.fabric.Place(name) }

// SetLink changes what happens on the link of a box or host, to packets that
// enter it from now on.
func (s *Sim) SetLink(name string, link Link) error { return s.fabric.SetLink(name, link) }

// Reboot makes a box forget its mappings; with another it also has a public address
// that it never had.
func (s *Sim) Reboot(box string, another bool) error { return s.fabric.Reboot(box, another) }

// Forward has a box pass what comes to a UDP or TCP port outside of it to an
// endpoint inside, as [Translator.Forward] says.
func (s *Sim) Forward(box string, protocol uint8, port uint16, inside netip.AddrPort) error {
	return s.fabric.Forward(box, protocol, port, inside)
}

// Block drops what the function says of packets that come to the core, until
// unblock is called. The packet's data is the function's only until it returns.
func (s *Sim) Block(drop func(Packet) bool) (unblock func()) { return s.fabric.Block(drop) }

// Observe shows every event to the observer, until stop is called.
func (s *Sim) Observe(o Observer) (stop func()) { return s.fabric.Observe(o) }

// SimHost is a machine in a Sim. It answers pings, and refuses what comes to a
// port where nobody listens.
type SimHost struct {
	sim   *Sim
	stack *stack
}

// Name is the host's name.
func (h *SimHost) Name() string { return h.stack.place.Name }

// Behind is the box that the host is behind; "" is the core.
func (h *SimHost) Behind() string { return h.stack.place.Behind }

// Addr is the host's IPv4 address.
func (h *SimHost) Addr() netip.Addr { return h.stack.place.Addr[0].Addr() }

// Addr6 is the host's IPv6 address; not valid without IPv6.
func (h *SimHost) Addr6() netip.Addr { return h.stack.place.Addr[1].Addr() }

// Prefixes are the host's addresses with the length of their link's prefix.
func (h *SimHost) Prefixes() []netip.Prefix { return h.stack.prefixes() }

// Handler takes a datagram that came to a port. The data is its only until it
// returns.
type Handler func(now time.Time, from netip.AddrPort, data []byte)

// Bind gives what comes to a UDP port to a handler; with port 0 the host chooses
// one.
func (h *SimHost) Bind(port uint16, handle Handler) (*SimSocket, error) {
	port, err := h.stack.bind(port, func(from netip.AddrPort, data []byte) { handle(h.sim.now, from, data) }, 0, 1)
	if err != nil {
		return nil, err
	}
	return &SimSocket{h.stack, port}, nil
}

// Watch shows every packet that comes to the host to f, before the host does
// anything; one of which f says true is f's alone. The packet's data is f's only
// until it returns.
func (h *SimHost) Watch(f func(Packet) bool) (stop func()) { return h.stack.watch(f) }

// SendIP sends an IP packet, whatever is in it; [AppendUDP], [AppendTCP] and
// [AppendICMP] make some.
func (h *SimHost) SendIP(ip []byte) { h.stack.send(ip) }

// SimSocket is a UDP port of a SimHost, of IPv4 and IPv6.
type SimSocket struct {
	stack *stack
	port  uint16
}

// Port is the port's number.
func (s *SimSocket) Port() uint16 { return s.port }

// Send sends a datagram. A ttl of 0 is the usual one.
func (s *SimSocket) Send(to netip.AddrPort, ttl uint8, data []byte) error {
	return s.stack.sendUDP(s.port, to, ttl, data)
}

// Close gives the port up.
func (s *SimSocket) Close() { s.stack.unbind(s.port, 0, 1) }
