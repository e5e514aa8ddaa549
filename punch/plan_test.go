package punch

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/peer"
)

// kinds of allocation that a plan tells apart.
var allocations = map[string]nat.Ports{
	"unknown":       {},
	"preserving":    {Allocation: nat.Preserving},
	"random":        {Allocation: nat.Random},
	"counted":       {Allocation: nat.Sequential, Delta: 1, Last: 4000},
	"counted, busy": {Allocation: nat.Sequential, Delta: -2, Last: 4000, Noise: 2000, Age: 5 * time.Second},
	"not counted":   {Allocation: nat.Sequential, Delta: 1},
	"block":         {Allocation: nat.Block, Low: 2048, High: 2559},
	"wide block":    {Allocation: nat.Block, Low: 2048, High: 2048 + 4095},
	"no block":      {Allocation: nat.Block, Low: 1024, High: 65535},
}

// expected is what a pair that is known needs besides plain punching, of the words
// that its two NATs are put into. Each pair is there once.
var expected = map[[2]string]Name{
	{"closed", "counted"}:       Predict,
	{"closed", "counted, busy"}: Predict,
	{"closed", "block"}:         BlockBirthday,
	{"closed", "wide block"}:    BlockBirthday,
	{"closed", "any"}:           Birthday,

	{"counted", "counted"}:             Predict,
	{"counted", "counted, busy"}:       Predict,
	{"counted, busy", "counted, busy"}: Predict,
	{"counted", "block"}:               Mixed,
	{"counted, busy", "block"}:         Mixed,
	{"counted", "wide block"}:          Mixed,
	{"counted, busy", "wide block"}:    Mixed,
	{"block", "block"}:                 BlockBirthday,
	{"block", "wide block"}:            BlockBirthday,
}

// word is what a NAT is to a peer that wants to meet it.
func word(p nat.Profile, allocation string) string {
	switch {
	case p.Mapping == nat.Unknown:
		return "unknown"
	case p.Mapping == nat.None || p.Mapping == nat.EndpointIndependent:
		if p.Filtering == nat.Unknown || p.Filtering == nat.AddressAndPortDependent {
			return "closed"
		}
		return "open"
	case allocation == "counted", allocation == "counted, busy", allocation == "block", allocation == "wide block":
		return allocation
	case allocation == "unknown", allocation == "not counted":
		return "unknown" // it is being measured
	}
	return "any"
}

var testIDs = [3]peer.ID{1: testKey(1).ID(), 2: testKey(2).ID()}

func sideOf(n byte, p nat.Profile) Side {
	return Side{
		Abilities: ByUDP,
		ID:        testIDs[n], Profile: p,
		Observed: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 5000)},
	}
}

func TestPlanOfEveryPair(t *testing.T) {
	t.Parallel()
	type end struct {
		word    string
		profile nat.Profile
	}
	var ends []end
	for mapping := nat.Unknown; mapping <= nat.AddressAndPortDependent; mapping++ {
		for filtering := nat.Unknown; filtering <= nat.AddressAndPortDependent; filtering++ {
			for early := nat.NotMeasured; early <= nat.Yes; early++ {
				for _, name := range slices.Sorted(maps.Keys(allocations)) {
					ports := allocations[name]
					p := nat.Profile{Mapping: mapping, Filtering: filtering, KeepsEarly: early, Ports: ports}
					ends = append(ends, end{word(p, name), p})
				}
			}
		}
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(ends); i += step {
		for j := range ends[:i+1] {
			x, y := ends[i], ends[j]
			a, b := sideOf(1, x.profile), sideOf(2, y.profile)
			want := expected[[2]string{x.word, y.word}]
			if want == "" {
				want = expected[[2]string{y.word, x.word}]
			}
			if err := fit(a, b, Plan(a, b), Plan(b, a), want); err != nil {
				t.Fatalf("%s %+v\nand %s %+v:\n%v", x.word, x.profile, y.word, y.profile, err)
			}
		}
	}
}

// fit reports what is wrong with two plans that have to fit each other.
func fit(a, b Side, pa, pb []Tactic, want Name) error {
	if err := plausible(a, b, pa); err != nil {
		return fmt.Errorf("a: %w", err)
	}
	if err := plausible(b, a, pb); err != nil {
		return fmt.Errorf("b: %w", err)
	}
	switch {
	case len(pa) != len(pb):
		return fmt.Errorf("%d tactics and %d", len(pa), len(pb))
	case want == "" && len(pa) > 1:
		return fmt.Errorf("%s, but no budget is enough, or plain punching", pa[1].Name)
	case want == "":
		return nil
	case len(pa) != 2 || pa[1].Name != want || pb[1].Name != want:
		return fmt.Errorf("%+v and %+v, want %s", pa, pb, want)
	}
	x, y := pa[1], pb[1]
	switch {
	case (x.Sockets > 0) == (x.Shots > 0) || (y.Sockets > 0) == (y.Shots > 0):
		return fmt.Errorf("one side does two things, or none: %+v and %+v", x, y)
	case x.Sockets > 0 && y.Shots == 0 || y.Sockets > 0 && x.Shots == 0:
		return fmt.Errorf("nobody shoots at the sockets: %+v and %+v", x, y)
	case x.Aim.Order == Diagonal && y.Aim.Order == Diagonal && x.Aim.Shift == y.Aim.Shift:
		return fmt.Errorf("both shift, or none: %+v and %+v", x, y)
	}
	return nil
}

// plausible reports what is wrong with one side's plan.
func plausible(self, other Side, plan []Tactic) error {
	if len(plan) == 0 || plan[0].Name != Plain || plan[0].Sockets+plan[0].Shots != 0 {
		return fmt.Errorf("not plain punching first: %+v", plan)
	}
	quiet := len(plan) > 1 && plan[1].Quiet
	if held := plan[0].Hold > 0; held != (quiet || other.Profile.KeepsEarly == nat.Yes) || held != (len(plan[0].Openers) > 0) {
		return fmt.Errorf("held back: %+v", plan[0])
	}
	for _, t := range plan {
		shots := t.Shots * len(t.atPorts())
		switch {
		case t.Transport != UDP:
			return fmt.Errorf("over %v", t.Transport)
		case t.Sockets < 0 || t.Sockets > birthdaySockets || t.Shots < 0 || t.Shots > birthdayShots:
			return fmt.Errorf("%d sockets, %d shots", t.Sockets, t.Shots)
		case len(t.atPorts()) > 1 && shots > volleyShots || t.Sockets*(1+len(t.fromSockets())) > volleyShots:
			return fmt.Errorf("%d shots and %d sockets, in passes", shots, t.Sockets)
		case t.Aim.Order == Spread && (t.Shots > size(t.Aim) || t.Aim.Low > t.Aim.High):
			return fmt.Errorf("%d shots at the ports %d to %d", t.Shots, t.Aim.Low, t.Aim.High)
		case t.Aim.Order == NoAim && t.Shots > 0 || t.Aim.Order != NoAim && t.Shots == 0:
			return fmt.Errorf("%d shots at nothing", t.Shots)
		case t.Quiet != (t.Sockets > 0 && other.Profile.KeepsEarly != nat.No):
			return fmt.Errorf("quiet: %v", t.Quiet)
		}
		if p := self.Profile.Ports; p.Allocation == nat.Block && self.Profile.Mapping > nat.EndpointIndependent {
			if s := size(spread(p)); s >= 2 && s <= 1<<14 && t.Sockets+t.Shots > max(1, s*3/4) {
				return fmt.Errorf("%d mappings in a block of %d ports", t.Sockets+t.Shots, s)
			}
		}
	}
	return nil
}

// Without an address of IPv4 that the server sees nobody can aim, whatever the NATs.
func TestPlanNeedsAnObservedAddress(t *testing.T) {
	t.Parallel()
	hard := nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent}
	easy := nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent}
	for name, observed := range map[string][]netip.AddrPort{
		"none":      nil,
		"IPv6 only": {ap("[2001:db8::1]:9")},
		"port 0":    {ap("198.51.100.1:0")},
		"multicast": {ap("224.0.0.1:9")},
	} {
		a, b := sideOf(1, hard), sideOf(2, easy)
		a.Observed = observed
		if x, y := Plan(a, b), Plan(b, a); len(x) != 1 || len(y) != 1 {
			t.Errorf("%s: %+v and %+v", name, x, y)
		}
	}
}

func TestPortsOfASequence(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		aim  Aim
		n    int
		want []uint16
	}{
		"the next ones":             {Aim{Order: Sweep, Last: 4000, Delta: 1, Width: 3}, 4, []uint16{4001, 4002, 4003, 4004}},
		"around what is expected":   {Aim{Order: Sweep, Last: 4000, Delta: 1, Ahead: 2, Width: 3}, 5, []uint16{4003, 4004, 4002, 4005, 4001}},
		"down by two":               {Aim{Order: Sweep, Last: 4000, Delta: -2, Width: 3}, 3, []uint16{3998, 3996, 3994}},
		"over the end":              {Aim{Order: Sweep, Last: 65534, Delta: 1, Width: 3}, 3, []uint16{65535, 1024, 1025}},
		"under the beginning":       {Aim{Order: Sweep, Last: 1024, Delta: -1, Width: 3}, 2, []uint16{65535, 65534}},
		"a step that is half of it": {Aim{Order: Sweep, Last: 1024, Delta: -32256, Width: 3}, 3, []uint16{33280, 1024, 33280}},
		"one by one":                {Aim{Order: Diagonal, Last: 4000, Delta: 1}, 5, []uint16{4002, 4003, 4004, 4005, 4006}},
		"shifted": {
			Aim{Order: Diagonal, Last: 4000, Delta: 1, Width: 1, Shift: true},
			9,
			[]uint16{4001, 4002, 4003, 4005, 4006, 4007, 4009, 4010, 4011},
		},
		"nothing": {Aim{}, 5, nil},
	} {
		got := c.aim.ports(c.n, nil)
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Every shift that may be needed is there, and no port twice: that would make no new
// mapping.
func TestShiftsOfADiagonal(t *testing.T) {
	t.Parallel()
	for _, width := range []int{0, 1, 2, 9, 128} {
		n := shiftShots * (2*width + 1)
		shifts, seen := map[int]bool{}, map[uint16]bool{}
		for i, port := range (Aim{Order: Diagonal, Last: 4000, Delta: 1, Width: width, Shift: true}).ports(n, nil) {
			if seen[port] {
				t.Errorf("up to %d: port %d is there twice", width, port)
			}
			shifts[int(port)-4002-i], seen[port] = true, true
		}
		for s := -width; s <= width; s++ {
			if !shifts[s] {
				t.Errorf("up to %d: no shift of %d", width, s)
			}
		}
	}
}

// A spread tries every port once, and all of them if it has as many shots.
func TestSpreadTriesNoPortTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for _, c := range []struct {
		low, high uint16
		n         int
	}{{2048, 2559, 512}, {2048, 2559, 100}, {7, 7, 1}, {1, 65535, 1600}, {2048, 2049, 9}} {
		seen := map[uint16]bool{}
		for _, port := range (Aim{Order: Spread, Low: c.low, High: c.high}).ports(c.n, seeded{w.rng}) {
			if port < c.low || port > c.high || seen[port] {
				t.Errorf("%+v: port %d", c, port)
			}
			seen[port] = true
		}
		if want := min(c.n, int(c.high)-int(c.low)+1); len(seen) != want {
			t.Errorf("%+v: %d ports, want %d", c, len(seen), want)
		}
	}
}
