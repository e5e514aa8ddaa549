package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/node"
	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/punch"
)

// Config is one run. The topology has the hosts "server", which is reachable, "a",
// which dials, and "b"; its seed decides everything.
type Config struct {
	Topology natlab.Topology
	// Limit is how long the dialler waits for a hole; 12 s if 0, in which an
	// attempt that began at once is over.
	Limit time.Duration
	// Profiles, if not nil, are what a and b believe of their NATs instead of
	// measuring them.
	Profiles *[2]nat.Profile
	// Cold is to dial as soon as the dialler is registered, before it knows its NAT.
	Cold bool
	// Mapped, if not empty, is a or b: its router forwards a port to it, as if it had
	// asked for that, and it told the server of it before the dial.
	Mapped string
	// Transports are the kinds of holes to punch; with nil, UDP in virtual time, which
	// has no other, and all with real nodes.
	Transports []string
	// Observe, if not nil, is shown every packet.
	Observe natlab.Observer
}

// Result is how a run went. Times count from the dial.
type Result struct {
	Direct bool // both sides send through a hole
	// ToDirect is when the dialler's packets took the hole, Both when both
	// sides' did.
	ToDirect, Both time.Duration
	// Introduced is when the dialler knew the peer's endpoints, Told when the
	// peer knew the dialler's.
	Introduced, Told time.Duration
	// Relayed is when the first data came to the peer, by the relay or else.
	Relayed time.Duration
	// Gap is the longest time between two packets of the dialler's flow at the peer.
	Gap     time.Duration
	Packets int // what both sides sent to open holes
	Control int // what both sides sent to the server since the dial
	// RelayedBytes are what the server relayed of a flow of 50 packets a second
	// from the dialler, as long as the run went on.
	RelayedBytes uint64
	// Kind is what the dialler's hole was found as: host, server-reflexive …;
	// Endpoint is where it leads.
	Kind     string
	Endpoint netip.AddrPort
	// Tactic is what the dialler's hole came of, PacketsA and PacketsB what each side
	// sent to open holes, SocketsA and SocketsB what each opened besides its own.
	Tactic             punch.Name
	PacketsA, PacketsB int
	SocketsA, SocketsB int
	// Why says what was in the way, where Direct is false.
	Why string
}

const (
	defaultLimit = 12 * time.Second
	// registerLimit is how long both nodes may take to register.
	registerLimit = 30 * time.Second

	// measureLimit is how long both may measure their NATs before the dial, settle
	// how long the server is told of it.
	measureLimit = 30 * time.Second
	settle       = time.Second

	serverPort = 3478
)

var errTransports = errors.New("matrix: in virtual time there is UDP alone; TCP and ICMP take real nodes (the beds model and kernel)")

var errHosts = errors.New("matrix: the topology needs the hosts server, a and b")

// Punch does one run. The error says that there could be none.
func Punch(cfg Config) (Result, error) {
	r, err := newRun(cfg)
	if err != nil {
		return Result{}, err
	}
	return r.punch(), nil
}

// newRun builds the network, and nodes that have yet to register.
func newRun(cfg Config) (*run, error) {
	if len(cfg.Transports) > 0 && !slices.Equal(cfg.Transports, []string{"udp"}) {
		return nil, errTransports
	}
	sim, err := natlab.NewSim(cfg.Topology)
	if err != nil {
		return nil, err
	}
	if sim.Host("server") == nil || sim.Host("a") == nil || sim.Host("b") == nil {
		return nil, errHosts
	}
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	r := &run{cfg: cfg, sim: sim}
	sim.Observe(r.watch)
	if cfg.Observe != nil {
		sim.Observe(cfg.Observe)
	}
	if r.server, err = newServer(sim, cfg.Topology.Seed); err != nil {
		return nil, err
	}
	var believed [2]*nat.Profile
	if p := cfg.Profiles; p != nil {
		believed = [2]*nat.Profile{&p[0], &p[1]}
	}
	if r.a, err = r.server.newNode("a", cfg.Topology.Seed, believed[0]); err != nil {
		return nil, err
	}
	if r.b, err = r.server.newNode("b", cfg.Topology.Seed, believed[1]); err != nil {
		return nil, err
	}
	return r, r.mapPort()
}

// mappedPort is what a router forwards.
const mappedPort = 7000

// mapPort has a router forward a port, if it is to.
func (r *run) mapPort() error {
	x := map[string]*site{"a": r.a, "b": r.b}[r.cfg.Mapped]
	if x == nil {
		return nil
	}
	box := x.host.Behind()
	outside, _ := r.sim.Place(box)
	x.mapped = netip.AddrPortFrom(outside.Addr[0].Addr(), mappedPort)
	return r.sim.Forward(box, natlab.ProtocolUDP, mappedPort, netip.AddrPortFrom(x.host.Addr(), x.socket.Port()))
}

// run is the state of one.
type run struct {
	cfg    Config
	sim    *natlab.Sim
	server *server
	a, b   *site
	begin  time.Time // of the dial; zero before
	drops  Drops
	result Result
}

func (r *run) punch() Result {
	r.b.step(node.Input{Op: node.Accept})
	r.b.start()
	if r.cfg.Cold {
		r.sim.Run(registerLimit, func() bool { return r.b.registered })
		r.settle(r.b)
	}
	r.a.start()
	if !r.sim.Run(registerLimit, func() bool { return r.a.registered && r.b.registered }) {
		r.result.Why = r.unregistered()
		return r.result
	}
	if !r.cfg.Cold {
		r.settle(r.a, r.b)
	}
	r.begin = r.sim.Now()
	sentA, sentB := r.a.toServer, r.b.toServer
	var last time.Time
	r.b.received = func() {
		now := r.sim.Now()
		if last.IsZero() {
			r.result.Relayed = r.since(now)
			r.b.step(node.Input{Op: node.Retain, Overlay: r.b.overlay}) // as a session does
		} else {
			r.result.Gap = max(r.result.Gap, now.Sub(last))
		}
		last = now
	}
	r.a.step(node.Input{Op: node.Dial, ID: r.b.id})
	r.a.flow()
	res := &r.result
	res.Direct = r.sim.Run(r.cfg.Limit, func() bool { return !r.a.direct.IsZero() && !r.b.direct.IsZero() })
	res.PacketsA, res.PacketsB = r.a.toPeer, r.b.toPeer
	res.Packets = r.a.toPeer + r.b.toPeer
	res.SocketsA, res.SocketsB = r.a.most, r.b.most
	res.Control = r.a.toServer - sentA + r.b.toServer - sentB
	res.RelayedBytes = r.server.registry.Stats().RelayedBytes
	res.ToDirect, res.Introduced, res.Told = r.since(r.a.direct), r.since(r.a.introduced), r.since(r.b.introduced)
	if res.Direct {
		res.Both = max(res.ToDirect, r.since(r.b.direct))
		res.Kind, res.Endpoint = r.a.hole.Kind.String(), r.a.hole.To
		res.Tactic = r.a.account.Report.Won()
		return *res
	}
	res.Why = r.why()
	return *res
}

// settle lets nodes find out which NAT they are behind, and tell the server.
func (r *run) settle(sites ...*site) {
	if r.cfg.Profiles != nil {
		return
	}
	r.sim.Run(measureLimit, func() bool {
		return !slices.ContainsFunc(sites, func(x *site) bool { return !x.measured.Complete })
	})
	r.sim.Run(settle, func() bool { return false })
	for _, x := range sites {
		x.most, x.toPeer = len(x.extra), 0
	}
}

// since is a time counted from the dial; 0 for none.
func (r *run) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(r.begin)
}

// String sums a result up in a line.
func (r Result) String() string {
	if !r.Direct {
		return fmt.Sprintf("relay: %s; %d packets", r.Why, r.Packets)
	}
	const shown = 100 * time.Microsecond
	return fmt.Sprintf("direct after %v (both %v) to %v, %s; %d packets",
		r.ToDirect.Round(shown), r.Both.Round(shown), r.Endpoint, r.Kind, r.Packets)
}

// The dialler's flow: as many bytes as a voice call, in larger packets.
const (
	flowEvery = 20 * time.Millisecond
	flowSize  = 1000
	// activeEvery is how often a flow tells the core that it is there.
	activeEvery = 250 * time.Millisecond
)
