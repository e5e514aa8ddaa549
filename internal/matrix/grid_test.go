package matrix

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"bodkin/internal/matrix/trace"
	"bodkin/natlab"
)

func TestGridIsTheSameWhateverTheWorkers(t *testing.T) {
	t.Parallel()
	g := Grid{
		Presets: []natlab.Preset{natlab.Linux, natlab.SymmetricRandom, natlab.FullCone, natlab.UDPBlocked},
		Options: natlab.Options{Loss: 0.1, Jitter: 3 * time.Millisecond}, Runs: 3, Seed: 7,
	}
	cells := func(workers int) []Cell {
		g.Workers = workers
		c, err := g.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one, many := cells(1), cells(5)
	if !reflect.DeepEqual(one, many) {
		t.Error("one worker and five get different results")
	}
	g.Presets = g.Presets[:2]
	if few := cells(2); !reflect.DeepEqual(few[1], one[1]) || !reflect.DeepEqual(few[3], one[5]) {
		t.Error("a pair's results depend on which pairs there are besides")
	}
	g.Seed = 8
	if other := cells(2); reflect.DeepEqual(other[0], one[0]) {
		t.Error("another seed gives the same results")
	}
}

func TestRunDoneAgainIsTheSame(t *testing.T) {
	t.Parallel()
	g := Grid{Presets: []natlab.Preset{natlab.OpenWrt}, Options: natlab.Options{Loss: 0.2}, Runs: 4, Seed: 3}
	cells, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range cells[0].Results {
		c := g.Config(natlab.OpenWrt, natlab.OpenWrt, n)
		rec := trace.NewRecorder(c.Topology)
		got, err := g.Again(t.Context(), c, rec.Observe)
		if err != nil || got != want {
			t.Errorf("run %d: %v instead of %v: %v", n, got, want, err)
		}
		if len(rec.Trace().Packets) == 0 {
			t.Errorf("run %d: nothing was recorded", n)
		}
	}
}

func TestGridStops(t *testing.T) {
	t.Parallel()
	g := Grid{Presets: natlab.Presets(), Runs: 1000}
	ctx, cancel := context.WithCancel(t.Context())
	g.Progress = func(done, _ int) {
		if done >= 10 {
			cancel()
		}
	}
	if _, err := g.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped with %v", err)
	}
	broken := errors.New("broken")
	g.Progress, g.Punch = nil, func(context.Context, Config) (Result, error) { return Result{}, broken }
	if _, err := g.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("failed with %v", err)
	}
}

func TestLimitOf(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	for _, c := range []struct {
		o    natlab.Options
		want time.Duration
	}{
		{natlab.Options{}, 2*(20+10)*ms + 2*(20+30)*ms},
		{natlab.Options{InsideA: 5 * ms, InsideB: 7 * ms}, 2*(25+10)*ms + 2*(25+37)*ms},
		{natlab.Options{PresetA: natlab.CGNAT, PresetB: natlab.CGNATBlock}, 2*(20+10)*ms + 2*(20+30)*ms},
		// Neighbours do not come to the core.
		{natlab.Options{PresetA: natlab.SameNAT, PresetB: natlab.SameNAT}, 2 * (20 + 10) * ms},
		{natlab.Options{PresetA: natlab.DoubleNAT, PresetB: natlab.DoubleNAT}, 2*(20+10)*ms + 2*(20+30)*ms},
	} {
		got, err := LimitOf(natlab.TwoHomes(c.o))
		if err != nil || got != c.want {
			t.Errorf("%+v: %v instead of %v: %v", c.o, got, c.want, err)
		}
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	c := Cell{Results: []Result{
		{Direct: true, ToDirect: 30 * ms, Packets: 4, RelayedBytes: 100},
		{Why: "home-b dropped 17 packets: filtered", Packets: 40, RelayedBytes: 1000},
		{Direct: true, ToDirect: 10 * ms, Packets: 6, RelayedBytes: 100},
		{Why: "home-b dropped 1 packet: filtered", Packets: 40, RelayedBytes: 1000},
		{Direct: true, ToDirect: 20 * ms, Packets: 5, RelayedBytes: 100},
		{Why: "not introduced"},
	}}
	want := Summary{
		Runs: 6, Direct: 3, Median: 20 * ms, P99: 30 * ms, Packets: 95.0 / 6, Relayed: 2300.0 / 6,
		Why: []Reason{{"home-b dropped packets: filtered", 2}, {"not introduced", 1}},
	}
	got := c.Summary()
	if !near(got.Packets, want.Packets) || !near(got.Relayed, want.Relayed) || !near(got.Share(), 0.5) {
		t.Errorf("%+v", got)
	}
	got.Packets, got.Relayed = want.Packets, want.Relayed
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v instead of %+v", got, want)
	}
	if shown := c.Shown(); !reflect.DeepEqual(shown, []int{1, 4}) {
		t.Errorf("shown are the runs %v", shown)
	}
	if s := (Cell{}).Summary(); s.Share() != 0 || s.Median != 0 {
		t.Errorf("of nothing: %+v", s)
	}
}
