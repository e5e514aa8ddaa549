package punch

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
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
	// maxStrays bounds these pairs, until one becomes a route: between two NATs that
	// let everything in, and show another port to each destination, each stray probe
	// would bring forth the next one for ever.
	maxStrays = 4
	// minCheck is the least time that an answer gets, minRepeat the least pause
	// between probes of a route that somebody waits for: a radio may be silent for
	// as long as nine of them take.
	minCheck  = 60 * time.Millisecond
	minRepeat = 30 * time.Millisecond
	// followAfter is how much later than the peer's the keepalive of the side
	// that follows would be.
	followAfter = time.Second
	// A route that is lost is looked for after a quarter of a second, with
	// pauses that double up to two seconds, for a minute, in which it may be all
	// that there could be; then up to a minute, for ten minutes: 44 probes.
	seekFirst = 250 * time.Millisecond
	seekSoon  = 2 * time.Second
	seekLast  = time.Minute
	seekTime  = 10 * time.Minute
	// hintProbes of the peer within hintTime of each other say that it does not
	// hear us.
	hintProbes = 3
	hintTime   = 500 * time.Millisecond
	// lossShare is by how much one probe changes the estimate of the loss.
	lossShare = 8
)

// measure folds one round trip into the estimate (RFC 6298 §2.2, §2.3).
func (p *pair) measure(r time.Duration) {
	if p.rtt == 0 || p.rough {
		p.rtt, p.rttVar, p.rough = r, r/2, false
		return
	}
	p.rttVar += ((p.rtt - r).Abs() - p.rttVar) / 4
	p.rtt += (r - p.rtt) / 8
}

// timeout is how long an answer may take before the next probe leaves.
func (p *pair) timeout() time.Duration {
	if p.local.Transport() == TCP {
		return min(max(tcpCheck, p.rtt+4*p.rttVar), time.Second)
	}
	return min(max(minCheck, p.rtt+4*p.rttVar), time.Second)
}

// check begins to ask a confirmed route whether it lives, unless it is being
// asked already, and with a size whether packets of it arrive.
func (p *pair) check(now time.Time, size int, urgent bool) {
	if p.local.Transport() == TCP {
		size = 0 // it has no packets of a size
	}
	if p.tries == 0 || urgent && !p.urgent && p.nextAt.Sub(now) > minRepeat {
		p.nextAt = now
	}
	p.checked, p.urgent = true, p.urgent || urgent
	if size > 0 && p.wide.tries == 0 {
		p.wide = wide{size: size, nextAt: now}
	}
}

// keepalive is the pause between probes that hold a mapping open. An answer holds
// it as well as a probe does: one side leads, the one whose NAT forgets sooner, and
// the other only answers.
func (e *Engine) keepalive(p *pair) time.Duration {
	keepalive := keepalive
	if p.local.Transport() == TCP {
		keepalive = tcpKeepalive
	} else if f := e.cfg.Keepalive; f != nil && p.remote.Addr().Is4() && p.local.Transport() == UDP {
		if d := f(); d > 0 {
			keepalive = d
		}
	}
	if string(e.cfg.Self.ID[:]) < string(e.cfg.Other.ID[:]) {
		return keepalive
	}
	return keepalive + followAfter
}

// repeat is the pause after the latest probe, while nothing has answered: whether a
// route that data takes has died should be known well within a second, and nobody
// waits for a keepalive.
func (p *pair) repeat() time.Duration {
	switch t := p.timeout(); {
	case p.tries == p.lossTries(), p.local.Transport() == TCP:
		return t
	case p.urgent || p.checked && p.tries > 1:
		return max(t/4, minRepeat)
	case p.checked:
		return t
	default:
		return 2 * t
	}
}

// lossTries is how many probes must stay unanswered before the route counts as lost.
func (p *pair) lossTries() int {
	if p.local.Transport() == TCP {
		return tcpLossTries
	}
	return lossTries
}

// keep probes a confirmed route: as a keepalive, and again while nothing comes
// back. It reports false when the pair is of no use any more.
func (e *Engine) keep(p *pair) bool {
	if p.tries >= p.lossTries() {
		if p.local.Transport() == TCP {
			// It would wait longer and longer; a new one is sooner there.
			e.emit(Action{Op: Lost, Local: p.local, To: p.remote, Kind: p.kind})
			return false
		}
		e.emit(Action{Op: Lost, Local: p.local, To: p.remote, Kind: p.kind})
		p.state, p.tries, p.checked, p.urgent, p.since, p.wide = missing, 0, false, false, e.now, wide{}
		p.nextAt = e.now.Add(seekFirst)
		return true
	}
	e.probe(p, 0)
	p.tries++
	p.nextAt = e.now.Add(p.repeat())
	return true
}

// seek probes for a route that went missing, more and more seldom: it may come back
// by itself, as it does when whatever was in its way goes, and the server with it
// may be gone. It reports false when that has taken too long.
func (e *Engine) seek(p *pair) bool {
	if e.now.Sub(p.since) >= seekTime {
		return false
	}
	e.probe(p, 0)
	p.tries++
	pause := min(seekFirst<<min(p.tries, 8), seekSoon)
	if lost := e.now.Sub(p.since); lost >= time.Minute {
		pause = min(lost/8, seekLast)
	}
	p.nextAt = e.now.Add(pause)
	return true
}

// wasAsked takes note that the peer probed a confirmed route, and was answered. A
// keepalive of the peer's is ours as well. Probes in quick succession say that our
// answers do not arrive there.
func (e *Engine) wasAsked(p *pair) {
	if e.now.Sub(p.heardAt) > hintTime {
		p.heardN = 0
	}
	p.heardAt = e.now
	if p.heardN++; p.heardN == hintProbes {
		p.check(e.now, 0, true)
		return
	}
	if p.tries == 0 {
		p.nextAt = e.now.Add(e.keepalive(p))
	}
}

// account counts the probes that were sent before one that is answered now, and that
// nothing answers any more. Whether wide ones are lost, or the route is narrow, only a
// wide one can tell.
func (p *pair) account(answered time.Time, wide bool) {
	p.lost -= p.lost / lossShare
	for i := range p.asked {
		q := &p.asked[i]
		if !q.sent.IsZero() && (wide || q.size == 0) && answered.Sub(q.sent) > p.timeout() {
			*q = question{}
			p.lost += (1 - p.lost) / lossShare
		}
	}
}

// forgetBefore forgets the questions of before a time.
func (p *pair) forgetBefore(t time.Time) {
	for i := range p.asked {
		if p.asked[i].sent.Before(t) {
			p.asked[i] = question{}
		}
	}
}

// forgetWide forgets the questions of a size that does not pass.
func (p *pair) forgetWide() {
	for i := range p.asked {
		if p.asked[i].size > 0 {
			p.asked[i] = question{}
		}
	}
}

// Live reports whether the Engine keeps a route alive.
func (e *Engine) Live() bool {
	return slices.ContainsFunc(e.pairs, func(p *pair) bool { return p.state == confirmed })
}

// Has reports whether (l, remote) is a confirmed route of this Engine.
func (e *Engine) Has(l Local, remote netip.AddrPort) bool {
	p := e.pair(l, unmap(remote))
	return p != nil && p.state == confirmed
}

// wide is the question whether packets of a size arrive, while it is open.
type wide struct {
	size   int
	tries  int
	nextAt time.Time
}

// widen asks it. A route that answers nothing at all is not narrow but lost, which
// [Engine.keep] finds out.
func (e *Engine) widen(p *pair) {
	w := &p.wide
	if w.nextAt.IsZero() || e.now.Before(w.nextAt) {
		return
	}
	enough := p.wideTries()
	if w.tries >= enough {
		size := w.size
		*w = wide{}
		if p.tries < wideDoubt {
			p.forgetWide()
			e.emit(Action{Op: Narrow, Local: p.local, To: p.remote, Kind: p.kind, Size: size})
		}
		return
	}
	e.probeOf(p, 0, w.size)
	w.tries++
	w.nextAt = e.now.Add(max(p.timeout()/4, minRepeat))
	if w.tries == 1 || w.tries == enough {
		w.nextAt = e.now.Add(p.timeout())
	}
}

// wideTries are the wide probes that must stay unanswered before a route counts as narrow:
// more where small ones get lost, too. Nine in a row are lost once in 13 times where half
// of all packets is, each way, and 36 once in 30,000.
func (p *pair) wideTries() int { return lossTries * (1 + int(4*p.lost)) }

// wideDoubt is how many small probes may wait for an answer when large ones are given
// up on.
const wideDoubt = 3

// widened takes the answer to a wide probe.
func (e *Engine) widened(p *pair, q question) {
	if p.state == confirmed {
		e.emit(Action{Op: Wide, Local: p.local, To: p.remote, Kind: p.kind, Size: q.size})
	}
	if q.size >= p.wide.size {
		p.wide = wide{}
	}
}

// Relayed is the first Local that is no socket: see Measure.
const Relayed Local = 1 << 31

// measured is a Measure under way.
type measured struct {
	id    wire.TransactionID
	local Local
	to    netip.AddrPort
	sent  time.Time
	data  uint64 // bytes of data that had left by the way
}

func (e *Engine) measure(in Input) {
	l, to := in.Local, unmap(in.From)
	id := e.transactionID()
	e.sequence++
	e.measures[e.measureN%len(e.measures)] = measured{id, l, to, e.now, e.dataSent(l, to)}
	e.measureN++
	e.emit(Action{Op: Send, Local: l, To: to, Data: e.keys.AppendRelayedProbe(nil, id, e.sequence, in.Moves)})
}

// measuredBy takes the answer to a Measure.
func (e *Engine) measuredBy(l Local, from netip.AddrPort, in wire.Probe) bool {
	for i := range e.measures {
		m := &e.measures[i]
		if m.id == in.ID && m.local == l && m.to == from && !m.sent.IsZero() {
			e.emit(Action{Op: Measured, Local: l, To: from, RTT: e.now.Sub(m.sent), Count: Count{in.Counts, m.data, in.Arrived}})
			*m = measured{}
			return true
		}
	}
	return false
}
