package path

import (
	"math/rand/v2"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/punch"
)

// newHardWorld is one in which b draws ports, so that only a birthday opens a hole.
func newHardWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.b.hard = true
	w.profiles()
	return w
}

// profiles lets both sides know what they are behind.
func (w *world) profiles() {
	for _, s := range []*party{w.a, w.b} {
		p := nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No}
		if s.hard {
			p.Mapping, p.Ports.Allocation = nat.AddressAndPortDependent, nat.Random
		}
		s.self.Side.Profile = p
	}
}

// onExtra reports whether a side's best route is on a socket that was asked for.
func (s *party) onExtra() bool { return s.direct() && s.extra[s.routes[0].Local] }

func TestRouteOnAnExtraSocket(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		do func(w *world)
		// gone says that the socket is closed then.
		gone bool
	}{
		"survives a new network": {do: func(w *world) {
			w.b.self.Sockets = []LocalSocket{{2, ap("0.0.0.0:7000")}}
			w.b.step(Input{Op: NetworkChanged})
			w.run(5*time.Second, never)
		}},
		"survives the server": {do: func(w *world) {
			w.b.step(Input{Op: ServerDown})
			w.a.step(Input{Op: ServerDown})
			w.run(time.Minute, never)
		}},
		"survives the attempt": {do: func(w *world) { w.run(time.Minute, never) }},
		"goes when nothing passes for long": {gone: true, do: func(w *world) {
			w.blocked = true
			w.run(15*time.Minute, never)
		}},
		"goes with the peer's process": {gone: true, do: func(w *world) {
			w.a.restart()
			w.a.self.Side.Profile = nat.Profile{}
			w.b.self.Side.Profile = nat.Profile{}
			w.b.step(Input{Op: Want})
			w.run(10*time.Second, never)
		}},
		"goes with the peer": {gone: true, do: func(w *world) { w.b.step(Input{Op: Forget}) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHardWorld(t)
			w.a.step(Input{Op: Want})
			if !w.run(10*time.Second, w.bothDirect) {
				t.Fatal("no hole")
			}
			w.run(2*time.Second, never)
			if !w.b.onExtra() || w.b.most > 256 || len(w.b.extra) > 3 || w.a.binds != 0 {
				t.Fatalf("b's routes %v; %d sockets of %d are open", w.b.routes, len(w.b.extra), w.b.most)
			}
			end.do(w)
			if end.gone && len(w.b.extra) != 0 || !end.gone && !w.b.onExtra() {
				t.Errorf("%d sockets are open; routes %v", len(w.b.extra), w.b.routes)
			}
		})
	}
}

// Whoever asks, both at once too, it is one birthday, and its sockets stay as long as
// a route on them does.
func TestBothAskWithExtraSockets(t *testing.T) {
	t.Parallel()
	direct := 0
	const runs = 20
	for seed := range uint64(runs) {
		w := newHardWorld(t)
		w.a.self.Rand = seeded{rand.New(rand.NewPCG(seed, 1))}
		w.b.self.Rand = seeded{rand.New(rand.NewPCG(seed, 2))}
		w.a.step(Input{Op: Want})
		w.b.step(Input{Op: Want})
		if w.run(10*time.Second, w.bothDirect) {
			direct++
			w.run(time.Minute, never)
			if !w.b.onExtra() || len(w.b.happened(RouteDown)) > 0 {
				t.Errorf("seed %d: %v, lost %v", seed, w.b.routes, w.b.happened(RouteDown))
			}
		}
		if w.b.most > 256 {
			t.Errorf("seed %d: %d sockets", seed, w.b.most)
		}
	}
	if direct < runs-1 {
		t.Errorf("%d of %d", direct, runs)
	}
}

// Through whatever happens to a peer: every socket that was asked for is closed once,
// and a route is never on one that is closed.
func TestExtraSocketsThroughRandomHistories(t *testing.T) {
	t.Parallel()
	histories := uint64(25)
	if testing.Short() {
		histories = 8
	}
	for seed := range histories {
		w := newHardWorld(t)
		r := rand.New(rand.NewPCG(seed, 7))
		sides := []*party{w.a, w.b}
		for range 30 {
			s := sides[r.IntN(2)]
			switch r.IntN(10) {
			case 0, 1, 2:
				s.step(Input{Op: Want})
			case 3:
				s.step(Input{Op: Unwant})
			case 4:
				w.blocked = !w.blocked
			case 5:
				s.self.Sockets = []LocalSocket{{punch.Local(1 + r.IntN(3)), ap("0.0.0.0:7000")}}
				s.step(Input{Op: NetworkChanged})
			case 6:
				w.a.hard, w.b.hard = r.IntN(3) == 0, r.IntN(3) != 0
				w.profiles()
				s.step(Input{Op: ProfileChanged})
			case 7:
				s.step(Input{Op: Forget})
				if len(s.extra) != 0 {
					t.Fatalf("history %d: %d sockets are open after the end", seed, len(s.extra))
				}
				s.restart()
				w.profiles()
			case 8:
				s.step(Input{Op: ServerDown})
				s.step(Input{Op: ServerUp})
			default:
			}
			w.run(time.Duration(r.IntN(8000))*time.Millisecond, never)
			for _, s := range sides {
				for _, route := range s.routes {
					if route.Local >= firstExtra && !s.extra[route.Local] {
						t.Fatalf("history %d: a route on socket %d, which is closed", seed, route.Local)
					}
				}
			}
		}
		for _, s := range sides {
			s.step(Input{Op: Forget})
			if len(s.extra) != 0 {
				t.Errorf("history %d: %d sockets of %d stay open", seed, len(s.extra), s.binds)
			}
		}
	}
}
