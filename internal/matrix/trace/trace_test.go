package trace

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"
)

// network is two homes with a recorder, and a socket on each host.
type network struct {
	*natlab.Sim
	*Recorder
	a, b, server *natlab.SimSocket
}

func newNetwork(t *testing.T, o natlab.Options) network {
	t.Helper()
	topology := natlab.TwoHomes(o)
	sim, err := natlab.NewSim(topology)
	if err != nil {
		t.Fatal(err)
	}
	n := network{Sim: sim, Recorder: NewRecorder(topology)}
	sim.Observe(n.Recorder.Observe)
	for _, s := range []struct {
		host   string
		port   uint16
		socket **natlab.SimSocket
	}{{"a", 1000, &n.a}, {"b", 2000, &n.b}, {"server", 3478, &n.server}} {
		if *s.socket, err = sim.Host(s.host).Bind(s.port, func(time.Time, netip.AddrPort, []byte) {}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// outside is where a box is seen from outside, with that port.
func (n network) outside(t *testing.T, box string, port uint16) netip.AddrPort {
	t.Helper()
	p, ok := n.Place(box)
	if !ok {
		t.Fatalf("no box %s", box)
	}
	return netip.AddrPortFrom(p.Addr[0].Addr(), port)
}

// way is a packet's stops in words.
func (n network) way(p Packet) string {
	var out []string
	for i, s := range p.Stops {
		text := n.lines[s.Line].Name
		if i > 0 {
			text += [...]string{" passes", " changes", " gets it", " drops it: " + s.Text, " misses it: " + s.Text}[s.Fate]
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (n network) send(t *testing.T, s *natlab.SimSocket, to netip.AddrPort, ttl uint8, data string) {
	t.Helper()
	if err := s.Send(to, ttl, []byte(data)); err != nil {
		t.Fatal(err)
	}
	n.Run(time.Second, nil)
}

func TestEveryStopOfAPacket(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, natlab.Options{PresetB: natlab.CGNAT})
	server := netip.AddrPortFrom(n.Host("server").Addr(), 3478)
	n.send(t, n.b, server, 0, "out")
	n.send(t, n.server, n.outside(t, "carrier-b", 2000), 0, "in")
	n.send(t, n.a, n.outside(t, "carrier-b", 2000), 0, "stranger")
	n.send(t, n.a, server, 2, "opener")
	want := []string{
		"b, home-b changes, carrier-b changes, server gets it",
		"server, carrier-b changes, home-b changes, b gets it",
		"a, home-a changes, carrier-b drops it: no mapping",
		"a, home-a changes, core drops it: TTL used up",
	}
	var got []string
	trace := n.Trace()
	for _, p := range trace.Packets {
		if p.Class == Data {
			got = append(got, n.way(p))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\ninstead of\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	first := trace.Packets[0]
	if s := first.Stops[2]; first.Stops[0].At != 0 || !strings.Contains(s.Text, " → 198.51.100.") {
		t.Errorf("%+v", first)
	}
	if last := first.Stops[3].At; last != 40*time.Millisecond {
		t.Errorf("the first packet took %v", last)
	}
	answer := trace.Packets[len(trace.Packets)-1]
	if answer.Name != "time exceeded" || answer.Class != ICMP || n.way(answer) != "core, home-a changes, a gets it" {
		t.Errorf("the opener was answered with %s: %s", answer.Name, n.way(answer))
	}
}

func TestLostPackets(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, natlab.Options{Loss: 1})
	n.send(t, n.a, netip.AddrPortFrom(n.Host("server").Addr(), 3478), 0, "x")
	if got := n.way(n.Trace().Packets[0]); got != "a, home-a changes, core misses it: lost on the way" {
		t.Error(got)
	}
}

func TestNeighboursHaveOneLineForTheirRouter(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, natlab.Options{PresetA: natlab.DoubleNAT, PresetB: natlab.DoubleNAT})
	var names []string
	for _, l := range n.Trace().Lines {
		names = append(names, l.Name)
	}
	if got := strings.Join(names, " "); got != "a home-a shared core server home-b b" {
		t.Error(got)
	}
}

func TestMostDataIsLeftOut(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, natlab.Options{})
	for range 10 {
		n.send(t, n.a, netip.AddrPortFrom(n.Host("server").Addr(), 3478), 0, "x")
	}
	trace := n.Trace()
	if len(trace.Packets) != keptData || trace.Omitted[Data] != 10-keptData || len(n.open) != 0 {
		t.Errorf("%d packets, left out %v, still open %d", len(trace.Packets), trace.Omitted, len(n.open))
	}
}

func TestMiddleOfALongRunIsLeftOut(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, natlab.Options{})
	stun := "\x00\x01\x00\x00\x21\x12\xa4\x42" + strings.Repeat("x", 12)
	for range 2 * (keptFirst + keptLast) {
		n.send(t, n.a, netip.AddrPortFrom(n.Host("server").Addr(), 3478), 0, stun)
	}
	trace := n.Trace()
	if len(trace.Packets) != keptFirst+keptLast || trace.Omitted[Control] != keptFirst+keptLast {
		t.Errorf("%d packets, left out %v", len(trace.Packets), trace.Omitted)
	}
	if a, b := trace.Packets[keptFirst-1].Stops[0].At, trace.Packets[keptFirst].Stops[0].At; b-a < keptFirst*time.Second {
		t.Errorf("the gap is %v", b-a)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	a, b, server := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"), netip.MustParseAddrPort("192.0.2.3:3")
	stun := func(kind string) []byte { return []byte(kind + "\x00\x00\x21\x12\xa4\x42" + strings.Repeat("x", 12)) }
	for want, ip := range map[string][]byte{
		"Register control":           natlab.AppendUDP(nil, a, server, 64, stun("\x02\x80")),
		"Binding success control":    natlab.AppendUDP(nil, server, a, 64, stun("\x01\x01")),
		"probe probe":                natlab.AppendUDP(nil, a, b, 64, stun("\x00\x01")),
		"probe error probe":          natlab.AppendUDP(nil, a, b, 64, stun("\x01\x11")),
		"relayed data data":          natlab.AppendUDP(nil, server, a, 64, []byte("\x40\x00\x00\x01x")),
		"data data":                  natlab.AppendUDP(nil, b, a, 64, []byte("\x40\x00\x00\x01x")),
		"Register error 401 control": natlab.AppendUDP(nil, server, a, 64, append(stun("\x03\x90"), "\x80\x28\x00\x01x\x00\x00\x00\x00\x09\x00\x04\x00\x00\x04\x01"...)),
		"TCP SYN-ACK other":          natlab.AppendTCP(nil, a, b, 64, natlab.Segment{Flags: natlab.SYN | natlab.ACK}),
		"TCP data data":              natlab.AppendTCP(nil, a, b, 64, natlab.Segment{Flags: natlab.ACK, Data: []byte("x")}),
		"port unreachable icmp":      natlab.AppendICMP(nil, a.Addr(), b.Addr(), 64, []byte{3, 3, 0, 0, 0, 0, 0, 0}),
		"ICMP type 9 code 1 icmp":    natlab.AppendICMP(nil, a.Addr(), b.Addr(), 64, []byte{9, 1, 0, 0, 0, 0, 0, 0}),
		"echo request icmp":          natlab.AppendICMP(nil, netip.MustParseAddr("::1"), netip.MustParseAddr("::2"), 64, []byte{128, 0, 0, 0, 0, 0, 0, 0}),
		"STUN method 0x3 control":    natlab.AppendUDP(nil, a, server, 64, stun("\x00\x03")),
		"Introduced error control":   natlab.AppendUDP(nil, a, server, 64, stun("\x03\x93")),
	} {
		p, ok := natlab.ParsePacket(ip)
		if !ok {
			t.Fatalf("%s: no packet", want)
		}
		if name, class := describe(p, []netip.Addr{server.Addr()}); name+" "+class.String() != want {
			t.Errorf("%s %v instead of %s", name, class, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	f.Add(natlab.AppendUDP(nil, a, b, 64, []byte("\x00\x01\x00\x00\x21\x12\xa4\x42xxxxxxxxxxxx")))
	f.Add(natlab.AppendTCP(nil, a, b, 64, natlab.Segment{Flags: natlab.SYN}))
	f.Add(natlab.AppendICMP(nil, a.Addr(), b.Addr(), 64, []byte{11, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, ip []byte) {
		if p, ok := natlab.ParsePacket(ip); ok {
			if name, class := describe(p, []netip.Addr{b.Addr()}); name == "" || class >= classes {
				t.Errorf("%q, %v", name, class)
			}
		}
	})
}
