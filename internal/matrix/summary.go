package matrix

import (
	"cmp"
	"maps"
	"math"
	"regexp"
	"slices"
	"time"
)

// Summary sums up the runs of a pair.
type Summary struct {
	Runs, Direct int
	// Median and P99 are of the time to direct, by the nearest rank; of the runs
	// that became direct.
	Median, P99 time.Duration
	Packets     float64 // a run
	Relayed     float64 // bytes, a run
	Why         []Reason
}

// Reason is what was in the way of some runs.
type Reason struct {
	Text  string
	Times int
}

// Share is the share of runs that became direct, from 0 to 1.
func (s Summary) Share() float64 {
	if s.Runs == 0 {
		return 0
	}
	return float64(s.Direct) / float64(s.Runs)
}

// Times are the times to direct of the runs that became so, in order.
func (c Cell) Times() (out []time.Duration) {
	for _, r := range c.Results {
		if r.Direct {
			out = append(out, r.ToDirect)
		}
	}
	slices.Sort(out)
	return out
}

// Summary sums the cell up.
func (c Cell) Summary() Summary {
	times := c.Times()
	s := Summary{Runs: len(c.Results), Direct: len(times), Median: quantile(times, 0.5), P99: quantile(times, 0.99)}
	why := make(map[string]int)
	for _, r := range c.Results {
		s.Packets += float64(r.Packets) / float64(s.Runs)
		s.Relayed += float64(r.RelayedBytes) / float64(s.Runs)
		if !r.Direct {
			why[numbers.ReplaceAllString(r.Why, "packets")]++
		}
	}
	for text, n := range maps.All(why) {
		s.Why = append(s.Why, Reason{text, n})
	}
	slices.SortFunc(s.Why, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.Text, b.Text))
	})
	return s
}

// numbers differ between runs that failed for one reason.
var numbers = regexp.MustCompile(`\d+ packets?`)

// quantile is by the nearest rank; 0 of nothing.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}

// Shown are the numbers of the runs that are worth a look: the first that failed,
// and of those that became direct the one in the middle.
func (c Cell) Shown() (out []int) {
	if i := slices.IndexFunc(c.Results, func(r Result) bool { return !r.Direct }); i >= 0 {
		out = append(out, i)
	}
	if middle := quantile(c.Times(), 0.5); middle > 0 {
		out = append(out, slices.IndexFunc(c.Results, func(r Result) bool { return r.Direct && r.ToDirect == middle }))
	}
	return out
}
