package matrix

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/peer"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// chance is the randomness of one program in a run.
func chance(seed uint64, name string) *rand.ChaCha8 {
	var s [32]byte
	binary.BigEndian.PutUint64(s[:], seed)
	copy(s[8:], name)
	return rand.NewChaCha8(s)
}

func keyOf(seed uint64, name string) peer.Key {
	var s [32]byte
	_, _ = chance(seed, "key "+name).Read(s[:])
	return peer.NewKey(s)
}

// server is the rendezvous server on its host, on two ports: by the second one nodes
// measure their NATs.
type server struct {
	sim      *natlab.Sim
	id       peer.ID
	at       []netip.AddrPort // one a family
	local    map[netip.AddrPort]int
	sockets  [2]*natlab.SimSocket // by port
	registry *rendezvous.Registry
	timer    *natlab.Timer
	out      []rendezvous.Outgoing
}

func newServer(sim *natlab.Sim, seed uint64) (*server, error) {
	key, h := keyOf(seed, "server"), sim.Host("server")
	s := &server{sim: sim, id: key.ID(), local: make(map[netip.AddrPort]int)}
	var all []netip.AddrPort
	for _, p := range h.Prefixes() {
		for i := range uint16(len(s.sockets)) {
			e := netip.AddrPortFrom(p.Addr(), serverPort+i)
			s.local[e] = len(all)
			all = append(all, e)
		}
		s.at = append(s.at, netip.AddrPortFrom(p.Addr(), serverPort))
	}
	s.registry = rendezvous.NewRegistry(key, rendezvous.Limits{}, chance(seed, "server"), all...)
	for i := range s.sockets {
		var err error
		if s.sockets[i], err = h.Bind(serverPort+uint16(i), s.receive(h, uint16(i))); err != nil {
			return nil, err
		}
	}
	s.timer = sim.After(0, s.tick)
	return s, nil
}

// receive takes what comes to one of the ports.
func (s *server) receive(h *natlab.SimHost, i uint16) natlab.Handler {
	return func(now time.Time, from netip.AddrPort, b []byte) {
		to := h.Addr()
		if from.Addr().Is6() {
			to = h.Addr6()
		}
		var next time.Time
		s.out, next = s.registry.Step(now, s.local[netip.AddrPortFrom(to, serverPort+i)], from, b, s.out[:0])
		s.send()
		s.timer.Reset(next)
	}
}

func (s *server) tick() {
	var next time.Time
	s.out, next = s.registry.Tick(s.sim.Now(), s.out[:0])
	s.send()
	s.timer.Reset(next)
}

func (s *server) send() {
	for _, o := range s.out {
		_ = s.sockets[o.Local%len(s.sockets)].Send(o.To, 0, o.Data)
	}
}

// site is a node on its host.
type site struct {
	sim    *natlab.Sim
	id     peer.ID
	server *server
	links  []netip.Prefix
	host   *natlab.SimHost
	socket *natlab.SimSocket
	extra  map[punch.Local]*natlab.SimSocket // those that the core asked for
	most   int                               // of them at one time
	core   *node.Core
	timer  *natlab.Timer
	mapped netip.AddrPort // where a router forwards from

	routes   []path.Route
	overlay  netip.Addr
	heard    map[path.Key]time.Time
	kicked   time.Time
	received func() // at data for a program

	registered         bool
	measured           nat.Report
	err                error
	introduced, direct time.Time
	hole               path.Route
	toPeer, toServer   int // packets sent
	account            *path.Account
}

// The sockets of a node: one a family.
const (
	local4 punch.Local = 1
	local6 punch.Local = 2
)

func (s *server) newNode(name string, seed uint64, profile *nat.Profile) (*site, error) {
	h, cfg := s.sim.Host(name), s.config(name, seed)
	cfg.Profile = profile
	x := &site{
		sim: s.sim, id: cfg.Key.ID(), server: s, links: h.Prefixes(), host: h,
		heard: make(map[path.Key]time.Time), extra: make(map[punch.Local]*natlab.SimSocket),
	}
	x.core = node.New(cfg)
	x.timer = s.sim.NewTimer(func() { x.step(node.Input{Op: node.Tick}) })
	var err error
	x.socket, err = h.Bind(0, func(now time.Time, from netip.AddrPort, b []byte) { x.receive(now, local(from), from, b) })
	return x, err
}

// config is what a node of a run is made of.
func (s *server) config(name string, seed uint64) node.Config {
	return node.Config{
		Key: keyOf(seed, name), Server: s.id, Instance: chance(seed, "instance "+name).Uint64() | 1,
		Abilities: punch.ByUDP, Rand: chance(seed, name),
	}
}

// start lets the node register.
func (x *site) start() {
	var sockets []path.LocalSocket
	for _, l := range x.links {
		if l.Addr().Is4() {
			sockets = append(sockets, path.LocalSocket{Local: local4, Bound: netip.AddrPortFrom(netip.IPv4Unspecified(), x.socket.Port())})
		} else {
			sockets = append(sockets, path.LocalSocket{Local: local6, Bound: netip.AddrPortFrom(netip.IPv6Unspecified(), x.socket.Port())})
		}
	}
	x.step(node.Input{Op: node.Network, Sockets: sockets, Links: x.links})
	x.step(node.Input{Op: node.Resolved, Servers: x.server.at})
	if x.mapped.IsValid() {
		x.step(node.Input{Op: node.Mapped, Mapped: []netip.AddrPort{x.mapped}})
	}
}

func local(a netip.AddrPort) punch.Local {
	if a.Addr().Is4() {
		return local4
	}
	return local6
}

// receive takes a packet as the data plane of a node does.
func (x *site) receive(now time.Time, at punch.Local, from netip.AddrPort, b []byte) {
	key := path.Key{Local: at, To: from}
	switch wire.Classify(b, x.isServer(from)) {
	case wire.ClassSTUN:
		x.step(node.Input{Op: node.Packet, By: key, Data: append([]byte(nil), b...)})
		return
	case wire.ClassChannel:
		channel, data, ok := wire.ParseChannelData(b)
		if !ok {
			return
		}
		if key.Channel = channel; wire.Classify(data, false) == wire.ClassSTUN {
			x.step(node.Input{Op: node.Packet, By: key, Data: append([]byte(nil), data...)})
			return
		}
	case wire.ClassOther:
	}
	x.heard[key] = now
	if x.received != nil {
		x.received()
	}
}

func (x *site) isServer(a netip.AddrPort) bool { return slices.Contains(x.server.at, a) }

// step steps the core and does what it wants.
func (x *site) step(in node.Input) {
	actions, next := x.core.Step(x.sim.Now(), in, nil)
	for _, a := range actions {
		x.do(a)
	}
	if next.IsZero() {
		x.timer.Stop()
		return
	}
	x.timer.Reset(next)
}

func (x *site) do(a node.Action) {
	switch a.Op {
	case node.Send:
		if x.isServer(a.By.To) {
			x.toServer++
		} else {
			x.toPeer++
		}
		_ = x.from(a.By.Local).Send(a.By.To, a.TTL, a.Data)
	case node.Bind:
		x.bind(a.By)
	case node.Unbind:
		if s := x.extra[a.By.Local]; s != nil {
			s.Close()
			delete(x.extra, a.By.Local)
		}
	case node.Registered:
		x.registered = true
	case node.Measured:
		x.measured = *a.Report
	case node.RegisterFailed:
		x.err = a.Err
	case node.ServerLost:
		x.registered = false
	case node.Publish:
		x.overlay, x.routes = a.Overlay, a.Routes
	case node.Happened:
		x.happened(a.Event)
	default: // the rest is for the data plane
	}
}

// bind opens a socket that the core asked for.
func (x *site) bind(k path.Key) {
	l, bound := k.Local, netip.AddrPort{}
	s, err := x.host.Bind(0, func(now time.Time, from netip.AddrPort, b []byte) { x.receive(now, l, from, b) })
	if err == nil {
		x.extra[l] = s
		x.most = max(x.most, len(x.extra))
		bound = netip.AddrPortFrom(k.To.Addr(), s.Port())
	}
	x.sim.After(0, func() { x.step(node.Input{Op: node.Bound, Local: l, From: bound}) })
}

// from is the socket that a Local names.
func (x *site) from(l punch.Local) *natlab.SimSocket {
	if s := x.extra[l]; s != nil {
		return s
	}
	return x.socket
}

func (x *site) happened(h path.Happening) {
	switch h.Kind {
	case path.WasIntroduced:
		if x.introduced.IsZero() {
			x.introduced = x.sim.Now()
		}
	case path.Switched:
		if h.Route.Direct() && x.direct.IsZero() {
			x.direct, x.hole = x.sim.Now(), h.Route
		}
	case path.Failed:
		x.err = h.Err
	case path.Accounted:
		x.account = h.Account
	case path.RouteUp, path.RouteDown, path.Restarted, path.AttemptEnded:
	}
}

// flow sends to the peer by the best route that there is, on and on.
func (x *site) flow() {
	x.sim.After(flowEvery, x.flow)
	x.send()
}

// send sends one packet of the flow.
func (x *site) send() {
	if len(x.routes) == 0 {
		return
	}
	best, data := x.routes[0], make([]byte, flowSize)
	data[0] = 0x50 // neither STUN's first byte nor ChannelData's
	if best.Channel != 0 {
		data = wire.AppendChannelData(nil, best.Channel, data)
	}
	_ = x.from(best.Local).Send(best.To, 0, data)
	if now := x.sim.Now(); now.Sub(x.kicked) >= activeEvery {
		x.kicked = now
		x.step(node.Input{Op: node.Active, Overlay: x.overlay, By: best.Key, Heard: x.heard[best.Key]})
	}
}
