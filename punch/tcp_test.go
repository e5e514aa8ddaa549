package punch

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"bodkin/nat"
)

// The server tells a at 60 ms and b at 70 ms. The SYNs cross; b's connection stands at
// 170 ms, and its probe is with a at 220 ms.
func TestTCPHoleAtTheLimit(t *testing.T) {
	t.Parallel()
	w := newTCPWorld(t, 1)
	w.engines(func(a, b *Side) {
		a.ServerRTT, b.ServerRTT = 60*time.Millisecond, 80*time.Millisecond
	})
	begin := w.now
	w.start(w.a, 60*time.Millisecond)
	w.start(w.b, 70*time.Millisecond)
	w.run(10*time.Second, w.direct)
	if got := w.a.direct.Sub(begin); !w.direct() || got != 220*time.Millisecond {
		t.Errorf("direct after %v, want 220ms", got)
	}
	if w.a.dials != 1 || w.b.dials != 1 {
		t.Errorf("%d and %d connects", w.a.dials, w.b.dials)
	}
}

// Whatever the routers answer, whoever is how late, and whatever gets lost.
func TestTCPHoleOpens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		resetsA, resetsB bool
		keeps            bool
		loss             float64
		trip             time.Duration
		within           time.Duration
	}{
		"both drop":               {within: 300 * time.Millisecond},
		"both drop, loss":         {loss: 0.3, within: 9 * time.Second},
		"one resets":              {resetsA: true, within: 3 * time.Second},
		"both reset":              {resetsA: true, resetsB: true, within: 3 * time.Second},
		"both reset, near":        {resetsA: true, resetsB: true, trip: 2 * time.Millisecond, within: 3 * time.Second},
		"both reset, far":         {resetsA: true, resetsB: true, trip: 300 * time.Millisecond, within: 9 * time.Second},
		"both reset, loss":        {resetsA: true, resetsB: true, loss: 0.2, within: 9 * time.Second},
		"both keep what is early": {resetsA: true, resetsB: true, keeps: true, within: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(200) {
				w := newTCPWorld(t, seed)
				if c.trip > 0 {
					w.delay = c.trip / 2
				}
				w.a.resets, w.b.resets, w.loss = c.resetsA, c.resetsB, c.loss
				late := time.Duration(seed%40) * time.Millisecond
				if c.keeps {
					w.a.keeps, w.b.keeps = true, true
					w.engines(func(a, b *Side) { a.Profile.KeepsEarly, b.Profile.KeepsEarly = nat.Yes, nat.Yes })
					late %= 50
				}
				w.start(w.a, 0)
				w.start(w.b, late)
				w.run(c.within, w.direct)
				if !w.direct() {
					t.Fatalf("seed %d: no hole; %d and %d connects", seed, w.a.dials, w.b.dials)
				}
			}
		})
	}
}

// Both sides end up with one connection, and the same.
func TestTCPOneConnectionIsKept(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		w := newTCPWorld(t, seed)
		// The peer is known at two endpoints that lead to one port, by two of ours.
		w.start(w.a, 0)
		w.start(w.b, 5*time.Millisecond)
		w.after(0, func() {
			w.a.step(Input{Op: Open, Local: NewLocal(TCP, 2), From: ap("0.0.0.0:5001")})
		})
		w.run(15*time.Second, never)
		if len(w.a.routes) != 1 || len(w.b.routes) != 1 || len(w.a.conns) != 1 || len(w.b.conns) != 1 {
			t.Fatalf("seed %d: routes %v and %v, %d and %d connections", seed, w.a.routes, w.b.routes, len(w.a.conns), len(w.b.conns))
		}
		for l := range w.a.routes {
			if far := w.a.conns[l].far; !w.b.routes[far.local] {
				t.Errorf("seed %d: each side keeps another connection", seed)
			}
		}
	}
}

// A peer that is not there costs a bounded number of connects, and no connection stays.
func TestTCPAttemptIsBounded(t *testing.T) {
	t.Parallel()
	for _, resets := range []bool{false, true} {
		w := newTCPWorld(t, 1)
		w.b.resets = resets
		w.start(w.a, 0)
		w.run(20*time.Second, never)
		if w.a.dials == 0 || w.a.dials > attemptDials || len(w.a.conns) != 0 || !w.a.engine.Idle() {
			t.Errorf("resets %v: %d connects, %d connections, idle: %v", resets, w.a.dials, len(w.a.conns), w.a.engine.Idle())
		}
	}
}

// An endpoint that the server did not see the peer at gets as few connects as it gets
// probes.
func TestTCPStrangersGetFewConnects(t *testing.T) {
	t.Parallel()
	w := newTCPWorld(t, 1)
	stranger := ap("192.0.2.50:80")
	w.engines(func(_, b *Side) {
		b.ObservedTCP, b.Candidates = nil, []Candidate{{Host, TCP, stranger}}
	})
	w.start(w.a, 0)
	w.run(20*time.Second, never)
	if w.a.dials > unobservedLimit {
		t.Errorf("%d connects", w.a.dials)
	}
}

// A connection on which nobody proves to be the peer is closed.
func TestTCPStrangersConnectionIsClosed(t *testing.T) {
	t.Parallel()
	w := newTCPWorld(t, 1)
	w.start(w.a, 0)
	l := NewLocal(TCP, 99)
	w.after(time.Second, func() {
		w.a.conns[l] = &tcpConn{local: l, from: w.a.public, to: ap("192.0.2.9:9"), stands: true}
		w.a.engine.extra = append(w.a.engine.extra, l)
		w.a.step(Input{Op: Connected, Local: l, From: ap("192.0.2.9:9")})
	})
	w.run(9*time.Second, never)
	if w.a.conns[l] != nil || len(w.a.routes) != 0 {
		t.Error("it stays")
	}
}

// A route over TCP that answers nothing is lost within two seconds, and closed; one that
// ends is lost at once.
func TestTCPRouteIsLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		strike func(w *tcpWorld, l Local)
		within time.Duration
	}{
		"it ends": {func(w *tcpWorld, l Local) { w.b.close(w.a.conns[l].far.local) }, 100 * time.Millisecond},
		"silence": {func(w *tcpWorld, l Local) {
			w.a.conns[l].far, w.b.engine = nil, NewEngine(w.b.engine.cfg)
			w.a.step(Input{Op: Check, Local: l, From: w.b.public})
		}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTCPWorld(t, 1)
			w.start(w.a, 0)
			w.start(w.b, 0)
			w.run(5*time.Second, w.direct)
			w.run(2*time.Second, never)
			for l := range w.a.routes {
				c.strike(w, l)
			}
			w.run(c.within, func() bool { return w.a.lost > 0 })
			if w.a.lost != 1 || len(w.a.conns) != 0 {
				t.Errorf("lost %d routes, %d connections stay", w.a.lost, len(w.a.conns))
			}
		})
	}
}

// An idle connection costs a probe a minute.
func TestTCPKeepaliveIsSparse(t *testing.T) {
	t.Parallel()
	w := newTCPWorld(t, 1)
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(5*time.Second, w.direct)
	w.run(10*time.Second, never)
	before := w.a.engine.report.Sent + w.b.engine.report.Sent
	w.run(time.Hour, never)
	if n := w.a.engine.report.Sent + w.b.engine.report.Sent - before; n < 55 || n > 62 {
		t.Errorf("%d probes in an hour", n)
	}
	if !w.direct() {
		t.Error("the route is lost")
	}
}

func TestFailureHasAWord(t *testing.T) {
	t.Parallel()
	for f := Refused; f <= Ended; f++ {
		if s := f.String(); s == "none" || s == "" {
			t.Errorf("failure %d is %q", f, s)
		}
	}
	if s := fmt.Sprint(Failure(99)); s != "none" {
		t.Errorf("an unknown failure is %q", s)
	}
}

// tcpHard is the profile of a NAT with another port for every destination.
func tcpHard(p nat.Ports) nat.Profile {
	return nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, Ports: p}
}

var tcpEasy = nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent}

// One side's NAT counts: the other connects to its next ports, whatever the routers do.
func TestTCPPredictsPorts(t *testing.T) {
	t.Parallel()
	for _, resets := range []bool{false, true} {
		for seed := range uint64(100) {
			w := newTCPWorld(t, seed)
			w.a.resets, w.b.counts = resets, 1
			others := uint16(seed % 5) // ports that others have taken since
			w.engines(func(a, b *Side) {
				a.TCP, b.TCP = tcpEasy, tcpHard(nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: w.b.public.Port() - others})
			})
			w.start(w.a, 0)
			w.start(w.b, time.Duration(seed%20)*time.Millisecond)
			w.run(3*time.Second, w.direct)
			if !w.direct() {
				t.Fatalf("resets %v, seed %d: no hole; %d and %d connects", resets, seed, w.a.dials, w.b.dials)
			}
			w.run(2*time.Second, never)
			if len(w.a.conns) != 1 || len(w.b.conns) != 1 {
				t.Fatalf("seed %d: %d and %d connections stay", seed, len(w.a.conns), len(w.b.conns))
			}
			if got := w.a.engine.Report().Won(); got != PredictTCP {
				t.Errorf("seed %d: it came of %q", seed, got)
			}
		}
	}
}

// Against random ports one side connects from many, and the other to many: bounded, and
// with luck.
func TestTCPBirthday(t *testing.T) {
	t.Parallel()
	direct := 0
	const runs = 10
	for seed := range uint64(runs) {
		w := newTCPWorld(t, seed)
		w.b.draw = func() uint16 { return uint16(firstPort + w.rng.IntN(lastPort-firstPort+1)) }
		w.engines(func(a, b *Side) { a.TCP, b.TCP = tcpEasy, tcpHard(nat.Ports{Allocation: nat.Random}) })
		w.start(w.a, 0)
		w.start(w.b, 10*time.Millisecond)
		w.run(12*time.Second, w.direct)
		if w.direct() {
			direct++
		}
		if w.a.dials > birthdayConnects*shotTries+attemptDials || w.a.most > 2*secondConnects+secondDials || w.b.most > birthdayPorts+1 {
			t.Errorf("seed %d: %d connects, %d and %d at a time", seed, w.a.dials, w.a.most, w.b.most)
		}
	}
	if direct < runs/2 {
		t.Errorf("%d of %d", direct, runs)
	}
}

// What a side is told to do by TCP, and that the other is told what fits it.
func TestPlanByTCP(t *testing.T) {
	t.Parallel()
	counted := tcpHard(nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: 5000})
	random := tcpHard(nat.Ports{Allocation: nat.Random})
	for name, c := range map[string]struct {
		a, b nat.Profile
		want Name
	}{
		"both easy":         {tcpEasy, tcpEasy, ""},
		"not measured":      {nat.Profile{}, tcpEasy, ""},
		"one counts":        {tcpEasy, counted, PredictTCP},
		"both count":        {counted, counted, PredictTCP},
		"one is random":     {tcpEasy, random, BirthdayTCP},
		"counts and random": {counted, random, ""},
		"both random":       {random, random, ""},
	} {
		a := Side{ID: testKey(1).ID(), Abilities: ByTCP, TCP: c.a, ObservedTCP: []netip.AddrPort{ap("203.0.113.1:5000")}}
		b := Side{ID: testKey(2).ID(), Abilities: ByTCP, TCP: c.b, ObservedTCP: []netip.AddrPort{ap("198.51.100.1:6000")}}
		for _, plan := range [][]Tactic{Plan(a, b), Plan(b, a)} {
			got := Name("")
			if len(plan) > 1 {
				got = plan[1].Name
			}
			if plan[0].Name != PlainTCP || got != c.want || len(plan) > 2 {
				t.Errorf("%s: %+v", name, plan)
			}
		}
		b.Abilities = ByUDP
		if plan := Plan(a, b); len(plan) != 0 {
			t.Errorf("%s: one has UDP alone, and the plan is %v", name, plan)
		}
	}
}
