package punch

import (
	"net/netip"
	"time"
)

const (
	// keepalive holds a mapping open: half of the 30 s that Linux gives a UDP
	// flow, and RFC 8445 §11's least.
	keepalive = 15 * time.Second
	// lossTries are the probes that must stay unanswered before a route counts
	// as lost: with 10% loss each way on both access links (34% a round trip) a
	// live route fails so once in 15,000 checks.
	lossTries = 9
	// strayTries are the probes for a pair that the peer's probe showed us
	// after the attempt: its NAT moved it, or it is gone again.
	strayTries = 12
	// minCheck is the least time that an answer gets.
	minCheck = 60 * time.Millisecond
)

// measure folds one round trip into the estimate (RFC 6298 §2.2, §2.3).
func (p *pair) measure(r time.Duration) {
	if p.rtt == 0 {
		p.rtt, p.rttVar = r, r/2
		return
	}
	p.rttVar += ((p.rtt - r).Abs() - p.rttVar) / 4
	p.rtt += (r - p.rtt) / 8
}

// timeout is how long an answer may take before the next probe leaves.
func (p *pair) timeout() time.Duration {
	return min(max(minCheck, p.rtt+4*p.rttVar), time.Second)
}

// check begins to ask a confirmed route whether it lives, unless it is being
// asked already.
func (p *pair) check(now time.Time) {
	if p.tries == 0 {
		p.nextAt = now
	}
}

// keep probes a confirmed route: as a keepalive, and again while nothing comes
// back. It reports false when the route is lost.
func (e *Engine) keep(p *pair) bool {
	if p.tries >= lossTries {
		e.emit(Action{Op: Lost, Local: p.local, To: p.remote, Kind: p.kind})
		p.state = trying
		return e.probing()
	}
	e.probe(p, 0)
	p.tries++
	// The first repeats leave quickly: whether a route died should be known
	// well within a second.
	p.nextAt = e.now.Add(p.timeout() * time.Duration(min(p.tries, 2)) / 2)
	return true
}

// Has reports whether (l, remote) is a confirmed route of this Engine.
func (e *Engine) Has(l Local, remote netip.AddrPort) bool {
	p := e.pair(l, unmap(remote))
	return p != nil && p.state == confirmed
}
