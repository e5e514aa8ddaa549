package nat_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/natlab"
)

// stunServer is as much of a STUN server as a test wants: with one address or two,
// one port or two.
type stunServer struct {
	sim     *natlab.Sim
	sockets map[netip.AddrPort]*natlab.SimSocket
	ports   [2]uint16
	plain   bool // nothing of RFC 5780
	deaf    bool // to CHANGE-REQUEST and RESPONSE-PORT, which it ignores
}

func newStunServer(t *testing.T, sim *natlab.Sim, hosts ...string) *stunServer {
	t.Helper()
	s := &stunServer{sim: sim, sockets: make(map[netip.AddrPort]*natlab.SimSocket), ports: [2]uint16{3478, 3479}}
	for _, name := range hosts {
		h := sim.Host(name)
		for _, p := range s.ports {
			var socket *natlab.SimSocket
			socket, err := h.Bind(p, func(_ time.Time, from netip.AddrPort, b []byte) {
				at := h.Addr()
				if from.Addr().Is6() {
					at = h.Addr6()
				}
				s.receive(netip.AddrPortFrom(at, p), from, b)
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range []netip.Addr{h.Addr(), h.Addr6()} {
				if a.IsValid() {
					s.sockets[netip.AddrPortFrom(a, p)] = socket
				}
			}
		}
	}
	return s
}

// receive answers as RFC 5780 §6.1 has it.
func (s *stunServer) receive(at, from netip.AddrPort, b []byte) {
	m, err := wire.Decode(b)
	if err != nil {
		return
	}
	q, err := wire.ParseBindingRequest(m)
	if err != nil {
		return
	}
	a := wire.BindingAnswer{ID: q.ID, Mapped: from}
	if s.plain {
		if q.ChangeIP || q.ChangePort || q.ResponsePort != 0 {
			a = wire.BindingAnswer{ID: q.ID, Code: 420}
		}
		_ = s.sockets[at].Send(from, 0, a.Append(nil))
		return
	}
	otherPort := s.ports[0] ^ s.ports[1] ^ at.Port()
	var other netip.AddrPort
	for e := range s.sockets {
		if e.Addr().Is4() == at.Addr().Is4() && e.Addr() != at.Addr() && e.Port() == otherPort {
			other = e
		}
	}
	source := at
	switch {
	case s.deaf:
	case q.ChangeIP && !other.IsValid():
		_ = s.sockets[at].Send(from, 0, wire.BindingAnswer{ID: q.ID, Code: 420}.Append(nil))
		return
	default:
		if q.ChangePort {
			source = netip.AddrPortFrom(source.Addr(), otherPort)
		}
		if q.ChangeIP {
			source = netip.AddrPortFrom(other.Addr(), source.Port())
		}
	}
	a.Origin, a.Other = source, other
	if q.OtherPorts && !other.IsValid() {
		a.OtherPorts = []uint16{otherPort}
	}
	if q.ResponsePort != 0 && !s.deaf {
		from = netip.AddrPortFrom(from.Addr(), q.ResponsePort)
	}
	_ = s.sockets[source].Send(from, 0, a.Append(nil))
}

// lab is a Measurement on a host of a Sim.
type lab struct {
	sim     *natlab.Sim
	host    *natlab.SimHost
	m       *nat.Measurement
	timer   *natlab.Timer
	sockets map[nat.Socket]*natlab.SimSocket
	opened  int // in all
	sent    int
	reports []nat.Report
	at      []time.Duration
	began   time.Time
}

// newLab puts a Measurement on a host.
func newLab(sim *natlab.Sim, host string, seed uint64, c nat.Config) *lab {
	h := sim.Host(host)
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	c.Rand = rand.NewChaCha8(key)
	for _, p := range h.Prefixes() {
		c.Own = append(c.Own, p.Addr())
	}
	l := &lab{sim: sim, host: h, m: nat.NewMeasurement(c), sockets: make(map[nat.Socket]*natlab.SimSocket), began: sim.Now()}
	l.timer = sim.NewTimer(func() { l.step(nat.Input{Op: nat.Tick}) })
	return l
}

func (l *lab) step(in nat.Input) {
	actions, next := l.m.Step(l.sim.Now(), in, nil)
	for _, a := range actions {
		switch a.Op {
		case nat.Open:
			l.open(a)
		case nat.Close:
			l.sockets[a.Socket].Close()
			delete(l.sockets, a.Socket)
		case nat.Send:
			l.sent++
			_ = l.sockets[a.Socket].Send(a.To, a.TTL, a.Data)
		case nat.Measured:
			l.reports = append(l.reports, *a.Report)
			l.at = append(l.at, l.sim.Now().Sub(l.began))
		default:
			panic("no such action")
		}
	}
	l.timer.Stop()
	if !next.IsZero() {
		l.timer.Reset(next)
	}
}

func (l *lab) open(a nat.Action) {
	own := l.host.Addr()
	if !a.Is4 {
		own = l.host.Addr6()
	}
	if !own.IsValid() {
		l.sim.After(0, func() { l.step(nat.Input{Op: nat.OpenFailed, Socket: a.Socket}) })
		return
	}
	s, err := l.host.Bind(0, func(_ time.Time, from netip.AddrPort, b []byte) {
		l.step(nat.Input{Op: nat.Packet, Socket: a.Socket, From: from, Data: b})
	})
	if err != nil {
		panic(err)
	}
	l.opened++
	l.sockets[a.Socket] = s
	bound := netip.AddrPortFrom(netip.IPv4Unspecified(), s.Port())
	if !a.Is4 {
		bound = netip.AddrPortFrom(netip.IPv6Unspecified(), s.Port())
	}
	l.sim.After(0, func() { l.step(nat.Input{Op: nat.Opened, Socket: a.Socket, Bound: bound}) })
}

// run measures until all is measured, or for a time.
func (l *lab) run(t *testing.T, d time.Duration) nat.Report {
	t.Helper()
	l.began = l.sim.Now()
	l.step(nat.Input{Op: nat.Start})
	if !l.sim.Run(d, func() bool { return l.m.Report().Complete }) {
		t.Errorf("not complete after %v: %+v", d, l.m.Report())
	}
	if len(l.sockets) > 0 {
		t.Errorf("%d sockets remain open", len(l.sockets))
	}
	return l.m.Report()
}

// kinds of server.
type serverKind uint8

const (
	twoAddresses serverKind = iota
	oneAddress
)

// topology is a home with hosts "a" and servers outside.
func topology(boxes []natlab.NAT, access natlab.Link, seed uint64) natlab.Topology {
	t := natlab.Topology{Seed: seed, IPv6: true, Hosts: []natlab.Host{
		{Name: "server", Link: natlab.Link{Delay: 10 * time.Millisecond}},
		{Name: "server2", Link: natlab.Link{Delay: 10 * time.Millisecond}},
	}}
	behind := ""
	names := []string{"home", "carrier"}
	for i, box := range slices.Backward(boxes) {
		b := natlab.Box{Name: names[i], Behind: behind, NAT: box}
		if i == 0 {
			b.Link = access
		}
		if box == (natlab.NAT{}) {
			b.Preset = natlab.Open
		}
		t.Boxes = append(t.Boxes, b)
		behind = names[i]
	}
	t.Hosts = append(t.Hosts, natlab.Host{Name: "a", Behind: behind}, natlab.Host{Name: "b", Behind: behind})
	return t
}

// measure measures boxes.
func measure(t *testing.T, topology natlab.Topology, kind serverKind, seed uint64) (nat.Report, *lab) {
	t.Helper()
	sim, err := natlab.NewSim(topology)
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{"server", "server2"}
	if kind == oneAddress {
		hosts = hosts[:1]
	}
	newStunServer(t, sim, hosts...)
	h := sim.Host("server")
	l := newLab(sim, "a", seed, nat.Config{Server: []netip.AddrPort{
		netip.AddrPortFrom(h.Addr(), 3478), netip.AddrPortFrom(h.Addr6(), 3478),
	}})
	return l.run(t, time.Minute), l
}

// answerPlainly is a STUN server of few words.
func answerPlainly(s *sock.Socket, from netip.AddrPort, b []byte) {
	m, err := wire.Decode(b)
	if err != nil {
		return
	}
	if q, err := wire.ParseBindingRequest(m); err == nil {
		_ = s.Send(from, 0, wire.BindingAnswer{ID: q.ID, Mapped: from}.Append(nil))
	}
}
