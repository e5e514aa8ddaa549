package punch

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/nat"
)

// icmpHome is what pings and errors meet at a side of a world.
type icmpHome struct {
	public bool // requests arrive, and replies of its own choice leave
	raw    bool
	id     uint16
	asked  map[netip.Addr]bool
}

const icmpID = 777

// icmpWorld is a world whose sides have ICMP beside UDP, or alone.
func icmpWorld(t *testing.T, seed uint64, a, b icmpHome, with Abilities) *world {
	t.Helper()
	w := newWorld(t, seed)
	w.icmp = map[*side]*icmpHome{w.a: &a, w.b: &b}
	ka, kb := testKey(1), testKey(2)
	describe := func(s *side, n byte, h *icmpHome) Side {
		h.id, h.asked = icmpID+uint16(n), make(map[netip.Addr]bool)
		out := s.describe(testKey(n), nat.Profile{})
		if out.Abilities = with | ByEcho; h.raw {
			out.Abilities |= ByError
		}
		out.Candidates = append(out.Candidates, Candidate{Host, ICMP, netip.AddrPortFrom(s.private.Addr(), h.id)})
		return out
	}
	sa, sb := describe(w.a, 1, &a), describe(w.b, 2, &b)
	secretA, _ := ka.Shared(kb.ID())
	secretB, _ := kb.Shared(ka.ID())
	w.a.engine = NewEngine(Config{Self: sa, Other: sb, Secret: secretA, Rand: seeded{w.rng}})
	w.b.engine = NewEngine(Config{Self: sb, Other: sa, Secret: secretB, Rand: seeded{w.rng}})
	for _, s := range []*side{w.a, w.b} {
		h := w.icmp[s]
		open := func(way Way) {
			w.step(s, Input{Op: Open, Local: ICMPLocal(0, way), From: netip.AddrPortFrom(netip.IPv4Unspecified(), h.id)})
		}
		if open(Ask); h.raw {
			open(Answer)
			open(Unreachable)
			open(Exceeded)
		}
	}
	return w
}

// sendICMP carries a packet as a Linux router would: replies come back in, requests are
// answered by it, and errors pass about flows that it knows, which UDP opened.
func (w *world) sendICMP(s *side, a Action) {
	other := w.b
	if s == w.b {
		other = w.a
	}
	h, o := w.icmp[s], w.icmp[other]
	from, local := netip.AddrPortFrom(s.public.Addr(), h.id), ICMPLocal(0, Answer)
	to, pass := other, false
	switch a.Local.Way() {
	case Ask:
		h.asked[a.To.Addr()] = true
		if pass = true; !o.public {
			to, from, local = s, a.To, a.Local // the router's echo
		}
	case Answer:
		from = netip.AddrPortFrom(s.public.Addr(), a.To.Port())
		pass = h.public && o.asked[s.public.Addr()] && a.To.Port() == o.id
		local = ICMPLocal(0, Ask)
	default:
		from, local = s.public, a.Local
		w.opened[[2]netip.AddrPort{s.public, a.To}] = true
		pass = w.opened[[2]netip.AddrPort{a.To, s.public}]
	}
	if !pass || w.rng.Float64() < w.loss {
		return
	}
	data := slices.Clone(a.Data)
	w.after(w.delay, func() { w.step(to, Input{Op: Packet, Local: local, From: from, Data: data}) })
}

func (w *world) startBoth() {
	w.start(w.a, 0)
	w.start(w.b, 20*time.Millisecond)
}

func TestHolesByICMP(t *testing.T) {
	t.Parallel()
	home, ping := icmpHome{raw: true}, icmpHome{}
	public := icmpHome{raw: true, public: true}
	for name, c := range map[string]struct {
		a, b icmpHome
		won  Name
	}{
		"public with home":                 {public, home, Echo},
		"home with public":                 {home, public, Echo},
		"unprivileged home with public":    {ping, public, Echo},
		"public with unprivileged home":    {public, ping, Echo},
		"homes":                            {home, home, Errors},
		"homes, one of them unprivileged":  {ping, home, ""},
		"homes, both of them unprivileged": {ping, ping, ""},
		"public, unprivileged":             {icmpHome{public: true}, ping, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				w := icmpWorld(t, seed, c.a, c.b, 0)
				if c.won != "" {
					w.loss = 0.1
				}
				w.startBoth()
				w.run(11*time.Second, func() bool { return false })
				if w.direct() != (c.won != "") {
					t.Fatalf("seed %d: direct at %v and %v", seed, w.a.direct, w.b.direct)
				}
				for _, s := range []*side{w.a, w.b} {
					r := s.engine.Report()
					if won := r.Won(); (won == "") != (c.won == "") || c.won == Errors && won != Errors {
						t.Errorf("seed %d: %s won by %q", seed, s.name, won)
					}
					for to, n := range probesTo(s) {
						if c.won == "" && n > icmpLimit {
							t.Errorf("seed %d: %s probed %v %d times", seed, s.name, to, n)
						}
					}
				}
			}
		})
	}
}

// probesTo counts the probes by endpoint and socket.
func probesTo(s *side) map[shot]int {
	out := make(map[shot]int)
	for _, p := range s.packets {
		if p.Data[0] == 0 {
			out[shot{p.Local, p.To}]++
		}
	}
	return out
}

// A router that sends our own packets back is not the peer, however often it does.
func TestRoutersEchoIsNoRoute(t *testing.T) {
	t.Parallel()
	w := icmpWorld(t, 1, icmpHome{}, icmpHome{raw: true}, 0)
	w.startBoth()
	w.run(time.Minute, func() bool { return false })
	r := w.a.engine.Report()
	if w.a.did(Confirmed) > 0 || w.a.did(Heard) > 0 || r.Confirmed > 0 || r.Heard > 0 {
		t.Errorf("%+v, %+v", r, w.a.actions)
	}
	if r.Echoed != icmpLimit || w.a.engine.Stats() != (Stats{}) {
		t.Errorf("%d came back, %+v were not believed", r.Echoed, w.a.engine.Stats())
	}
	if !w.a.engine.Idle() {
		t.Error("the attempt goes on")
	}
}

// ICMP leaves the race to UDP, and is there when UDP is not.
func TestICMPIsTheLastResort(t *testing.T) {
	t.Parallel()
	byICMP := func(s *side) (n int) {
		for _, p := range s.packets {
			if p.Local.Transport() == ICMP {
				n++
			}
		}
		return n
	}
	home := icmpHome{raw: true}
	w := icmpWorld(t, 1, home, home, ByUDP)
	w.startBoth()
	w.run(12*time.Second, func() bool { return false })
	if !w.direct() || byICMP(w.a) > 0 || byICMP(w.b) > 0 {
		t.Errorf("with UDP: direct %v, %d and %d packets by ICMP", w.direct(), byICMP(w.a), byICMP(w.b))
	}

	w = icmpWorld(t, 1, home, home, ByUDP)
	w.no4 = true
	began := w.now
	w.startBoth()
	w.run(12*time.Second, w.direct)
	if !w.direct() || w.a.direct.Sub(began) < afterBetter {
		t.Errorf("without UDP: direct after %v", w.a.direct.Sub(began))
	}
	// UDP comes back while the attempt is under way: it takes over.
	w.no4 = false
	w.run(3*time.Second, func() bool { return w.a.engine.won == UDP && w.b.engine.won == UDP })
	if w.a.engine.won != UDP || w.a.engine.Report().Won() != Plain {
		t.Errorf("UDP came back: %v, %+v", w.a.engine.won, w.a.engine.Report())
	}
}

func TestPlanOfICMP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b Abilities
		want []Name
	}{
		{ByEcho, ByEcho, nil},
		{ByEcho, ByEcho | ByError, []Name{Echo}},
		{ByEcho | ByError, ByEcho | ByError, []Name{Echo, Errors}},
		{ByUDP | ByEcho | ByError, ByEcho | ByError, []Name{Echo, Errors}},
		{ByUDP | ByEcho | ByError, ByUDP | ByEcho | ByError, []Name{Plain, Echo, Errors}},
		{ByUDP | ByEcho | ByError, ByUDP, []Name{Plain}},
	} {
		for _, sides := range [][2]Abilities{{c.a, c.b}, {c.b, c.a}} {
			a, b := sideOf(1, nat.Profile{}), sideOf(2, nat.Profile{})
			a.Abilities, b.Abilities = sides[0], sides[1]
			var got []Name
			for _, x := range Plan(a, b) {
				got = append(got, x.Name)
				if x.Transport == ICMP && (x.After > 0) != slices.Contains(c.want, Plain) {
					t.Errorf("%v with %v: %s waits %v", sides[0], sides[1], x.Name, x.After)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v with %v: %v, want %v", sides[0], sides[1], got, c.want)
			}
		}
	}
}

// Nobody can aim our pings at a stranger: where the server did not see the peer, few leave.
func TestICMPTargets(t *testing.T) {
	t.Parallel()
	all := ByEcho | ByError
	other := Side{
		Abilities: all, Observed: []netip.AddrPort{ap("198.51.100.1:5000"), ap("[2001:db8::1]:5001")},
		Candidates: []Candidate{
			{Host, UDP, ap("192.168.1.2:5000")},
			{Host, ICMP, ap("192.168.1.2:7")},
			{ServerReflexive, ICMP, ap("198.51.100.1:8")},
			{ServerReflexive, ICMP, ap("192.0.2.66:9")},
			{ServerReflexive, ICMP, ap("10.0.0.1:9")},
		},
	}
	for way, want := range map[Way]map[string]int{
		Ask:         {"198.51.100.1:3": icmpLimit, "[2001:db8::1]:3": icmpLimit},
		Answer:      {"198.51.100.1:7": icmpLimit, "198.51.100.1:8": icmpLimit, "192.0.2.66:9": unobservedLimit},
		Unreachable: {"198.51.100.1:5000": icmpLimit, "[2001:db8::1]:5001": icmpLimit},
		Exceeded:    {"198.51.100.1:5000": icmpLimit, "[2001:db8::1]:5001": icmpLimit},
	} {
		got := icmpTargets(Side{Abilities: all}, other, way, 3)
		for _, x := range got {
			if want[x.endpoint.String()] != x.limit {
				t.Errorf("%v: %v %d times", way, x.endpoint, x.limit)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%v: %v", way, got)
		}
	}
}

// A peer that says it does not punch by UDP, and does, gets nothing.
func TestProbeByAnotherTransport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	sa, sb := w.a.describe(testKey(1), nat.Profile{}), w.b.describe(testKey(2), nat.Profile{})
	sb.Abilities = 0
	secret, _ := testKey(1).Shared(testKey(2).ID())
	w.a.engine = NewEngine(Config{Self: sa, Other: sb, Secret: secret, Nonce: [32]byte{7}})
	w.startBoth()
	w.run(2*time.Second, func() bool { return false })
	if w.a.engine.Report().Heard > 0 || len(w.a.packets) > 0 {
		t.Errorf("%+v", w.a.engine.Report())
	}
}
