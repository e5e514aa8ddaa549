package punch

import "time"

// pace bounds how often something happens in any second, wherever that begins.
type pace struct {
	at []time.Time // the latest times, a ring
	n  int
}

func newPace(perSecond int) pace { return pace{at: make([]time.Time, perSecond)} }

// free is when it may happen again: now or earlier if at once.
func (p *pace) free() time.Time {
	if oldest := p.at[p.n%len(p.at)]; !oldest.IsZero() {
		return oldest.Add(time.Second)
	}
	return time.Time{}
}

// take reports whether it may happen now, and counts it if so.
func (p *pace) take(now time.Time) bool {
	if now.Before(p.free()) {
		return false
	}
	p.at[p.n%len(p.at)] = now
	p.n++
	return true
}
