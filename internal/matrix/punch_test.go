package matrix

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

func punched(tb testing.TB, c Config) Result {
	tb.Helper()
	r, err := Punch(c)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// The promise of section 1 of the design: with nothing but light in the way, a
// direct path exists after RTT(A,S) + RTT(A,B).
func TestHoleAtTheSpeedOfLight(t *testing.T) {
	t.Parallel()
	for _, o := range []natlab.Options{
		{},
		{DelayA: 30 * time.Millisecond, DelayB: 5 * time.Millisecond, DelayS: 50 * time.Millisecond},
		{DelayA: 5 * time.Millisecond, DelayB: 80 * time.Millisecond, DelayS: time.Millisecond, SameLAN: true},
	} {
		r := punched(t, Config{Topology: natlab.TwoHomes(o)})
		topology := natlab.TwoHomes(o)
		a, b, s := topology.Boxes[0].Link.Delay, topology.Boxes[1].Link.Delay, topology.Hosts[0].Link.Delay
		if limit := 2*(a+s) + 2*(a+b); !r.Direct || r.ToDirect != limit {
			t.Errorf("delays %v, %v, %v: %v; the limit is %v", a, b, s, r, limit)
		}
		if r.Introduced != 2*(a+s) || r.Told != a+s+s+b {
			t.Errorf("introduced after %v, told after %v", r.Introduced, r.Told)
		}
	}
}

func TestSymmetricPairStaysOnTheRelay(t *testing.T) {
	t.Parallel()
	r := punched(t, Config{Topology: natlab.TwoHomes(natlab.Options{PresetA: natlab.SymmetricRandom, PresetB: natlab.SymmetricRandom})})
	if r.Direct || r.RelayedBytes == 0 || !strings.Contains(r.Why, "no mapping") {
		t.Errorf("%+v", r)
	}
}

// lossy are punches between port-restricted homes whose access links lose that
// share each way.
func lossy(tb testing.TB, n int, loss float64) (direct, both []time.Duration, failed []string) {
	tb.Helper()
	known := nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No}
	for seed := range n {
		r := punched(tb, Config{
			Topology: natlab.TwoHomes(natlab.Options{Seed: uint64(seed), Loss: loss}),
			Profiles: &[2]nat.Profile{known, known}, // measuring takes longer than all the rest
		})
		if !r.Direct {
			failed = append(failed, fmt.Sprintf("seed %d: %v", seed, r))
			continue
		}
		direct, both = append(direct, r.ToDirect), append(both, r.Both)
	}
	slices.Sort(direct)
	slices.Sort(both)
	return direct, both, failed
}

func at(d []time.Duration, share float64) time.Duration { return d[int(share*float64(len(d)-1))] }

func TestThousandPunchesWithLoss(t *testing.T) {
	t.Parallel()
	n := 1000
	if testing.Short() {
		n = 100
	}
	direct, both, failed := lossy(t, n, 0.2)
	for _, f := range failed {
		t.Error(f)
	}
	// In virtual time this is no matter of the machine.
	if p := at(both, .99); p >= time.Second {
		t.Errorf("p99 is %v, want less than a second", p)
	}
	t.Logf("dialler direct: p50 %v, p90 %v, p99 %v, max %v", at(direct, .5), at(direct, .9), at(direct, .99), at(direct, 1))
	t.Logf("both direct: p50 %v, p90 %v, p99 %v, max %v", at(both, .5), at(both, .9), at(both, .99), at(both, 1))
}

// Not parallel: all randomness comes from one place, so that even sealed boxes
// are the same.
func TestRunsAreTheSameForTheSameSeed(t *testing.T) {
	log := func(seed uint64) string {
		cryptotest.SetGlobalRandom(t, seed)
		var out strings.Builder
		r := punched(t, Config{
			Topology: natlab.TwoHomes(natlab.Options{Seed: seed, Loss: 0.2, Jitter: 5 * time.Millisecond, IPv6: true}),
			Observe: func(e natlab.Event) {
				fmt.Fprintf(&out, "%d %v %s %v %d %d %x %s\n", e.Time.UnixNano(), e.What, e.Where, e.Up, e.ID, e.Of, e.Packet.Data, e.Reason)
			},
		})
		return out.String() + r.String()
	}
	one, again, other := log(1), log(1), log(2)
	if one != again {
		t.Error("two runs of one seed differ")
	}
	if one == other {
		t.Error("two seeds do the same")
	}
}

func BenchmarkPunch(b *testing.B) {
	for i := range b.N {
		punched(b, Config{Topology: natlab.TwoHomes(natlab.Options{Seed: uint64(i)})})
	}
}
