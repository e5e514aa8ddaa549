package natlab_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"bodkin/natlab"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	places := make(map[string]natlab.Place)
	topology := natlab.Topology{
		IPv6: true,
		Boxes: []natlab.Box{
			{Name: "carrier", Addresses: 3},
			{Name: "home", Behind: "carrier"},
			{Name: "office", Preset: natlab.Firewall},
			{Name: "floor", Behind: "office", Preset: natlab.Open},
			{Name: "own", LAN: netip.MustParsePrefix("10.1.0.77/16")},
		},
		Hosts: []natlab.Host{{Name: "h", Behind: "home"}, {Name: "i", Behind: "home"}, {Name: "f", Behind: "floor"}, {Name: "s"}, {Name: "o", Behind: "own"}},
	}
	for _, p := range topology.Places() {
		places[p.Name] = p
	}
	for name, want := range map[string]string{
		"carrier": "203.0.113.10/24", "home": "100.64.0.2/24", "h": "192.168.2.2/24", "i": "192.168.2.3/24",
		"office": "198.51.100.10/24", "floor": "198.19.2.2/24", "f": "198.19.3.2/24", "own": "192.0.2.10/24", "o": "10.1.0.2/16",
		"s": "198.18.3.10/24",
	} {
		if got := places[name].Addr[0]; got.String() != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
	if got := places["h"].Addr[1].String(); got != "2001:db8:f001::2/64" {
		t.Errorf("h is %v", got)
	}
	if got := places["carrier"].More[:2]; got[0].String() != "203.0.113.11" || got[1].String() != "203.0.113.12" {
		t.Errorf("the carrier's further addresses are %v", got)
	}
	// What does not translate shows what is inside, up to what does.
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	for name, want := range map[string][]netip.Prefix{
		"home":    prefixes("2001:db8:f001::/64"),
		"carrier": prefixes("2001:db8:f000::/64", "2001:db8:f001::/64"),
		"office":  prefixes("198.19.2.0/24", "2001:db8:f002::/64", "198.19.3.0/24", "2001:db8:f003::/64"),
		"floor":   prefixes("198.19.3.0/24", "2001:db8:f003::/64"),
	} {
		if got := places[name].Routed; !slices.Equal(got, want) {
			t.Errorf("by %s one reaches %v, want %v", name, got, want)
		}
	}
}

func TestFabricRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]natlab.FabricConfig{
		"topology": {Topology: natlab.Topology{Hosts: []natlab.Host{{}}}},
		"header":   {Header: natlab.MaxHeader + 1},
	} {
		if _, err := natlab.NewFabric(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f, err := natlab.NewFabric(natlab.FabricConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Port("x") != natlab.Nowhere || f.FarPort("x") != natlab.Nowhere || f.Reboot("x", false) == nil || !f.Next().IsZero() {
		t.Error("something of nothing")
	}
}

// With Outer the caller's boxes hang off the fabric, and links inside homes are
// pipes that carry whatever comes.
func TestFabricWithBoxesOutside(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	topology := natlab.TwoHomes(natlab.Options{InsideA: 5 * time.Millisecond})
	f, err := natlab.NewFabric(natlab.FabricConfig{Topology: topology, Start: start, Header: 2, Outer: true})
	if err != nil {
		t.Fatal(err)
	}
	f.Inject(start, f.Port("a"), []byte("no IP at all"))
	f.Inject(start, f.FarPort("a"), []byte("and back"))
	home, _ := f.Place("home-a")
	s, _ := f.Place("server")
	ip := natlab.AppendUDP([]byte{1, 2}, at(home.Addr[0].Addr(), 1), at(s.Addr[0].Addr(), 2), 9, []byte("data"))
	f.Inject(start, f.Port("home-a"), ip)
	var got []natlab.Delivery
	for next := f.Next(); !next.IsZero(); {
		got, next = f.Step(next, got)
	}
	if len(got) != 3 || got[0].Port != f.FarPort("a") || string(got[0].Frame.Bytes()) != "no IP at all" ||
		got[1].Port != f.Port("a") || string(got[1].Frame.Bytes()) != "and back" || got[2].Port != f.Port("server") {
		t.Fatalf("got %v", got)
	}
	p, ok := natlab.ParsePacket(got[2].Frame.Bytes()[2:])
	if !ok || p.TTL != 8 || p.To.Port() != 2 {
		t.Errorf("the server got %+v", p)
	}
}

func TestRebootAndAnotherAddress(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{}))
	server, a := bind(t, s.Host("server"), 0), bind(t, s.Host("a"), 0)
	exchange := func() netip.AddrPort {
		server.got, a.got = nil, nil
		a.send(t, server.at, "out")
		s.Run(time.Second, nil)
		server.send(t, server.got[0].from, "in")
		s.Run(time.Second, nil)
		if len(a.got) != 1 {
			t.Error("no answer came in")
		}
		return server.got[0].from
	}
	first := exchange()
	if err := s.Reboot("home-a", false); err != nil {
		t.Fatal(err)
	}
	a.got = nil
	server.send(t, first, "forgotten")
	s.Run(time.Second, nil)
	if len(a.got) > 0 {
		t.Error("a mapping survived")
	}
	seen := []netip.Addr{first.Addr()}
	for range 4 {
		if err := s.Reboot("home-a", true); err != nil {
			t.Fatal(err)
		}
		now := exchange().Addr()
		if slices.Contains(seen, now) || now != public(t, s, "home-a") {
			t.Errorf("the address is %v, after %v", now, seen)
		}
		seen = append(seen, now)
	}
	if err := s.Reboot("home-a", true); err == nil {
		t.Error("there is no end of addresses")
	}
}

// A carrier's NAT gives the box behind it other addresses, too.
func TestAnotherAddressInsideACarrier(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{PresetA: natlab.CGNAT}))
	server, a := bind(t, s.Host("server"), 0), bind(t, s.Host("a"), 0)
	if err := s.Reboot("home-a", true); err != nil {
		t.Fatal(err)
	}
	a.send(t, server.at, "out")
	s.Run(time.Second, nil)
	server.send(t, server.got[0].from, "in")
	s.Run(time.Second, nil)
	if len(a.got) != 1 {
		t.Error("no answer came in")
	}
}

// A SYN that a box holds is answered when its time is over, though nothing else
// happens.
func TestHeldSYNIsAnsweredByTheClock(t *testing.T) {
	t.Parallel()
	holds := natlab.PortRestricted.NAT()
	holds.TCP.Refusal = natlab.RefuseLate
	s := newSim(t, natlab.Topology{
		Boxes: []natlab.Box{{Name: "home", NAT: holds}}, Hosts: []natlab.Host{{Name: "h", Behind: "home"}, {Name: "s"}},
	})
	got, begin := icmpTo(s.Host("s")), s.Now()
	to := at(public(t, s, "home"), 80)
	s.Host("s").SendIP(natlab.AppendTCP(nil, at(s.Host("s").Addr(), 1000), to, 64, natlab.Segment{Flags: natlab.SYN}))
	s.Run(time.Minute, func() bool { return len(*got) > 0 })
	if d := s.Now().Sub(begin); d != 6*time.Second || len(*got) != 1 {
		t.Errorf("%q after %v, want an answer after 6s", *got, d)
	}
}

func TestCapture(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pcaps")
	c, err := natlab.NewCapture(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newSim(t, natlab.TwoHomes(natlab.Options{}))
	s.Observe(c.Observe)
	a := bind(t, s.Host("a"), 0)
	a.send(t, at(s.Host("server").Addr(), 9), "hello")
	s.Run(time.Second, nil)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"a", "home-a", "server"} {
		b, err := os.ReadFile(filepath.Join(dir, link+".pcap"))
		if err != nil {
			t.Fatal(err)
		}
		// The packet and the refusal, each behind 16 bytes (pcap has no RFC).
		first := binary.LittleEndian.Uint32(b[24+8:])
		if want := 20 + 8 + 5; int(first) != want || len(b) != 24+16+want+16+20+8+want {
			t.Errorf("%s: %d bytes, the first packet %d", link, len(b), first)
		}
		if p, ok := natlab.ParsePacket(b[40 : 40+first]); !ok || p.To.Port() != 9 {
			t.Errorf("%s: the first packet is %+v", link, p)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "b.pcap")); err == nil {
		t.Error("b's link carried nothing, and has a file")
	}
}

// Whatever a host sends, the network neither breaks nor goes on for ever.
func FuzzFabric(f *testing.F) {
	from, to := netip.MustParseAddrPort("192.168.1.2:5000"), netip.MustParseAddrPort("192.0.2.10:3478")
	f.Add(natlab.AppendUDP(nil, from, to, 64, []byte("data")), uint8(0))
	f.Add(natlab.AppendTCP(nil, from, to, 3, natlab.Segment{Flags: natlab.SYN}), uint8(1))
	f.Add(natlab.AppendICMP(nil, from.Addr(), to.Addr(), 1, []byte{8, 0, 0, 0, 1, 2, 3, 4}), uint8(2))
	six := netip.MustParseAddr("2001:db8:f000::2")
	f.Add(natlab.AppendUDP(nil, at(six, 1), at(netip.MustParseAddr("2001:db8:2::10"), 2), 64, nil), uint8(0))
	f.Fuzz(func(t *testing.T, ip []byte, n uint8) {
		bad := natlab.Link{Delay: time.Millisecond, Loss: 0.1, Duplicate: 0.3, Reorder: 0.3}
		topology := natlab.Topology{
			Seed: uint64(n), IPv6: true,
			Boxes: []natlab.Box{
				{Name: "carrier", Preset: natlab.Presets()[int(n)%len(natlab.Presets())], Link: bad},
				{Name: "home", Behind: "carrier"},
			},
			Hosts: []natlab.Host{{Name: "h", Behind: "home"}, {Name: "s"}, {Name: "n", Behind: "carrier", Link: bad}},
		}
		if len(topology.Boxes[0].Preset.Boxes()) > 1 {
			topology.Boxes[0].Preset = natlab.PortRestricted
		}
		s := newSim(t, topology)
		events := 0
		s.Observe(func(natlab.Event) { events++ })
		for _, name := range []string{"h", "s", "n"} {
			s.Host(name).SendIP(ip)
		}
		s.Run(time.Minute, nil)
		if events > 2000 {
			t.Errorf("%d events for three packets", events)
		}
	})
}
