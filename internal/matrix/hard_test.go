package matrix

import (
	"slices"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// What the presets of the hard pairs are, as a measurement would say.
var (
	isClosed = nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No}
	isAccept = nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.Yes}
	isRandom = nat.Profile{
		Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No,
		Ports: nat.Ports{Allocation: nat.Random},
	}
	// isBlock is that of the one customer of the lab's carrier.
	isBlock = nat.Profile{
		Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No,
		Ports: nat.Ports{Allocation: nat.Block, Low: 2048, High: 2559},
	}
)

// hardRuns are runs of a pair whose NATs are known, within the budget of every one.
func hardRuns(t *testing.T, a, b natlab.Preset, pa, pb nat.Profile, runs int, limit time.Duration) (c Cell) {
	t.Helper()
	return runsWith(t, a, b, &[2]nat.Profile{pa, pb}, runs, limit)
}

func runsWith(t *testing.T, a, b natlab.Preset, profiles *[2]nat.Profile, runs int, limit time.Duration) (c Cell) {
	t.Helper()
	c.A, c.B = a, b
	for seed := range uint64(runs) {
		r := punched(t, Config{
			Topology: natlab.TwoHomes(natlab.Options{PresetA: a, PresetB: b, Seed: seed}), Profiles: profiles, Limit: limit,
		})
		if max(r.PacketsA, r.PacketsB) > 2000 || max(r.SocketsA, r.SocketsB) > 256 {
			t.Errorf("%s and %s, seed %d: %+v", a, b, seed, r)
		}
		c.Results = append(c.Results, r)
	}
	s := c.Summary()
	t.Logf("%s and %s: %d of %d, median %v, all within %v, %.0f packets", a, b, s.Direct, s.Runs, s.Median, quantile(c.Times(), 1), s.Packets)
	return c
}

func TestHardPairsOpen(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		a, b   natlab.Preset
		pa, pb nat.Profile
		runs   int
		within time.Duration
		share  float64
		median time.Duration
	}{
		{natlab.PortRestricted, natlab.SymmetricRandom, isClosed, isRandom, 60, 10 * time.Second, .98, 3 * time.Second},
		{natlab.SymmetricRandom, natlab.PortRestricted, isRandom, isClosed, 30, 10 * time.Second, .98, 3 * time.Second},
		{natlab.LinuxAccept, natlab.SymmetricRandom, isAccept, isRandom, 30, 10 * time.Second, .98, 3 * time.Second},
		{natlab.SymmetricRandom, natlab.LinuxAccept, isRandom, isAccept, 30, 10 * time.Second, .98, 3 * time.Second},
		{natlab.PortRestricted, natlab.CGNATBlock, isClosed, isBlock, 60, 2 * time.Second, .99, time.Second},
		{natlab.CGNATBlock, natlab.Linux, isBlock, isClosed, 30, 2 * time.Second, .99, time.Second},
		{natlab.LinuxAccept, natlab.CGNATBlock, isAccept, isBlock, 60, 2 * time.Second, .99, time.Second},
		{natlab.CGNATBlock, natlab.LinuxAccept, isBlock, isAccept, 30, 2 * time.Second, .99, time.Second},
	} {
		t.Run(string(x.a+" and "+x.b), func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				x.runs = 20
			}
			c := hardRuns(t, x.a, x.b, x.pa, x.pb, x.runs, 0)
			if s := c.Summary(); within(c, x.within) < x.share || s.Median > x.median {
				t.Errorf("%.3f within %v, median %v: %v", within(c, x.within), x.within, s.Median, s.Why)
			}
		})
	}
}

// within is the share of a cell's runs that became direct in a time.
func within(c Cell, limit time.Duration) float64 {
	in := 0
	for _, d := range c.Times() {
		if d <= limit {
			in++
		}
	}
	return float64(in) / float64(len(c.Results))
}

// Ports of NATs that count are predicted from what the nodes measured themselves.
func TestCountedPortsArePredicted(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		a, b   natlab.Preset
		within time.Duration
		share  float64
	}{
		{natlab.PortRestricted, natlab.SymmetricSequential, time.Second, .99},
		{natlab.SymmetricSequential, natlab.LinuxAccept, time.Second, .99},
		{natlab.PortRestricted, natlab.SymmetricBusy, 3 * time.Second, .95},
		{natlab.SymmetricBusy, natlab.LinuxAccept, 3 * time.Second, .95},
		{natlab.SymmetricSequential, natlab.SymmetricSequential, 3 * time.Second, .95},
	} {
		t.Run(string(x.a+" and "+x.b), func(t *testing.T) {
			t.Parallel()
			c := runsWith(t, x.a, x.b, nil, 20, 0)
			if within(c, x.within) < x.share {
				t.Errorf("%.3f within %v: %v", within(c, x.within), x.within, c.Summary().Why)
			}
		})
	}
}

// Two customers of carriers, each with a block of which three quarters are used at
// the most: 43% is the expectation.
func TestBlocksOfTwoCarriers(t *testing.T) {
	t.Parallel()
	runs := 150
	if testing.Short() {
		runs = 50
	}
	c := hardRuns(t, natlab.CGNATBlock, natlab.CGNATBlock, isBlock, isBlock, runs, 5*time.Second)
	if s := c.Summary(); s.Share() < .38 {
		t.Errorf("%d of %d", s.Direct, s.Runs)
	}
}

// Where no budget is enough, next to nothing is spent, and the relay goes on.
func TestHopelessPairsSpendLittle(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		b natlab.Preset
		p nat.Profile
	}{{natlab.SymmetricRandom, isRandom}, {natlab.CGNATBlock, isBlock}} {
		c := hardRuns(t, natlab.SymmetricRandom, x.b, isRandom, x.p, 5, 0)
		if s := c.Summary(); s.Direct > 0 || s.Packets > 100 || s.Relayed == 0 {
			t.Errorf("%s: %+v", x.b, s)
		}
	}
}

// In no second more than 500 packets leave a side to open holes.
func TestShotsArePaced(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		a, b   natlab.Preset
		pa, pb nat.Profile
	}{
		{natlab.PortRestricted, natlab.SymmetricRandom, isClosed, isRandom},
		{natlab.CGNATBlock, natlab.CGNATBlock, isBlock, isBlock},
		{natlab.CGNATBlock, natlab.LinuxAccept, isBlock, isAccept},
	} {
		sent := map[string][]time.Time{}
		punched(t, Config{
			Topology: natlab.TwoHomes(natlab.Options{PresetA: x.a, PresetB: x.b, Seed: 2}),
			Profiles: &[2]nat.Profile{x.pa, x.pb},
			Observe: func(e natlab.Event) {
				if e.What == natlab.Entered && e.Up && (e.Where == "a" || e.Where == "b") && e.Packet.To.Port() != serverPort {
					sent[e.Where] = append(sent[e.Where], e.Time)
				}
			},
		})
		for side, at := range sent {
			for i, begin := range at {
				n, _ := slices.BinarySearchFunc(at, begin.Add(time.Second), time.Time.Compare)
				if n-i > 500 {
					t.Fatalf("%s and %s: %d packets of %s in a second", x.a, x.b, n-i, side)
				}
			}
		}
	}
}

// lies are labels that are wrong for somebody.
var lies = [][2]nat.Profile{
	{isRandom, isClosed},
	{isBlock, isBlock},
	{isAccept, isRandom},
	{
		{Mapping: nat.AddressAndPortDependent, KeepsEarly: nat.Yes, Ports: nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: 7777, Noise: 2000}},
		{Mapping: nat.AddressDependent, KeepsEarly: nat.Yes, Ports: nat.Ports{Allocation: nat.Sequential, Delta: -5, Last: 7777}},
	},
	{
		{Mapping: nat.None, Filtering: nat.None, KeepsEarly: nat.No, Hairpin: nat.Yes},
		{Mapping: nat.AddressAndPortDependent, Filtering: nat.EndpointIndependent, KeepsEarly: nat.Yes, Ports: nat.Ports{Allocation: nat.Block, Low: 65000, High: 65001}},
	},
}

// A wrong profile costs time, never success: whatever plain punching opens opens all
// the same.
func TestFalseProfilesBlockNothing(t *testing.T) {
	t.Parallel()
	presets := natlab.Presets()
	tried, plain := 0, 0
	for i, a := range presets {
		for j, b := range presets {
			if (i < j) == ((i+j)%2 == 0) && i != j {
				continue // the other one asks
			}
			if tried++; testing.Short() && tried%5 != 0 {
				continue
			}
			config := func(p [2]nat.Profile) Config {
				return Config{
					Topology: natlab.TwoHomes(natlab.Options{PresetA: a, PresetB: b, Seed: 5, IPv6: a.IPv6() && b.IPv6()}),
					Profiles: &p,
				}
			}
			if r := punched(t, config([2]nat.Profile{})); !r.Direct {
				continue
			}
			plain++
			lie := lies[(i+j)%len(lies)]
			if i > j {
				lie[0], lie[1] = lie[1], lie[0]
			}
			if r := punched(t, config(lie)); !r.Direct {
				t.Errorf("%s and %s, believed to be %+v: %v", a, b, lie, r)
			}
		}
	}
	t.Logf("%d pairs", plain)
	if plain < tried/10 {
		t.Errorf("plain punching opens %d pairs of %d", plain, tried)
	}
}
