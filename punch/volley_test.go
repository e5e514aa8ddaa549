package punch

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/nat"
)

// Profiles of the NATs in this file. All filter by port.
var (
	closedNAT = nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No}
	randomNAT = nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No, Ports: nat.Ports{Allocation: nat.Random}}
)

// random puts a side behind a NAT that draws ports, of a block or of all.
func (w *world) random(s *side, low, high uint16) nat.Profile {
	s.symmetric = true
	s.draw = func() uint16 { return low + uint16(w.rng.IntN(int(high-low)+1)) }
	p := randomNAT
	if low > firstPort {
		p.Ports = nat.Ports{Allocation: nat.Block, Low: low, High: high}
	}
	return p
}

// counted puts a side behind a NAT that counts, and is wrong by so many ports.
func (w *world) counted(s *side, wrong int) nat.Profile {
	s.symmetric = true
	p := randomNAT
	p.Ports = nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: uint16(int(s.public.Port()) - wrong)}
	return p
}

// outcome is what became of a tactic; nothing if it was not in the race.
func (s *side) outcome(n Name) Result {
	for _, o := range s.engine.Report().Outcomes {
		if o.Tactic == n {
			return o.Result
		}
	}
	return ""
}

// bounded reports whatever of an attempt is above its budget.
func bounded(t *testing.T, s *side) {
	t.Helper()
	r := s.engine.Report()
	for _, a := range s.actions {
		if a.Op == Done {
			r = a.Report
		}
	}
	if r.Sent > volleyShots+attemptProbes || s.most > birthdaySockets || s.busiest() > 500 {
		t.Errorf("%s: %d probes, %d sockets, %d probes in a second", s.name, r.Sent, s.most, s.busiest())
	}
}

// race is one attempt of two sides with profiles; it goes on for a second after the
// hole, until the sockets that lost are closed.
func (w *world) race(t *testing.T, a, b nat.Profile) bool {
	t.Helper()
	w.engines(a, b)
	w.start(w.a, 0)
	w.start(w.b, 10*time.Millisecond)
	w.run(attemptTime-50*time.Millisecond, w.direct)
	bounded(t, w.a)
	bounded(t, w.b)
	return w.direct()
}

func TestBirthdayOpensRandomPorts(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for seed := range uint64(30) {
		w := newWorld(t, seed)
		if !w.race(t, closedNAT, w.random(w.b, firstPort, lastPort)) {
			continue
		}
		times = append(times, w.a.direct.Sub(time.Unix(1000, 0)))
		if w.a.outcome(Birthday) != Won || w.b.outcome(Birthday) != Won || w.a.outcome(Plain) != NotNeeded {
			t.Errorf("seed %d: %+v and %+v", seed, w.a.engine.Report(), w.b.engine.Report())
		}
		if w.a.most != 0 || len(w.b.extra) == 0 {
			t.Errorf("seed %d: %d sockets and %d", seed, w.a.most, len(w.b.extra))
		}
	}
	slices.Sort(times)
	if len(times) < 29 || times[len(times)/2] > 3*time.Second {
		t.Errorf("%d of 30, %v", len(times), times)
	}
}

func TestBlockIsFoundSoon(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		w := newWorld(t, seed)
		if !w.race(t, w.random(w.a, 2048, 2559), closedNAT) || w.a.direct.Sub(time.Unix(1000, 0)) > 2*time.Second {
			t.Errorf("seed %d: %v", seed, w.a.engine.Report())
		}
		if w.a.most > blockSockets || w.b.most != 0 || w.b.outcome(BlockBirthday) != Won {
			t.Errorf("seed %d: %d sockets and %d, %+v", seed, w.a.most, w.b.most, w.b.engine.Report())
		}
	}
}

// 43% is what there is to expect, and three quarters with one side's ports counted
// (53% of it).
func TestBlocksOfBothSides(t *testing.T) {
	t.Parallel()
	const runs = 40
	for name, c := range map[string]struct {
		counts bool
		tactic Name
		want   int
	}{
		"both draw":  {false, BlockBirthday, runs * 33 / 100},
		"one counts": {true, Mixed, runs * 38 / 100},
	} {
		direct := 0
		for seed := range uint64(runs) {
			w := newWorld(t, seed)
			a := w.random(w.b, 2048, 2559)
			b := w.random(w.a, 4096, 4607)
			if c.counts {
				w.a.draw, b = nil, w.counted(w.a, 0)
			}
			if w.race(t, b, a) {
				direct++
				if w.a.outcome(c.tactic) != Won {
					t.Errorf("%s, seed %d: %+v", name, seed, w.a.engine.Report())
				}
			}
			if n := len(w.b.mappings); n > castLimit+1 {
				t.Errorf("%s, seed %d: %d mappings in a block of 512", name, seed, n)
			}
		}
		if direct < c.want {
			t.Errorf("%s: %d of %d", name, direct, runs)
		}
	}
}

// However many ports others have taken meanwhile, as long as it is about what was
// measured.
func TestPredictionOfOneSide(t *testing.T) {
	t.Parallel()
	for _, early := range []nat.Answer{nat.No, nat.NotMeasured} {
		for wrong := range 60 {
			w := newWorld(t, 1)
			closed := closedNAT
			closed.KeepsEarly = early
			if !w.race(t, closed, w.counted(w.b, wrong)) || w.b.direct.Sub(time.Unix(1000, 0)) > time.Second {
				t.Errorf("early packets: %v, %d ports off: %+v", early, wrong, w.a.engine.Report())
			}
			if w.b.most != predictSockets || w.b.outcome(Predict) == "" {
				t.Errorf("%d sockets, %+v", w.b.most, w.b.engine.Report())
			}
		}
	}
}

func TestPredictionOfBothSides(t *testing.T) {
	t.Parallel()
	for wrongA := -3; wrongA <= 5; wrongA++ {
		for wrongB := -3; wrongB <= 3; wrongB++ {
			w := newWorld(t, 1)
			if !w.race(t, w.counted(w.a, wrongA), w.counted(w.b, wrongB)) {
				t.Errorf("%d and %d ports off: %+v and %+v", wrongA, wrongB, w.a.engine.Report(), w.b.engine.Report())
			}
			if w.a.outcome(Predict) != Won && w.b.outcome(Predict) != Won {
				t.Errorf("%d and %d ports off: %+v", wrongA, wrongB, w.a.engine.Report())
			}
		}
	}
}

// Sockets that lost are closed a second after the hole, the one that won when its route
// is lost and nobody looks for it any more.
func TestExtraSocketsAreClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	if !w.race(t, closedNAT, w.random(w.b, firstPort, lastPort)) {
		t.Fatal("no hole")
	}
	w.run(releaseAfter, never)
	if n := len(w.b.extra); n == 0 || n > 3 {
		t.Errorf("%d sockets are open", n)
	}
	w.run(time.Minute, never)
	if len(w.b.extra) == 0 || w.b.did(Lost) > 0 {
		t.Fatal("the socket that won was closed")
	}
	w.loss = 1
	w.run(seekTime+2*seekLast, never)
	if w.b.did(Lost) == 0 || len(w.b.extra) != 0 || w.b.closed != w.b.did(Bind) || !w.b.engine.Idle() {
		t.Errorf("lost %d, %d sockets open, %d of %d closed", w.b.did(Lost), len(w.b.extra), w.b.closed, w.b.did(Bind))
	}
}

func TestInterruptedBirthdayClosesItsSocketsAndIsNoFailure(t *testing.T) {
	t.Parallel()
	for _, end := range []Op{Stop, Close} {
		w := newWorld(t, 1)
		w.no4 = true
		w.b.memory = &Memory{}
		w.engines(closedNAT, w.random(w.b, firstPort, lastPort))
		w.start(w.b, 0)
		w.run(150*time.Millisecond, never)
		if n := len(w.b.extra); n < 50 || n == birthdaySockets {
			t.Fatalf("%d sockets in the middle of it", n)
		}
		w.step(w.b, Input{Op: end})
		if len(w.b.extra) != 0 || w.b.closed != w.b.did(Bind) || w.b.outcome(Birthday) != Interrupted {
			t.Errorf("%d sockets open, %+v", len(w.b.extra), w.b.engine.Report())
		}
		w.engines(closedNAT, randomNAT)
		w.start(w.b, 0)
		w.run(time.Millisecond, never)
		if w.b.outcome(Birthday) != Running {
			t.Errorf("then: %+v", w.b.engine.Report())
		}
	}
}

// A driver that never opens a socket, or has not enough of them.
func TestSocketsThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.b.noBind = true
	if w.race(t, closedNAT, w.random(w.b, firstPort, lastPort)) {
		t.Log("the shots met the one socket that there is")
	}
	w.run(time.Minute, never)
	if w.b.did(Done) != 1 || w.b.closed != w.b.did(Bind) || len(w.b.sentTo(w.a.public)) < 20 {
		t.Errorf("%d ends, %d of %d closed, %d probes", w.b.did(Done), w.b.closed, w.b.did(Bind), len(w.b.sentTo(w.a.public)))
	}

	// Half of them: those shoot in every pass.
	w = newWorld(t, 1)
	w.no4 = true
	w.engines(nat.Profile{Mapping: nat.EndpointIndependent, KeepsEarly: nat.Yes}, w.random(w.b, firstPort, lastPort))
	w.start(w.b, 0)
	w.run(100*time.Millisecond, never)
	w.b.noBind = true
	opened := len(w.b.extra)
	w.run(attemptTime, never)
	ttls := map[uint8]int{}
	for _, p := range w.b.packets {
		if p.Local >= 100 {
			ttls[p.TTL]++
		}
	}
	if want := fmt.Sprint(map[uint8]int{2: opened, 4: opened, 0: opened}); fmt.Sprint(ttls) != want {
		t.Errorf("shots by TTL: %v, want %v", ttls, want)
	}
}

// A side whose own budget is used up, or that remembers, still answers.
func TestFailedTacticRests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.a.memory = &Memory{}
	w.no4 = true
	random := w.random(w.b, firstPort, lastPort)
	attempt := func() Result {
		w.engines(closedNAT, random)
		w.start(w.a, 0)
		w.run(attemptTime+time.Millisecond, never)
		r := w.a.outcome(Birthday)
		if w.a.outcome(Plain) != FoundNone {
			t.Errorf("plain punching: %+v", w.a.engine.Report())
		}
		return r
	}
	for _, c := range []struct {
		after time.Duration
		want  Result
	}{
		{0, FoundNone},
		{0, Postponed},
		{30 * time.Second, Postponed},
		{20 * time.Second, FoundNone}, // a minute after the first ended
		{60 * time.Second, Postponed},
		{60 * time.Second, FoundNone}, // two after the second
	} {
		w.run(c.after, never)
		if got := attempt(); got != c.want {
			t.Errorf("%v later: %s, want %s", c.after, got, c.want)
		}
	}
	w.b.public = ap("198.51.101.1:6000")
	if got := attempt(); got != FoundNone {
		t.Errorf("when the peer has moved: %s", got)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	var none *Memory
	none.at(netip.Addr{})
	none.learn([]Outcome{{Birthday, 9, FoundNone}}, now)
	if !none.begin(Birthday, now) {
		t.Error("no memory remembers")
	}
	for n, longest := range map[Name]time.Duration{
		Plain: 0, Predict: 0, Birthday: time.Hour, BlockBirthday: time.Hour, Mixed: time.Hour,
	} {
		m, at := &Memory{}, now
		before := time.Duration(-1)
		for range 12 {
			if !m.begin(n, at) {
				t.Fatalf("%s is not due", n)
			}
			if second := m.begin(n, at); second != (n == Plain) {
				t.Errorf("%s begins twice: %v", n, second)
			}
			m.learn([]Outcome{{n, 9, FoundNone}}, at)
			rest := time.Duration(0)
			for ; m.failed[n].times > 0 && at.Add(rest).Before(at.Add(n.pause(m.failed[n].times))); rest += time.Minute {
				if m.begin(n, at.Add(rest)) {
					t.Fatalf("%s is due after %v", n, rest)
				}
			}
			if rest < before || rest > longest {
				t.Errorf("%s rests for %v, before for %v", n, rest, before)
			}
			before, at = rest, at.Add(rest)
		}
		m.begin(n, at)
		m.learn([]Outcome{{n, 9, Won}}, at)
		if !m.begin(n, at) || m.Won != n {
			t.Errorf("%s won, and is not due", n)
		}
	}
}

// Both peers ask at once: of the two attempts one does what costs much.
func TestTwoAttemptsHaveOneBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.b.memory = &Memory{}
	w.no4 = true
	random := w.random(w.b, firstPort, lastPort)
	w.engines(closedNAT, random)
	w.start(w.b, 0)
	w.run(time.Millisecond, never)
	first := w.b.engine
	w.engines(closedNAT, random)
	w.start(w.b, 0)
	w.run(time.Millisecond, never)
	if w.b.outcome(Birthday) != Postponed || w.b.outcome(Plain) != Running {
		t.Errorf("the second is at %+v", w.b.engine.Report())
	}
	first.Step(w.now, Input{Op: Stop}, nil)
	w.engines(closedNAT, random)
	w.start(w.b, 0)
	w.run(time.Millisecond, never)
	if w.b.outcome(Birthday) != Running {
		t.Errorf("after the first ended: %+v", w.b.engine.Report())
	}
}

// Whatever is not the answer to a shot, from where it went, opens nothing.
func TestOnlyAnswersHit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.engines(closedNAT, w.random(w.b, firstPort, lastPort))
	w.start(w.a, 0)
	w.run(time.Second, never)
	theirs := w.b.engine.keys
	i := slices.IndexFunc(w.a.packets, func(p Action) bool { return p.To.Port() != w.b.public.Port() })
	shot := w.a.packets[i]
	asked, err := wire.ParseProbe(shot.Data)
	if err != nil {
		t.Fatal(err)
	}
	answer := theirs.AppendAnswer(nil, asked.ID, w.a.public)
	forged := theirs
	forged.Ours[0]++
	elsewhere := netip.AddrPortFrom(shot.To.Addr(), shot.To.Port()^1)
	for name, in := range map[string]Input{
		"another key":         {Op: Packet, Local: 1, From: shot.To, Data: forged.AppendAnswer(nil, asked.ID, w.a.public)},
		"from another port":   {Op: Packet, Local: 1, From: elsewhere, Data: answer},
		"from a stranger":     {Op: Packet, Local: 1, From: ap("192.0.2.66:53"), Data: answer},
		"to another socket":   {Op: Packet, Local: 2, From: shot.To, Data: answer},
		"never asked":         {Op: Packet, Local: 1, From: shot.To, Data: theirs.AppendAnswer(nil, wire.TransactionID{9}, w.a.public)},
		"our own probe":       {Op: Packet, Local: 1, From: shot.To, Data: shot.Data},
		"cut":                 {Op: Packet, Local: 1, From: shot.To, Data: answer[:len(answer)-4]},
		"our own answer back": {Op: Packet, Local: 1, From: shot.To, Data: w.a.engine.keys.AppendAnswer(nil, asked.ID, w.a.public)},
	} {
		before := w.a.engine.Stats()
		out, _ := w.a.engine.Step(w.now, in, nil)
		for _, a := range out {
			if a.Op != Send || a.Data[0] != 0 {
				t.Errorf("%s did %+v", name, a)
			}
		}
		if w.a.engine.Stats() == before {
			t.Errorf("%s is not counted", name)
		}
	}
	if w.a.engine.Report().Confirmed != 0 {
		t.Fatal("a route came of it")
	}
	// The answer itself does, and once.
	for range 2 {
		w.step(w.a, Input{Op: Packet, Local: 1, From: shot.To, Data: answer})
	}
	if w.a.did(Confirmed) != 1 || w.a.outcome(Birthday) != Won || w.a.route(shot.To) != Predicted {
		t.Errorf("the answer: %+v", w.a.engine.Report())
	}
	before := len(w.a.packets)
	w.run(200*time.Millisecond, never)
	if n := len(w.a.packets) - before; n > 10 {
		t.Errorf("%d shots after the hit", n)
	}
}

// The peer's shot hits a socket that another Engine opened, which is then done.
func TestAdoptedSocketStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.engines(closedNAT, randomNAT)
	w.start(w.b, 0)
	w.run(50*time.Millisecond, never)
	opener := w.b.engine
	w.engines(closedNAT, nat.Profile{}) // the second attempt opens none
	second := w.b.engine
	w.step(w.b, Input{Op: Open, Local: 1, From: w.b.private})
	w.step(w.b, Input{Op: Start})
	probe := w.a.engine.keys.AppendProbe(nil, wire.TransactionID{1}, 1)
	w.step(w.b, Input{Op: Packet, Local: 101, From: w.a.public, Data: probe})
	if !second.Adopt(101) || second.Adopt(102) || !second.Owns(101) {
		t.Error("the socket that was hit is not adopted")
	}
	if second.Adopt(101); len(second.extra) != 1 {
		t.Errorf("adopted twice: %v", second.extra)
	}
	out, _ := second.Step(w.now, Input{Op: Close}, nil)
	if n := len(slices.DeleteFunc(out, func(a Action) bool { return a.Op != Unbind || a.Local != 101 })); n != 1 {
		t.Errorf("closed %d times", n)
	}
	opener.Step(w.now, Input{Op: Close}, nil)
}
