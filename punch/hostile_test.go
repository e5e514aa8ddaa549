package punch

import (
	"testing"
	"time"

	"bodkin/nat"
)

// Profiles that no measurement says, and those that are worst.
var hostile = []nat.Profile{
	{},
	closedNAT,
	{Mapping: nat.EndpointIndependent, KeepsEarly: nat.Yes},
	randomNAT,
	odd(nat.Ports{Allocation: nat.Block, Low: 65535, High: 1}),
	odd(nat.Ports{Allocation: nat.Block, Low: 1, High: 65535}),
	odd(nat.Ports{Allocation: nat.Block, Low: 1024, High: 65535}),
	odd(nat.Ports{Allocation: nat.Block, Low: 7, High: 7}),
	odd(nat.Ports{Allocation: nat.Block, Low: 7, High: 8}),
	odd(nat.Ports{Allocation: nat.Block, Low: 65534, High: 65535}),
	odd(nat.Ports{Allocation: nat.Block, Low: 2048, High: 2559}),
	odd(nat.Ports{Allocation: nat.Sequential}),
	odd(nat.Ports{Allocation: nat.Sequential, Delta: 1}),
	odd(nat.Ports{Allocation: nat.Sequential, Last: 9}),
	odd(nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: 1}),
	odd(nat.Ports{Allocation: nat.Sequential, Delta: -32768, Last: 65535, Noise: 65535, Age: time.Hour}),
	odd(nat.Ports{Allocation: nat.Sequential, Delta: 32767, Last: 65535, Noise: 65535, Age: -time.Hour}),
	odd(nat.Ports{Allocation: nat.Sequential, Delta: 32256, Last: 1024, Noise: 2000, Age: time.Second}),
}

func odd(p nat.Ports) nat.Profile {
	q := randomNAT
	q.KeepsEarly, q.Ports = nat.NotMeasured, p
	return q
}

// believing lets two engines believe profiles of each other, over NATs that are as
// what says, from beginning to end.
func believing(t *testing.T, a, b nat.Profile, what uint8) {
	t.Helper()
	w := newWorld(t, uint64(what))
	for i, s := range []*side{w.a, w.b} {
		s.symmetric = what>>(4*i)&1 != 0
		if what>>(4*i)&2 != 0 {
			s.draw = func() uint16 { return 1024 + uint16(w.rng.IntN(4096)) }
		}
		s.open, s.noBind = what>>(4*i)&4 != 0, what>>(4*i)&8 != 0
	}
	w.engines(a, b)
	w.start(w.a, 0)
	w.start(w.b, 20*time.Millisecond)
	easy := !w.a.symmetric && !w.b.symmetric
	w.run(attemptTime-time.Second, never)
	for _, s := range []*side{w.a, w.b} {
		bounded(t, s)
		if easy && s.direct.IsZero() {
			t.Errorf("%s: no hole where plain punching finds one: %+v", s.name, s.engine.Report())
		}
	}
	w.run(7*time.Second, never)
	for _, s := range []*side{w.a, w.b} {
		other := w.b
		if s == w.b {
			other = w.a
		}
		if s.did(Done) != 1 {
			t.Errorf("%s: the attempt ended %d times", s.name, s.did(Done))
		}
		for _, p := range s.packets {
			if p.To.Addr() != other.public.Addr() || p.To.Port() == 0 {
				t.Fatalf("%s sent to %v", s.name, p.To)
			}
		}
		if s.direct.IsZero() && (!s.engine.Idle() || s.closed != s.did(Bind) || !s.next.IsZero()) {
			t.Errorf("%s goes on, and found nothing", s.name)
		}
		w.step(s, Input{Op: Close})
		if s.closed != s.did(Bind) || len(s.extra) != 0 || len(s.engine.extra) != 0 {
			t.Errorf("%s closed %d sockets of %d", s.name, s.closed, s.did(Bind))
		}
	}
}

func TestHostileProfiles(t *testing.T) {
	t.Parallel()
	for i, a := range hostile {
		for j, b := range hostile {
			if testing.Short() && (i+j)%4 != 0 {
				continue
			}
			believing(t, a, b, uint8(i*len(hostile)+j))
			if t.Failed() {
				t.Fatalf("%+v and %+v", a, b)
			}
		}
	}
}

func FuzzPlan(f *testing.F) {
	for i, p := range hostile {
		f.Add(p.Append(nil), hostile[len(hostile)-1-i].Append(nil), uint8(i))
	}
	counts := odd(nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: 4000})
	f.Add(counts.Append(nil), counts.Append(nil), uint8(0x57)) // both let everything in
	f.Fuzz(func(t *testing.T, a, b []byte, what uint8) {
		pa, err := nat.ParseProfile(a)
		if err != nil {
			return
		}
		pb, err := nat.ParseProfile(b)
		if err != nil {
			return
		}
		x, y := sideOf(1, pa), sideOf(2, pb)
		if err := plausible(x, y, Plan(x, y)); err != nil {
			t.Errorf("%+v and %+v: %v", pa, pb, err)
		}
		believing(t, pa, pb, what)
	})
}
