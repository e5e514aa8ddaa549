package wire_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"bodkin/internal/wire"
)

func TestWindowTakesEachNumberOnce(t *testing.T) {
	t.Parallel()
	type step struct {
		sequence uint64
		want     bool
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"in order", []step{{1, true}, {2, true}, {3, true}}},
		{"repeated", []step{{1, true}, {1, false}, {2, true}, {1, false}, {2, false}}},
		{"out of order", []step{{3, true}, {1, true}, {2, true}, {1, false}, {2, false}, {3, false}}},
		{"zero", []step{{0, false}, {1, true}, {0, false}}},
		{"the edge", []step{{64, true}, {1, true}, {1, false}, {65, true}, {1, false}, {2, true}}},
		{"behind the edge", []step{{65, true}, {1, false}, {2, true}}},
		{"a jump of 63", []step{{1, true}, {64, true}, {1, false}, {2, true}}},
		{"a jump of 64", []step{{1, true}, {65, true}, {1, false}, {2, true}}},
		{"a jump of 65", []step{{1, true}, {66, true}, {2, false}, {3, true}}},
		{"far ahead", []step{{1, true}, {1 << 40, true}, {1, false}, {1<<40 - 63, true}, {1<<40 - 64, false}}},
		{"the last number", []step{{math.MaxUint64, true}, {math.MaxUint64, false}, {math.MaxUint64 - 63, true}, {1, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var w wire.Window
			for i, s := range c.steps {
				if got := w.Take(s.sequence); got != s.want {
					t.Fatalf("step %d: Take(%d) = %v", i, s.sequence, got)
				}
			}
		})
	}
}

// A set of all that was taken, and the highest of them, is what the window says
// it is.
func TestWindowIsASetThatForgets(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var w wire.Window
		taken, highest := make(map[uint64]bool), uint64(0)
		near := uint64(1)
		for range 500 {
			switch r.IntN(20) {
			case 0:
				near += r.Uint64N(200)
			case 1:
				near = max(near, 100) - 50
			default:
				near++
			}
			n := near - min(near, r.Uint64N(80))
			want := n != 0 && !taken[n] && highest < n+64
			if got := w.Take(n); got != want {
				t.Fatalf("seed %d: Take(%d) = %v, highest %d, taken %v", seed, n, got, highest, taken[n])
			}
			if want {
				taken[n], highest = true, max(highest, n)
			}
		}
	}
}
