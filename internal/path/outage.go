package path

import (
	"net/netip"
	"time"
)

const (
	// outage is how long nothing has come in when a route comes back from one.
	outage = time.Second
	// QUIC repeats itself with pauses that double while nothing is answered. An
	// acknowledgement that nobody answers, and a question later, make one pause; three
	// of backoffPause and more are two seconds at the least.
	backoffPause  = 200 * time.Millisecond
	backoffPauses = 3
)

// repeats takes note that something leaves, and of the pause before it.
func (e *entry) repeats(now int64) {
	if last := e.latest.Swap(now); now-last >= int64(backoffPause) {
		e.pauses.Add(1)
	}
}

// answered reports whether what came in now ends an outage: QUIC has backed off.
func (e *entry) answered() bool {
	n := e.pauses.Load()
	if n > 0 {
		e.pauses.Store(0)
	}
	return n >= backoffPauses
}

// Revive has QUIC start afresh with a peer, and sends the last packet once more, where an
// outage is over though the routes are as they were; if silent, only where nothing has
// come in for as long as an outage takes. It reports whether it did: connections that we
// dialled should start afresh, too.
func (s *Socket) Revive(overlay netip.Addr, silent bool) bool {
	s.mu.Lock()
	e := (*s.peers.Load())[overlay]
	if e == nil || silent && time.Since(s.heard(e)) < outage {
		s.mu.Unlock()
		return false
	}
	s.afresh(e)
	s.mu.Unlock()
	e.resend()
	return true
}

// afresh shows QUIC the peer at new ports, after an outage. What it knows of the round
// trip and of how much may be under way is of before, or from repeats that were answered
// when nobody waited any more: it would creep for as long as the outage took. A packet
// from a new port starts all that anew (RFC 9000 §9.4). Under the lock.
func (s *Socket) afresh(e *entry) {
	e.epoch = e.shown.Add(1)
	e.origins.renew(e)
	update(&s.sources, func(m map[Key]*link) {
		for k, l := range m {
			if l.peer == e {
				n := newLink(e, k)
				n.counters = l.counters
				m[k] = n
			}
		}
	})
}
