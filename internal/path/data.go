package path

import (
	"slices"

	"bodkin/punch"
)

const (
	// enoughData is how many bytes must have left by a route before a count says how
	// much of it gets lost: three large packets, or half a second of speech.
	enoughData = 3000
	// surelyEnough is how many must have left, and all but the share of swallowed be
	// missing in the counts of two answers, before the route is left: seven large packets.
	surelyEnough = 8000
	swallowed    = 0.75
	// fewAnswers in a row that tell of nothing at all, each of more data, say the same of
	// however little.
	fewAnswers = 4
)

// ledger is what has become of the data that left by a route, as the answers to probes
// tell. A probe does not overtake the data before it: what had left when it did has
// arrived when it has, or got lost.
type ledger struct {
	began         bool
	sent, arrived uint64 // where the present count began
	last          uint64 // what had been sent when the latest answer told
	idle          int    // answers in a row before which nothing more had been sent
	short, news   int    // answers since the beginning that told of too little, and of new data
	loss          float64
}

// count takes what an answer told. It reports whether too little arrived this time, so
// that the next answer is wanted at once, and whether the route swallows data.
func (l *ledger) count(c punch.Count) (short, swallows bool) {
	if !l.began || c.Sent < l.sent || c.Arrived < l.arrived {
		*l = ledger{} // one of the two began anew
		l.begin(c)
		return false, false
	}
	sent, arrived := float64(c.Sent-l.sent), float64(c.Arrived-l.arrived)
	lost := 1 - arrived/max(sent, 1)
	if l.idle++; c.Sent != l.last {
		l.idle = 0
	}
	l.last = c.Sent
	if l.idle > 0 {
		l.loss -= l.loss / 8 // nothing is known of now: that of before fades
	}
	switch {
	case l.idle >= fewAnswers:
		l.begin(c)
		return false, false
	case sent == 0, sent < enoughData && arrived > 0:
		return false, false
	case lost < swallowed:
		l.loss += (lost - l.loss) / 4
		l.begin(c)
		return false, false
	}
	if l.short++; l.idle == 0 {
		l.news++
	}
	return true, l.short >= 2 && sent >= surelyEnough || l.news >= fewAnswers && arrived == 0
}

// begin begins a count with an answer.
func (l *ledger) begin(c punch.Count) {
	*l = ledger{began: true, sent: c.Sent, arrived: c.Arrived, last: c.Sent, idle: l.idle, loss: l.loss}
}

// told takes what an answer told of the data by a route.
func (p *Peer) told(k Key, c punch.Count) {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return r.Key == k })
	if i < 0 || !c.Told {
		return
	}
	l := p.watch.data[k]
	if l == nil {
		l = new(ledger)
		if p.watch.data == nil {
			p.watch.data = make(map[Key]*ledger)
		}
		p.watch.data[k] = l
	}
	was := l.short
	short, swallows := l.count(c)
	switch {
	case swallows && p.routes[i].Direct():
		*l = ledger{}
		p.setAside(k, true)
	case short && was == 0 && p.routes[i].Direct():
		p.check(k, 0, true)
	}
}

// lossOf is the loss of a route: that of its data, where that is worse than its probes'.
func (p *Peer) lossOf(k Key, probes float64) float64 {
	if l := p.watch.data[k]; l != nil {
		return max(probes, l.loss)
	}
	return probes
}
