package conform

import (
	"slices"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

func TestDifferencesAreSaidInWords(t *testing.T) {
	t.Parallel()
	want := Measured{
		UDP:   UDP{Filtering: nat.AddressAndPortDependent, Hairpinning: natlab.ExternalSource},
		TCP:   TCP{Refusal: natlab.RefuseLate, PassesTo443: true},
		Times: Times{TCPAfterReset: 10 * time.Second},
		Rest:  Rest{Fragments: AnyOrder},
	}
	got := want
	if d := got.Differences(want); len(d) != 0 {
		t.Errorf("no difference is said to be %q", d)
	}
	got.UDP.Filtering, got.UDP.Hairpinning = nat.AddressDependent, natlab.NoHairpinning
	got.TCP, got.Times.TCPAfterReset, got.Rest.Fragments = TCP{}, Never, Dropped
	for i, d := range []string{
		"UDP filtering: measured address-dependent, the NAT says address-and-port-dependent",
		"UDP hairpinning: measured none, the NAT says external source",
		"TCP passes to 443: measured false, the NAT says true",
		"TCP refusal: measured silence, the NAT says an ICMP error after 6s",
		"Times TCP after reset: measured never, the NAT says 10s",
		"Rest fragments: measured dropped, the NAT says passed in any order",
	} {
		if all := got.Differences(want); i >= len(all) || all[i] != d {
			t.Errorf("difference %d of %q is not %q", i, all, d)
		}
	}
	if n := len(got.Differences(want)); n != 6 {
		t.Errorf("%d differences, want 6", n)
	}
}

func TestLifetimeIsFoundToTheSecond(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, 1, 2, 3, 29, 30, 31, 7440, 432000} {
		d *= time.Second
		if got := lifetime(func(x time.Duration) bool { return x < d }); got != d {
			t.Errorf("lifetime of %v is found to be %v", d, got)
		}
	}
	if got := lifetime(func(time.Duration) bool { return true }); got != Never {
		t.Errorf("what never ends ends in %v", got)
	}
}

func TestFreshPortsAreNeverUsedTwice(t *testing.T) {
	t.Parallel()
	var s suite
	var all []uint16
	for range 15000 {
		all = append(all, s.next())
	}
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 15000 {
		t.Errorf("%d of 15000 ports are different", n)
	}
}
