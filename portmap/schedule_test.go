package portmap

import (
	"testing"
	"time"
)

// RFC 6887 §8.1.1: IRT 3 s, doubled up to MRT 1024 s, each give or take a tenth.
func TestPCPRetransmitsForEver(t *testing.T) {
	t.Parallel()
	for _, random := range []float64{0, 0.5, 1} {
		var last, sum time.Duration
		for n := range 30 {
			wait, ok := pcpSchedule(n, last, random)
			least, most := time.Duration(float64(2*last)*0.9), time.Duration(float64(2*last)*1.1)
			if n == 0 {
				least, most = 2700*time.Millisecond, 3300*time.Millisecond
			}
			least, most = min(least, 922*time.Second-400*time.Millisecond), min(most, 1127*time.Second)
			if !ok || wait < least || wait > most {
				t.Errorf("random %v: the %d-th wait is %v, want %v to %v", random, n, wait, least, most)
			}
			last, sum = wait, sum+wait
		}
		if sum < 3*time.Hour {
			t.Errorf("random %v: 30 requests in %v", random, sum)
		}
	}
}

// RFC 6886 §3.1: 250 ms, doubled, nine times: 127.75 s in all.
func TestNATPMPGivesUpAfterTwoMinutes(t *testing.T) {
	t.Parallel()
	var sum time.Duration
	n := 0
	for ; n < 100; n++ {
		wait, ok := pmpSchedule(n, 0, 0)
		if !ok {
			break
		}
		sum += wait
	}
	if n != 9 || sum != 127750*time.Millisecond {
		t.Errorf("%d requests in %v", n, sum)
	}
}

// RFC 6887 §11.2.1.
func TestRenewalsComeByHalves(t *testing.T) {
	t.Parallel()
	left := time.Hour
	for _, want := range []struct{ least, most float64 }{{1. / 2, 5. / 8}, {3. / 4, 7. / 8}, {7. / 8, 1}} {
		for _, random := range []float64{0, 0.999} {
			at := time.Hour - left + renewal(left, random)
			if f := float64(at) / float64(time.Hour); f < want.least || f > want.most {
				t.Errorf("renewed after %v, want %v to %v of an hour", at, want.least, want.most)
			}
		}
		left -= renewal(left, 0)
	}
	if renewal(time.Second, 0) != 4*time.Second {
		t.Error("renewals come closer than 4 s")
	}
}

func TestRefusalsAreAskedAgainEverLessOften(t *testing.T) {
	t.Parallel()
	last := time.Duration(0)
	for n := range 20 {
		wait := retry(n, false, 0)
		if wait < last || wait > retryMost {
			t.Errorf("the %d-th: %v after %v", n, wait, last)
		}
		last = wait
	}
	if retry(0, true, 0) <= retry(0, false, 0) || retry(0, false, 10*time.Minute) != 10*time.Minute || retry(0, false, 99*time.Hour) != retryMost {
		t.Error("policy is asked again too soon, or the router's word does not count")
	}
}

// RFC 6887 §8.5 and RFC 6886 §3.6.
func TestEpochTellsOfLostState(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	for name, c := range map[string]struct {
		elapsed     time.Duration
		from, to    uint32
		pcp, natpmp bool
	}{
		"in step":                {100 * time.Second, 1000, 1100, false, false},
		"rebooted":               {100 * time.Second, 1000, 3, true, true},
		"a second back":          {0, 1000, 999, false, false},
		"two seconds back":       {0, 1000, 998, true, false},
		"three seconds back":     {0, 1000, 997, true, true},
		"a little slow":          {160 * time.Second, 1000, 1149, false, false},
		"a sixteenth slow":       {160 * time.Second, 1000, 1147, true, false},
		"an eighth slow":         {160 * time.Second, 1000, 1137, true, true},
		"a sixteenth fast":       {160 * time.Second, 1000, 1180, true, false},
		"rebooted long ago":      {9999 * time.Second, 1000, 9998, true, false},
		"suspended in between":   {0, 1000, 5000, true, false},
		"as young as it says":    {5 * time.Second, 0, 5, false, false},
		"same answer once more":  {0, 7, 7, false, false},
		"rebooted in its youth":  {4 * time.Second, 3, 1, true, true},
		"rebooted for a second":  {2 * time.Second, 1, 0, true, false},
		"our clock went forward": {time.Hour, 1000, 1001, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p, n epoch
			if p.pcp(start, c.from) || n.pmp(start, c.from) {
				t.Error("the first answer tells of a loss")
			}
			at := start.Add(c.elapsed)
			if got := p.pcp(at, c.to); got != c.pcp {
				t.Errorf("PCP: lost %v", got)
			}
			if got := n.pmp(at, c.to); got != c.natpmp {
				t.Errorf("NAT-PMP: lost %v", got)
			}
		})
	}
}

// The clock on the wall goes on while a machine sleeps, and time.Time's monotonic
// one may not.
func TestSleepIsNoticed(t *testing.T) {
	t.Parallel()
	wall := time.Unix(1e9, 0) // without a monotonic reading, nothing can be told
	if slept(wall, wall.Add(time.Hour)) {
		t.Error("an hour without a monotonic clock counts as sleep")
	}
	now := time.Now()
	if slept(now, now.Add(10*time.Second)) {
		t.Error("ten seconds awake count as sleep")
	}
}
