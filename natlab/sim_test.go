package natlab_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"
)

// socket is a port of a host that keeps what came to it.
type socket struct {
	*natlab.SimSocket
	at  netip.AddrPort // inside
	got []received
}

type received struct {
	when time.Time
	from netip.AddrPort
	text string
}

func newSim(tb testing.TB, topology natlab.Topology) *natlab.Sim {
	tb.Helper()
	s, err := natlab.NewSim(topology)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func bind(tb testing.TB, h *natlab.SimHost, port uint16) *socket {
	tb.Helper()
	s := &socket{}
	b, err := h.Bind(port, func(now time.Time, from netip.AddrPort, data []byte) {
		s.got = append(s.got, received{now, from, string(data)})
	})
	if err != nil {
		tb.Fatal(err)
	}
	s.SimSocket, s.at = b, netip.AddrPortFrom(h.Addr(), b.Port())
	return s
}

func (s *socket) send(tb testing.TB, to netip.AddrPort, text string) {
	tb.Helper()
	if err := s.Send(to, 0, []byte(text)); err != nil {
		tb.Fatal(err)
	}
}

func (s *socket) texts() (out []string) {
	for _, r := range s.got {
		out = append(out, r.text)
	}
	return out
}

// icmpTo keeps the types and codes, and senders, of the ICMP that comes to a host.
func icmpTo(h *natlab.SimHost) *[]string {
	var got []string
	h.Watch(func(p natlab.Packet) bool {
		if p.Protocol == natlab.ProtocolICMP {
			got = append(got, fmt.Sprintf("%d/%d from %v", p.Data[20], p.Data[21], p.From.Addr()))
		}
		if p.Protocol == natlab.ProtocolICMPv6 {
			got = append(got, fmt.Sprintf("%d/%d from %v", p.Data[40], p.Data[41], p.From.Addr()))
		}
		return false
	})
	return &got
}

func public(tb testing.TB, s *natlab.Sim, box string) netip.Addr {
	tb.Helper()
	p, ok := s.Place(box)
	if !ok {
		tb.Fatalf("no box %s", box)
	}
	return p.Addr[0].Addr()
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func TestSimDelaysExactly(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{InsideA: 5 * time.Millisecond}))
	begin := s.Now()
	server, a := bind(t, s.Host("server"), 3478), bind(t, s.Host("a"), 0)
	a.send(t, server.at, "hello")
	s.Run(time.Second, func() bool { return len(server.got) > 0 })
	if d := server.got[0].when.Sub(begin); d != 35*time.Millisecond {
		t.Errorf("one way in %v, want 35ms", d)
	}
	if from := server.got[0].from; from.Addr() != public(t, s, "home-a") {
		t.Errorf("the server sees %v", from)
	}
	server.send(t, server.got[0].from, "answer")
	s.Run(time.Second, func() bool { return len(a.got) > 0 })
	if d := a.got[0].when.Sub(begin); d != 70*time.Millisecond {
		t.Errorf("there and back in %v, want 70ms", d)
	}
}

func TestSimPortIsFreeAfterClose(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{}))
	h := s.Host("server")
	first := bind(t, h, 3478)
	if _, err := h.Bind(3478, func(time.Time, netip.AddrPort, []byte) {}); err == nil || !strings.Contains(err.Error(), h.Name()) {
		t.Errorf("bound twice: %v", err)
	}
	first.Close()
	second := bind(t, h, 3478)
	bind(t, s.Host("a"), 0).send(t, second.at, "hello")
	s.Run(time.Second, func() bool { return len(second.got) > 0 })
	if len(first.got) > 0 || !slices.Equal(second.texts(), []string{"hello"}) {
		t.Errorf("the closed one got %q, the new one %q", first.texts(), second.texts())
	}
}

func TestSimHolePunching(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{SameLAN: true}))
	a, b := bind(t, s.Host("a"), 5000), bind(t, s.Host("b"), 6000)
	pa, pb := at(public(t, s, "home-a"), 5000), at(public(t, s, "home-b"), 6000)
	a.send(t, pb, "lost, but it opens")
	s.Run(time.Second, nil)
	b.send(t, pa, "through")
	s.Run(time.Second, nil)
	a.send(t, pb, "back")
	s.Run(time.Second, nil)
	unblock := s.Block(natlab.Between(pa.Addr(), pb.Addr()))
	a.send(t, pb, "blocked")
	s.Run(time.Second, nil)
	unblock()
	a.send(t, pb, "again")
	s.Run(time.Second, nil)
	if got := fmt.Sprint(a.texts(), b.texts()); got != "[through] [back again]" {
		t.Errorf("got %v", got)
	}
}

// Each router takes one off, and whose router it is that a packet dies in shows
// in the answer (RFC 792).
func TestSimTTL(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{}))
	a, b := bind(t, s.Host("a"), 5000), bind(t, s.Host("b"), 6000)
	pa, pb := at(public(t, s, "home-a"), 5000), at(public(t, s, "home-b"), 6000)
	b.send(t, pa, "opens")
	got := icmpTo(s.Host("a"))
	s.Run(time.Second, nil)
	for ttl := uint8(1); ttl <= 4; ttl++ {
		if err := a.Send(pb, ttl, []byte{ttl}); err != nil {
			t.Fatal(err)
		}
		s.Run(time.Second, nil)
	}
	inside, _ := s.Place("home-a")
	want := []string{
		fmt.Sprintf("11/0 from %v", inside.LAN[0].Addr()),
		fmt.Sprintf("11/0 from %v", inside.Gateway[0]),
		fmt.Sprintf("11/0 from %v", pb.Addr()),
	}
	if !slices.Equal(*got, want) {
		t.Errorf("answers %q, want %q", *got, want)
	}
	if !slices.Equal(b.texts(), []string{"\x04"}) {
		t.Errorf("b received %q, want TTL 4 alone", b.texts())
	}
}

func TestSimUnreachable(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.Topology{
		IPv6:  true,
		Boxes: []natlab.Box{{Name: "home"}},
		Hosts: []natlab.Host{{Name: "x"}, {Name: "y"}, {Name: "h", Behind: "home"}},
	})
	x, h := bind(t, s.Host("x"), 0), bind(t, s.Host("h"), 0)
	gotX, gotH := icmpTo(s.Host("x")), icmpTo(s.Host("h"))
	y := s.Host("y")
	placeX, _ := s.Place("x")
	home, _ := s.Place("home")
	for _, to := range []string{"10.9.9.9", "2001:db8:ffff::1", y.Addr().String(), y.Addr6().String()} {
		x.send(t, at(netip.MustParseAddr(to), 9), "nobody")
		s.Run(time.Second, nil)
	}
	h.send(t, at(home.LAN[0].Addr().Next().Next(), 9), "nobody")
	s.Run(time.Second, nil)
	want := []string{
		fmt.Sprintf("3/0 from %v", placeX.Gateway[0]),
		fmt.Sprintf("1/0 from %v", placeX.Gateway[1]),
		fmt.Sprintf("3/3 from %v", y.Addr()),
		fmt.Sprintf("1/4 from %v", y.Addr6()),
	}
	if !slices.Equal(*gotX, want) {
		t.Errorf("on the core: %q, want %q", *gotX, want)
	}
	if want := []string{fmt.Sprintf("3/1 from %v", home.LAN[0].Addr())}; !slices.Equal(*gotH, want) {
		t.Errorf("at home: %q, want %q", *gotH, want)
	}
}

func TestSimHostsAnswerAsSystemsDo(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.Topology{IPv6: true, Boxes: []natlab.Box{{Name: "home"}}, Hosts: []natlab.Host{
		{Name: "x"}, {Name: "y"}, {Name: "h", Behind: "home"},
	}})
	x, y, h := s.Host("x"), s.Host("y"), s.Host("h")
	got, home := icmpTo(x), icmpTo(h)
	x.SendIP(natlab.AppendICMP(nil, x.Addr(), y.Addr(), 64, []byte{8, 0, 0, 0, 1, 2, 3, 4, 'p'}))
	x.SendIP(natlab.AppendICMP(nil, x.Addr6(), y.Addr6(), 64, []byte{128, 0, 0, 0, 1, 2, 3, 4, 'p'}))
	s.Run(time.Second, nil)
	if want := []string{"0/0 from " + y.Addr().String(), "129/0 from " + y.Addr6().String()}; !slices.Equal(*got, want) {
		t.Errorf("pings: %q, want %q", *got, want)
	}
	place, _ := s.Place("home")
	h.SendIP(natlab.AppendICMP(nil, h.Addr(), place.LAN[0].Addr(), 64, []byte{8, 0, 0, 0, 1, 2, 3, 4}))
	s.Run(time.Second, nil)
	if want := []string{"0/0 from " + place.LAN[0].Addr().String()}; !slices.Equal(*home, want) {
		t.Errorf("ping of the router: %q, want %q", *home, want)
	}
	var segments []natlab.Segment
	x.Watch(func(p natlab.Packet) bool {
		if seg, ok := p.Segment(); ok {
			segments = append(segments, seg)
		}
		return true
	})
	from, to := at(x.Addr(), 1000), at(y.Addr(), 80)
	x.SendIP(natlab.AppendTCP(nil, from, to, 64, natlab.Segment{Seq: 7, Flags: natlab.SYN}))
	x.SendIP(natlab.AppendTCP(nil, from, to, 64, natlab.Segment{Seq: 8, Ack: 9, Flags: natlab.ACK, Data: []byte("data")}))
	s.Run(time.Second, nil)
	want := []natlab.Segment{{Ack: 8, Flags: natlab.RST | natlab.ACK}, {Seq: 9, Flags: natlab.RST}}
	if fmt.Sprint(segments) != fmt.Sprint(want) {
		t.Errorf("resets %+v, want %+v", segments, want)
	}
}

func TestSimLANsAreSwitchedAndNest(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.Topology{
		Boxes: []natlab.Box{{Name: "carrier"}, {Name: "home", Behind: "carrier"}, {Name: "other", Behind: "carrier"}},
		Hosts: []natlab.Host{
			{Name: "s"},
			{Name: "h", Behind: "home", Link: natlab.Link{Delay: 10 * time.Millisecond}},
			{Name: "n", Behind: "home"},
			{Name: "o", Behind: "other"},
		},
	})
	server, h, n, o := bind(t, s.Host("s"), 0), bind(t, s.Host("h"), 0), bind(t, s.Host("n"), 0), bind(t, s.Host("o"), 0)
	if err := h.Send(n.at, 1, []byte("lan")); err != nil { // a switch takes nothing off
		t.Fatal(err)
	}
	begin := s.Now()
	h.send(t, server.at, "out")
	s.Run(time.Second, nil)
	if !slices.Equal(n.texts(), []string{"lan"}) || len(server.got) != 1 {
		t.Fatalf("neighbour got %q, the server %q", n.texts(), server.texts())
	}
	if from := server.got[0].from; from.Addr() != public(t, s, "carrier") {
		t.Errorf("the server sees %v, want the carrier's address", from)
	}
	if d := server.got[0].when.Sub(begin); d != 10*time.Millisecond {
		t.Errorf("one way in %v, want 10ms", d)
	}
	server.send(t, server.got[0].from, "in")
	s.Run(time.Second, nil)
	if !slices.Equal(h.texts(), []string{"in"}) {
		t.Errorf("h got %q", h.texts())
	}
	// Two homes of one carrier meet at their addresses inside it.
	o.send(t, at(public(t, s, "home"), h.Port()), "opens")
	s.Run(time.Second, nil)
	h.send(t, at(public(t, s, "other"), o.Port()), "through")
	s.Run(time.Second, nil)
	if !slices.Equal(o.texts(), []string{"through"}) {
		t.Errorf("o got %q", o.texts())
	}
}

func TestSimIPv6IsFilteredNotTranslated(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{IPv6: true}))
	a, b := bind(t, s.Host("a"), 5000), bind(t, s.Host("b"), 6000)
	ea, eb := at(s.Host("a").Addr6(), 5000), at(s.Host("b").Addr6(), 6000)
	a.send(t, eb, "lost, but it opens")
	s.Run(time.Second, nil)
	b.send(t, ea, "through")
	s.Run(time.Second, nil)
	if len(b.got) != 0 || len(a.got) != 1 || a.got[0].from != eb {
		t.Errorf("a got %v, b got %v", a.got, b.got)
	}
}

func TestSimHostHearsItself(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{}))
	a, again := bind(t, s.Host("a"), 0), bind(t, s.Host("a"), 0)
	a.send(t, again.at, "self")
	s.Run(0, nil)
	if !slices.Equal(again.texts(), []string{"self"}) || s.Host("a").Name() != "a" {
		t.Errorf("%s got %q", s.Host("a").Name(), again.texts())
	}
	again.Close()
	refused := icmpTo(s.Host("a"))
	a.send(t, again.at, "nobody")
	s.Run(0, nil)
	if want := []string{"3/3 from " + a.at.Addr().String()}; !slices.Equal(*refused, want) {
		t.Errorf("a closed port: %q, want %q", *refused, want)
	}
}

// run is a log of everything that happens to many packets on bad links.
func run(tb testing.TB, seed uint64) string {
	tb.Helper()
	bad := natlab.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Rate: 10e6}
	topology := natlab.TwoHomes(natlab.Options{Seed: seed})
	for i := range topology.Boxes {
		topology.Boxes[i].Link = bad
	}
	s := newSim(tb, topology)
	var log strings.Builder
	s.Observe(func(e natlab.Event) {
		fmt.Fprintf(&log, "%v %v %s %v %d %d %v %v %x %v %s\n",
			e.Time.UnixNano(), e.What, e.Where, e.Up, e.ID, e.Of, e.Packet.From, e.Packet.To, e.Packet.Data, e.Leaves.UnixNano(), e.Reason)
	})
	a, b := bind(tb, s.Host("a"), 0), bind(tb, s.Host("b"), 0)
	pa, pb := at(public(tb, s, "home-a"), a.Port()), at(public(tb, s, "home-b"), b.Port())
	for i := range 200 {
		s.After(time.Duration(i)*time.Millisecond, func() {
			a.send(tb, pb, "from a")
			b.send(tb, pa, "from b")
		})
	}
	s.Run(time.Second, nil)
	return log.String()
}

func TestSimIsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	one, again, other := run(t, 1), run(t, 1), run(t, 2)
	if one != again {
		t.Error("two runs of one seed differ")
	}
	if one == other {
		t.Error("two seeds do the same")
	}
	if n := strings.Count(one, "\n"); n < 1000 {
		t.Errorf("only %d events", n)
	}
}

// What a line does depends on the seed and its own packets: not on what else
// there is.
func TestLinksHaveChancesOfTheirOwn(t *testing.T) {
	t.Parallel()
	lost := func(more ...natlab.Host) (out []string) {
		s := newSim(t, natlab.Topology{Seed: 5, Hosts: append([]natlab.Host{
			{Name: "x", Link: natlab.Link{Loss: 0.5}}, {Name: "y"},
		}, more...)})
		x, y := bind(t, s.Host("x"), 1), bind(t, s.Host("y"), 2)
		for i := range 100 {
			x.send(t, y.at, fmt.Sprint(i))
		}
		s.Run(time.Second, nil)
		return y.texts()
	}
	if a, b := lost(), lost(natlab.Host{Name: "z", Link: natlab.Link{Loss: 0.5}}); !slices.Equal(a, b) {
		t.Errorf("another host changes which packets are lost: %v and %v", a, b)
	}
}

func TestLinkShares(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		link      natlab.Link
		low, high int // of 10,000 packets
		ordered   bool
	}{
		"loss":      {natlab.Link{Loss: 0.3}, 6800, 7200, true},
		"duplicate": {natlab.Link{Duplicate: 0.2}, 11800, 12200, true},
		"jitter":    {natlab.Link{Delay: time.Millisecond, Jitter: 10 * time.Millisecond}, 10000, 10000, true},
		"reorder":   {natlab.Link{Delay: 10 * time.Millisecond, Reorder: 0.2}, 10000, 10000, false},
	} {
		s := newSim(t, natlab.Topology{Seed: 3, Hosts: []natlab.Host{{Name: "x", Link: c.link}, {Name: "y"}}})
		x, y := bind(t, s.Host("x"), 0), bind(t, s.Host("y"), 0)
		for i := range 10_000 {
			s.After(time.Duration(i)*time.Millisecond, func() {
				x.send(t, y.at, string(binary.BigEndian.AppendUint32(nil, uint32(i))))
			})
		}
		s.Run(time.Minute, nil)
		if n := len(y.got); n < c.low || n > c.high {
			t.Errorf("%s: %d packets of 10000 arrived, want %d to %d", name, n, c.low, c.high)
		}
		inversions := 0
		for i := 1; i < len(y.got); i++ {
			if y.got[i].text < y.got[i-1].text {
				inversions++
			}
		}
		if ordered := inversions == 0; ordered != c.ordered {
			t.Errorf("%s: %d packets came after later ones", name, inversions)
		}
	}
}

func TestLinkRateAndQueue(t *testing.T) {
	t.Parallel()
	// 8 Mbit/s is a packet of 1,000 bytes a millisecond; 50 ms of them may wait.
	s := newSim(t, natlab.Topology{Hosts: []natlab.Host{{Name: "x", Link: natlab.Link{Rate: 8e6}}, {Name: "y"}}})
	x, y := bind(t, s.Host("x"), 0), bind(t, s.Host("y"), 0)
	begin := s.Now()
	for range 200 {
		x.send(t, y.at, string(make([]byte, 1000-28)))
	}
	s.Run(time.Second, nil)
	if len(y.got) != 51 {
		t.Errorf("%d packets arrived, want 51", len(y.got))
	}
	for i, r := range y.got {
		if d := r.when.Sub(begin); d != time.Duration(i+1)*time.Millisecond {
			t.Fatalf("packet %d after %v", i, d)
		}
	}
	if err := s.SetLink("x", natlab.Link{Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	begin = s.Now()
	x.send(t, y.at, "late")
	s.Run(2*time.Second, nil)
	if d := y.got[51].when.Sub(begin); d != time.Second {
		t.Errorf("after SetLink a packet took %v", d)
	}
	if err := s.SetLink("z", natlab.Link{}); err == nil {
		t.Error("there is no z to set")
	}
}

func TestObserverSeesAPacketsWay(t *testing.T) {
	t.Parallel()
	s := newSim(t, natlab.TwoHomes(natlab.Options{}))
	var log []string
	s.Observe(func(e natlab.Event) {
		text := fmt.Sprintf("%d %v %s", e.ID, e.What, e.Where)
		if e.What == natlab.Translated {
			text += fmt.Sprintf(" %v>%v", e.Was.From, e.Packet.From)
		}
		log = append(log, text)
	})
	a := bind(t, s.Host("a"), 5000)
	a.send(t, at(s.Host("server").Addr(), 9), "refused")
	s.Run(time.Second, nil)
	want := []string{
		"1 entered a",
		fmt.Sprintf("1 translated home-a %v>%v", a.at, at(public(t, s, "home-a"), 5000)),
		"1 entered home-a", "1 entered server", "1 delivered server",
		"2 entered server", "2 entered home-a",
		fmt.Sprintf("2 translated home-a %v>%v", at(s.Host("server").Addr(), 0), at(s.Host("server").Addr(), 0)),
		"2 entered a", "2 delivered a",
	}
	if !slices.Equal(log, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(log, "\n"), strings.Join(want, "\n"))
	}
}
