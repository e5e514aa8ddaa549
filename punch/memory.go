package punch

import "time"

// Memory is what attempts at one peer taught, for the next ones. The zero Memory
// knows nothing; a nil one keeps nothing.
type Memory struct {
	// Won is the tactic that the latest route came of.
	Won    Name
	failed map[Name]failure
}

type failure struct {
	times int
	at    time.Time // the latest
}

// pauses is how long a tactic rests that found nothing: one that costs few packets
// not at all, one that costs many the longer the more often it failed, and one that
// takes ports of a carrier's block until those mappings are gone.
func (n Name) pause(times int) time.Duration {
	switch n {
	case Birthday:
		return min(time.Minute<<min(times-1, 6), time.Hour)
	case BlockBirthday, Mixed:
		return min(5*time.Minute<<min(times-1, 4), time.Hour)
	default:
		return 0
	}
}

// due reports whether a tactic may be tried.
func (m *Memory) due(n Name, now time.Time) bool {
	if m == nil {
		return true
	}
	f, ok := m.failed[n]
	return !ok || now.Sub(f.at) >= n.pause(f.times)
}

// learn takes in how an attempt ended.
func (m *Memory) learn(outcomes []Outcome, now time.Time) {
	if m == nil {
		return
	}
	for _, o := range outcomes {
		switch o.Result {
		case Won:
			m.Won = o.Tactic
			delete(m.failed, o.Tactic)
		case FoundNone:
			if m.failed == nil {
				m.failed = make(map[Name]failure)
			}
			m.failed[o.Tactic] = failure{m.failed[o.Tactic].times + 1, now}
		default: // it was not tried to the end
		}
	}
}
