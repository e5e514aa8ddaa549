package punch

import (
	"net/netip"
	"time"

	"bodkin/nat"
)

// Memory is what attempts at one peer taught, for the next ones. The zero Memory
// knows nothing; a nil one keeps nothing.
type Memory struct {
	// Won is the tactic that the latest route came of.
	Won     Name
	profile nat.Profile  // what the peer said of its NAT
	home    netip.Prefix // where the peer was
	failed  map[Name]failure
	// running are the tactics that an attempt is at. When both peers ask for each
	// other at once there are two attempts, with one budget.
	running map[Name]bool
}

// Recall is what a peer says of its NAT; or, if it does not know yet, as in a
// process that has just begun, what it said before.
func (m *Memory) Recall(said nat.Profile) nat.Profile {
	switch {
	case m == nil:
	case said.Mapping != nat.Unknown:
		m.profile = said
	case m.profile.Mapping != nat.Unknown:
		said = m.profile
		said.Ports.Last, said.Ports.Age = 0, 0 // the sequence has gone on
	}
	return said
}

// Forgive makes every tactic due again: what failed, failed in another network.
func (m *Memory) Forgive() { m.failed = nil }

type failure struct {
	times int
	at    time.Time // the latest
}

// pauses is how long a tactic rests that found nothing: one that costs few packets
// not at all, one that costs many the longer the more often it failed, and one that
// takes ports of a carrier's block until those mappings are gone.
func (n Name) pause(times int) time.Duration {
	switch n {
	case Birthday, BirthdayTCP:
		return min(time.Minute<<min(times-1, 6), time.Hour)
	case BlockBirthday, Mixed:
		return min(5*time.Minute<<min(times-1, 4), time.Hour)
	default:
		return 0
	}
}

// at forgets what failed when the peer is elsewhere now: behind another NAT, since
// the addresses of one are neighbours.
func (m *Memory) at(a netip.Addr) {
	if m == nil || !a.Is4() {
		return
	}
	if home := netip.PrefixFrom(a, 24).Masked(); home != m.home {
		m.home, m.failed = home, nil
	}
}

// begin reports whether a tactic may be tried, and takes note that it is.
func (m *Memory) begin(n Name, now time.Time) bool {
	if m == nil || n == Plain || n == PlainTCP {
		return true
	}
	if f, ok := m.failed[n]; m.running[n] || ok && now.Sub(f.at) < n.pause(f.times) {
		return false
	}
	if m.running == nil {
		m.running = make(map[Name]bool)
	}
	m.running[n] = true
	return true
}

// learn takes in how an attempt ended.
func (m *Memory) learn(outcomes []Outcome, now time.Time) {
	if m == nil {
		return
	}
	for _, o := range outcomes {
		if o.Result != Postponed {
			delete(m.running, o.Tactic)
		}
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
