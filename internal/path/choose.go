package path

import (
	"time"

	"bodkin/punch"
)

// hysteresis is by how much a route must beat the one in use, since every change
// costs QUIC a new start: a fifth, and no less than two milliseconds.
func hysteresis(cost time.Duration) time.Duration { return max(cost/5, 2*time.Millisecond) }

const (
	// lossWeight is what loss costs: with 5% a route is as good as one without
	// that takes twice as long.
	lossWeight = 20
	// enoughSamples is how often the relay must have been measured lately before a
	// direct route is left for it.
	enoughSamples = 8
	// spare is what a direct route may take longer than the relay in any case.
	spare = 100 * time.Millisecond
)

// cost is what a route is ranked by: its round trip, longer for what gets lost.
func (r Route) cost() time.Duration {
	return r.RTT + time.Duration(float64(r.RTT)*lossWeight*r.Loss)
}

// grade is what comes before all numbers: a route that is narrow, or has to prove
// itself, is used only where there is none better.
func (r Route) grade() int {
	switch {
	case r.Narrow:
		return 2
	case r.Proving:
		return 1
	default:
		return 0
	}
}

// better reports whether to leave the route in use for r. One that large packets do
// not pass is the last resort, after one that came and went. A direct route beats the relay unless it is much
// worse, and one by a better transport one by a worse; of two others the quicker wins, by a margin, and one on the same link
// needs no margin; of two relays the newer, since the older may have gone with its
// server.
func better(r, inUse Route) bool {
	switch {
	case r.grade() != inUse.grade():
		return r.grade() < inUse.grade()
	case r.Direct() && !inUse.Direct():
		return !tooBad(r, inUse, 3, spare/2)
	case !r.Direct() && inUse.Direct():
		return tooBad(inUse, r, 4, spare)
	case !r.Direct():
		return r.Since.After(inUse.Since)
	case r.Transport() > inUse.Transport():
		return !costsMore(r, inUse, 3, spare/2)
	case r.Transport() < inUse.Transport():
		return costsMore(inUse, r, 4, spare)
	case r.Kind == punch.Host && inUse.Kind != punch.Host:
		return r.cost() <= inUse.cost()+hysteresis(inUse.cost())
	case r.Kind != punch.Host && inUse.Kind == punch.Host:
		return r.cost()+2*hysteresis(inUse.cost()) < inUse.cost()
	default:
		return r.cost()+hysteresis(inUse.cost()) < inUse.cost()
	}
}

// tooBad reports whether a direct route costs more than so many halves of what the
// relay does, as far as that is known.
func tooBad(direct, relay Route, halves int, spare time.Duration) bool {
	if relay.Samples < enoughSamples {
		return false
	}
	return costsMore(direct, relay, halves, spare)
}

// costsMore reports whether r costs more than so many halves of what other does.
func costsMore(r, other Route, halves int, spare time.Duration) bool {
	return r.cost() > other.cost()*time.Duration(halves)/2+spare
}
