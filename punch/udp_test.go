package punch

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/nat"
)

func never() bool { return false }

// route is the kind of the route that s has to an endpoint; 0: none.
func (s *side) route(to netip.AddrPort) (k Kind) {
	for _, a := range s.actions {
		if a.To == to && a.Op == Confirmed {
			k = a.Kind
		}
		if a.To == to && a.Op == Lost {
			k = 0
		}
	}
	return k
}

// sentTo are the packets of s to an endpoint, answers left out.
func (s *side) sentTo(to netip.AddrPort) (probes []Action) {
	for _, p := range s.packets {
		if p.To == to && p.Data[0] == 0 {
			probes = append(probes, p)
		}
	}
	return probes
}

func newWorldOfBoth(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 1)
	w.a.six, w.b.six = ap("[2001:db8:a::1]:5000"), ap("[2001:db8:b::1]:6000")
	w.engines(nat.Profile{}, nat.Profile{})
	return w
}

func TestBothFamiliesAreRaced(t *testing.T) {
	t.Parallel()
	w := newWorldOfBoth(t)
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(2*time.Second, never)
	for _, to := range []netip.AddrPort{w.b.public, w.b.six} {
		if w.a.route(to) == 0 {
			t.Errorf("no route to %v", to)
		}
	}
	for _, p := range w.a.packets {
		if want := p.To.Addr().Is6(); (p.Local == 2) != want {
			t.Errorf("socket %d sent to %v", p.Local, p.To)
		}
	}
}

func TestIPv6OpensWhereIPv4IsBlocked(t *testing.T) {
	t.Parallel()
	w := newWorldOfBoth(t)
	w.no4 = true
	w.start(w.a, 0)
	w.start(w.b, 10*time.Millisecond)
	w.run(time.Second, w.direct)
	if !w.direct() || w.a.route(w.b.six) == 0 || w.a.route(w.b.public) != 0 {
		t.Errorf("routes of a: %v", w.a.actions)
	}
}

// A's NAT shows B another port than it showed the server (APDM). B, which takes
// packets from anywhere (EIF), learns the port from A's first probe.
func TestTriggeredCheckFindsThePeerReflexiveEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.a.symmetric, w.b.open = true, true
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(time.Second, w.direct)
	if !w.direct() {
		t.Fatal("no hole")
	}
	if k := w.b.route(w.a.mappings[flow{1, w.b.public}]); k != PeerReflexive {
		t.Errorf("b's route to a is %v", k)
	}
	if k := w.a.route(w.b.public); k != ServerReflexive {
		t.Errorf("a's route to b is %v", k)
	}
}

func TestPeerReflexiveEndpointUnderLoss(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		w := newWorld(t, seed)
		w.a.symmetric, w.b.open = true, true
		w.loss = 0.36 // 20% each way on both access links
		w.start(w.a, 0)
		w.start(w.b, 10*time.Millisecond)
		w.run(10*time.Second, w.direct)
		if !w.direct() {
			t.Fatalf("seed %d: no hole", seed)
		}
	}
}

// Two NATs that both filter by port and map by destination: plain punching must
// end within its budget and say so.
func TestHopelessPairEndsWithAReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.a.symmetric, w.b.symmetric = true, true
	w.start(w.a, 0)
	w.start(w.b, 0)
	begin := w.now
	w.run(time.Minute, never)
	for _, s := range []*side{w.a, w.b} {
		i := slices.IndexFunc(s.actions, func(a Action) bool { return a.Op == Done })
		if i < 0 || s.actions[i].Report.Confirmed != 0 || s.actions[i].Report.Sent > attemptProbes {
			t.Fatalf("%s ended with %+v", s.name, s.actions)
		}
		if !s.engine.Idle() {
			t.Errorf("%s is not idle", s.name)
		}
		if !s.next.IsZero() && s.next.After(begin.Add(attemptTime)) {
			t.Errorf("%s wants to be called at %v", s.name, s.next)
		}
	}
}

// A peer that may be in league with somebody says that its probes come from a
// stranger's endpoint.
func TestForgedSourcesGetFewProbes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.no4 = true // nothing else comes in
	w.start(w.a, 0)
	w.run(time.Millisecond, never)
	b := w.b.engine.keys
	victim := ap("192.0.2.66:53")
	const forged = 20
	for i := range forged {
		probe := b.AppendProbe(nil, wire.TransactionID{byte(i)}, uint64(1+i))
		w.step(w.a, Input{Op: Packet, Local: 1, From: victim, Data: probe})
		w.run(200*time.Millisecond, never)
	}
	w.run(20*time.Second, never)
	if n := len(w.a.sentTo(victim)); n > unobservedLimit+forged {
		t.Errorf("%d probes to a stranger for %d forged ones", n, forged)
	}
	if n := len(w.a.sentTo(victim)); n < unobservedLimit {
		t.Errorf("only %d probes to an endpoint that the peer may be at", n)
	}
	if w.a.did(Confirmed) != 0 {
		t.Error("a stranger's endpoint became a route")
	}
}

func TestOneForgedSourceGetsNoMoreThanAnyEndpoint(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{"during the attempt": time.Second, "after it": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.no4 = true
			w.start(w.a, 0)
			w.run(after, never)
			victim := ap("192.0.2.66:53")
			probe := w.b.engine.keys.AppendProbe(nil, wire.TransactionID{1}, 1)
			w.step(w.a, Input{Op: Packet, Local: 1, From: victim, Data: probe})
			w.run(20*time.Second, never)
			if n := len(w.a.sentTo(victim)); n != unobservedLimit {
				t.Errorf("%d probes, want %d", n, unobservedLimit)
			}
			if !w.a.engine.Idle() {
				t.Error("the engine waits for a stranger")
			}
		})
	}
}

// Packets overtake each other: that is no replay, as long as it is within the
// window.
func TestWindowTakesWhatIsReordered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.no4 = true
	w.start(w.a, 0)
	w.run(time.Millisecond, never)
	keys := w.b.engine.keys
	take := func(sequence uint64) bool {
		before := w.a.did(Heard)
		w.step(w.a, Input{Op: Packet, Local: 1, From: w.b.public, Data: keys.AppendProbe(nil, wire.TransactionID{}, sequence)})
		return w.a.did(Heard) > before
	}
	for _, c := range []struct {
		sequence uint64
		want     bool
	}{
		{0, false},
		{3, true},
		{1, true},
		{2, true},
		{2, false},
		{100, true},
		{37, true},
		{36, false},
		{100, false},
		{37, false},
		{1 << 63, true},
		{101, false},
	} {
		if got := take(c.sequence); got != c.want {
			t.Errorf("sequence %d was taken: %v", c.sequence, got)
		}
	}
	if r := w.a.engine.Stats().Replayed; r != 6 {
		t.Errorf("%d counted as replayed, want 6", r)
	}
}

func TestDuplicatedPacketsChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.tamper = func(data []byte) []byte {
		twin := slices.Clone(data)
		w.after(w.delay+time.Millisecond, func() {
			w.step(w.b, Input{Op: Packet, Local: 1, From: w.a.public, Data: twin})
		})
		return data
	}
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(5*time.Second, never)
	s := w.b.engine.Stats()
	if !w.direct() || s.Replayed == 0 || s.Forged+s.Malformed != 0 {
		t.Errorf("direct %v, stats %+v", w.direct(), s)
	}
	// Nobody answers a twin: one answer a probe of the peer.
	answers := 0
	for _, p := range w.b.packets {
		if p.Data[0] == 1 {
			answers++
		}
	}
	if r := w.b.engine.Report(); answers != r.Heard {
		t.Errorf("%d answers to %d probes", answers, r.Heard)
	}
}

// Towards a NAT that keeps early packets nothing that could reach it leaves
// before the hold is over, whichever side is told first.
func TestPlanHoldsBackFromANATThatKeepsEarlyPackets(t *testing.T) {
	t.Parallel()
	keeps := nat.Profile{KeepsEarly: nat.Yes}
	for name, c := range map[string]struct {
		a, b          nat.Profile
		tellA, tellB  time.Duration
		aHolds, bHold bool
	}{
		"b keeps":              {b: keeps, aHolds: true},
		"a keeps":              {a: keeps, bHold: true},
		"both keep":            {a: keeps, b: keeps, aHolds: true, bHold: true},
		"b keeps, told late":   {b: keeps, aHolds: true, tellB: 30 * time.Millisecond},
		"b keeps, told first":  {b: keeps, aHolds: true, tellA: 30 * time.Millisecond},
		"neither is known to":  {},
		"b is known not to do": {b: nat.Profile{KeepsEarly: nat.No}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.delay = 100 * time.Millisecond // no probe of the other ends a hold
			w.engines(c.a, c.b)
			w.start(w.a, c.tellA)
			w.start(w.b, c.tellB)
			begin := w.now
			first := func(s *side, to netip.AddrPort) (at time.Duration, openers int) {
				for len(s.sentTo(to)) == 0 || s.sentTo(to)[len(s.sentTo(to))-1].TTL != 0 {
					if len(w.events) == 0 {
						t.Fatal("no full-TTL probe")
					}
					e := w.events[0].at
					w.run(e.Sub(w.now), never)
				}
				for _, p := range s.sentTo(to) {
					if p.TTL != 0 {
						openers++
					}
				}
				return w.now.Sub(begin), openers
			}
			check := func(s *side, to netip.AddrPort, told time.Duration, holds bool) {
				at, openers := first(s, to)
				wantAt, wantOpeners := told, 0
				if holds {
					wantAt, wantOpeners = told+holdForEarly, len(openerTTLs)
				}
				if at < wantAt || !holds && openers != 0 || openers != wantOpeners {
					t.Errorf("%s probed at full TTL after %v with %d openers, want %v and %d", s.name, at, openers, wantAt, wantOpeners)
				}
			}
			check(w.a, w.b.public, c.tellA, c.aHolds)
			check(w.b, w.a.public, c.tellB, c.bHold)
			w.run(2*time.Second, w.direct)
			if !w.direct() {
				t.Error("no hole")
			}
		})
	}
}

// The peer's probe in the middle of a hold says that its NAT is open.
func TestHoldEndsWhenThePeerIsHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.engines(nat.Profile{}, nat.Profile{KeepsEarly: nat.Yes})
	w.start(w.a, 0)
	w.run(10*time.Millisecond, never)
	probe := w.b.engine.keys.AppendProbe(nil, wire.TransactionID{1}, 1)
	w.step(w.a, Input{Op: Packet, Local: 1, From: w.b.public, Data: probe})
	if p := w.a.sentTo(w.b.public); len(p) == 0 || p[len(p)-1].TTL != 0 {
		t.Errorf("no triggered probe: %v", p)
	}
}

// A driver that cannot set a TTL leaves openers out: everything else goes on.
func TestWithoutOpenersTheHoldStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.engines(nat.Profile{}, nat.Profile{KeepsEarly: nat.Yes})
	// What has a TTL never arrives in this world anyhow, and opens nothing here.
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(0, never)
	clear(w.opened)
	w.opened[[2]netip.AddrPort{w.b.public, w.a.public}] = true
	w.run(2*time.Second, w.direct)
	if !w.direct() {
		t.Error("no hole")
	}
}

// A router's reboot moves the peer to another port while the route is up.
func TestRouteMovesWithThePeersMapping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.a.open, w.b.open = true, true
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(15*time.Second, never)
	if !w.direct() {
		t.Fatal("no hole")
	}
	w.b.public = ap("198.51.100.1:7777")
	w.run(40*time.Second, never)
	if w.a.route(w.b.public) != PeerReflexive {
		t.Errorf("no route to the new port: %v", w.a.actions)
	}
	if w.b.did(Lost) != 0 {
		t.Error("the side that moved lost its route")
	}
}

func TestSilentPeerIsLostByKeepaliveAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(12*time.Second, never)
	w.loss = 1
	begin := w.now
	w.run(time.Minute, func() bool { return w.a.did(Lost) > 0 && w.b.did(Lost) > 0 })
	if d := w.now.Sub(begin); w.a.did(Lost) != 1 || d > keepalive+5*time.Second {
		t.Fatalf("a lost %d, b %d, after %v", w.a.did(Lost), w.b.did(Lost), d)
	}
	sent := len(w.a.packets)
	w.run(time.Hour, never)
	if n := len(w.a.packets) - sent; !w.a.engine.Idle() || n < 30 || n > 60 {
		t.Errorf("%d packets after the route was lost", n)
	}
}

func TestStopKeepsWhatIsConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(time.Second, never)
	w.step(w.a, Input{Op: Stop})
	w.step(w.a, Input{Op: Stop})
	if w.a.did(Done) != 1 {
		t.Errorf("the attempt ended %d times", w.a.did(Done))
	}
	w.run(time.Minute, never)
	if !w.a.engine.Has(1, w.b.public) || w.a.engine.Idle() || w.a.did(Lost)+w.b.did(Lost) != 0 {
		t.Error("stopping lost the route")
	}
}

// What bounds an attempt holds with every pair that there can be.
func TestBudgetOfAnAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	cfg := w.a.engine.cfg
	cfg.Other.Observed, cfg.Other.Candidates = nil, nil
	for i := range 8 {
		cfg.Other.Observed = append(cfg.Other.Observed, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + i)}), 9))
	}
	for i := range MaxCandidates {
		cfg.Other.Candidates = append(cfg.Other.Candidates, Candidate{Mapped, UDP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 9)})
	}
	w.a.engine = NewEngine(cfg)
	for l := range Local(5) {
		w.step(w.a, Input{Op: Open, Local: 1 + l, From: w.a.private})
	}
	w.step(w.a, Input{Op: Start})
	for range 20 {
		before := len(w.a.packets)
		w.run(time.Second, never)
		if n := len(w.a.packets) - before; n > secondProbes {
			t.Errorf("%d probes within a second", n)
		}
	}
	if n := len(w.a.packets); n > attemptProbes+maxPairs || n < attemptProbes/2 || w.a.did(Done) != 1 {
		t.Errorf("%d probes, %d ends", n, w.a.did(Done))
	}
}

// Whoever knows the session's name, which travels in the clear, but not the key.
func FuzzEngineForged(f *testing.F) {
	w := newWorld(f, 1)
	w.start(w.a, 0)
	w.run(time.Second, func() bool { return len(w.a.packets) > 0 })
	ours := w.a.engine.keys
	asked := w.a.engine.pairs[0].asked[0].id
	f.Add(asked[:], uint64(1), []byte("key"), false)
	f.Add(asked[:], uint64(1), []byte("key"), true)
	f.Add(asked[:], uint64(0), ours.Ours[:], true)
	f.Fuzz(func(t *testing.T, id []byte, sequence uint64, key []byte, answer bool) {
		forged := wire.ProbeKeys{Session: ours.Session}
		copy(forged.Ours[:], key)
		if forged.Ours == ours.Theirs {
			t.Skip("that is the key")
		}
		var transaction wire.TransactionID
		copy(transaction[:], id)
		data := forged.AppendProbe(nil, transaction, sequence)
		if answer {
			data = forged.AppendAnswer(nil, transaction, w.a.public)
		}
		before := w.a.engine.Stats()
		out, _ := w.a.engine.Step(w.now, Input{Op: Packet, Local: 1, From: w.b.public, Data: data}, nil)
		if len(out) != 0 || w.a.engine.Stats().Forged != before.Forged+1 {
			t.Errorf("forged %x did %v", data, out)
		}
	})
}

func TestHowOftenATargetMayBeProbed(t *testing.T) {
	t.Parallel()
	link := []netip.Prefix{netip.MustParsePrefix("192.168.7.3/24"), netip.MustParsePrefix("2001:db8:7::3/64")}
	host := func(s string) Candidate { return Candidate{Host, UDP, ap(s)} }
	alone := []netip.AddrPort{ap("203.0.113.1:1")}
	for name, c := range map[string]struct {
		observed   []netip.AddrPort
		candidates []Candidate
		want       map[string]int
	}{
		"observed":                        {[]netip.AddrPort{ap("198.51.100.1:9")}, nil, map[string]int{"198.51.100.1:9": noLimit}},
		"observed and said":               {[]netip.AddrPort{ap("198.51.100.1:9")}, []Candidate{host("198.51.100.1:9")}, map[string]int{"198.51.100.1:9": noLimit}},
		"mapped by the router":            {[]netip.AddrPort{ap("198.51.100.1:9")}, []Candidate{{Mapped, UDP, ap("198.51.100.1:10")}}, map[string]int{"198.51.100.1:9": noLimit, "198.51.100.1:10": reserveLimit}},
		"stranger's":                      {nil, []Candidate{host("192.0.2.8:53")}, map[string]int{"192.0.2.8:53": unobservedLimit}},
		"private of another home":         {nil, []Candidate{host("10.0.0.8:9")}, nil},
		"carrier-grade of another net":    {nil, []Candidate{host("100.64.0.8:9")}, nil},
		"unique local of another home":    {nil, []Candidate{host("[fd00::8]:9")}, nil},
		"loopback":                        {nil, []Candidate{host("127.0.0.1:9"), host("[::1]:9")}, nil},
		"link-local":                      {nil, []Candidate{host("169.254.1.1:9")}, nil},
		"on our link":                     {nil, []Candidate{host("192.168.7.8:9")}, map[string]int{"192.168.7.8:9": privateLimit}},
		"public on our link":              {nil, []Candidate{host("[2001:db8:7::8]:9")}, map[string]int{"[2001:db8:7::8]:9": unobservedLimit}},
		"behind the same NAT":             {[]netip.AddrPort{ap("203.0.113.1:9")}, []Candidate{host("10.0.0.8:9")}, map[string]int{"10.0.0.8:9": privateLimit, "203.0.113.1:9": noLimit}},
		"server in the private net":       {[]netip.AddrPort{ap("192.168.7.8:9")}, []Candidate{host("192.168.7.8:9")}, map[string]int{"192.168.7.8:9": noLimit}},
		"private, observed, another link": {[]netip.AddrPort{ap("10.9.9.9:9")}, nil, map[string]int{"10.9.9.9:9": noLimit}},
	} {
		got := map[string]int{}
		for _, u := range targets(Side{Abilities: ByUDP, Observed: alone}, Side{Abilities: ByUDP, Observed: c.observed, Candidates: c.candidates}, link, UDP) {
			got[u.endpoint.String()] = u.limit
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
