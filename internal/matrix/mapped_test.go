package matrix

import (
	"slices"
	"testing"
	"time"

	"bodkin/natlab"
)

// Two NATs that choose a random port for each peer never meet, unless a router
// was asked to forward a port.
func TestMappedSideMakesTwoRandomNATsMeet(t *testing.T) {
	t.Parallel()
	n := 200
	if testing.Short() {
		n = 20
	}
	for _, side := range []string{"a", "b"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			o := natlab.Options{PresetA: natlab.SymmetricRandom, PresetB: natlab.SymmetricRandom}
			topology := natlab.TwoHomes(o)
			a, b, s := topology.Boxes[0].Link.Delay, topology.Boxes[1].Link.Delay, topology.Hosts[0].Link.Delay
			limit := 2*(a+s) + 2*(a+b) // of plain punching
			var took []time.Duration
			for seed := range n {
				o.Seed = uint64(seed) + 1
				r := punched(t, Config{Topology: natlab.TwoHomes(o), Mapped: side})
				if r.Direct {
					took = append(took, r.ToDirect)
				} else {
					t.Logf("seed %d: %v", o.Seed, r)
				}
			}
			slices.Sort(took)
			if len(took)*100 < n*99 {
				t.Fatalf("%d of %d direct", len(took), n)
			}
			t.Logf("%d of %d direct; %v to %v, median %v; the plain limit is %v", len(took), n, took[0], took[len(took)-1], at(took, 0.5), limit)
			if last := at(took, 0.99); last > limit*3/2 {
				t.Errorf("99%% within %v, more than 1.5 of %v", last, limit)
			}
		})
	}
}
