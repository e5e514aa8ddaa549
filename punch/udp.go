package punch

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/nat"
)

// state of a pair of socket and endpoint.
type state uint8

const (
	trying    state = iota // probing, nothing came back yet
	confirmed              // our nonce came back: a route
	missing                // it was a route, and no longer answers
)

// pair is one of our sockets and one of the peer's endpoints: a hole, if the
// nonces pass.
type pair struct {
	local   Local
	remote  netip.AddrPort
	kind    Kind
	state   state
	tactic  int           // of the race, to which the pair is owed
	openers []uint8       // TTLs that go first
	hold    time.Duration // what is left of the wait behind them
	limit   int           // probes left while trying
	tries   int           // since the last answer
	nextAt  time.Time
	asked   [16]question // the latest probes under way, a ring
	askedN  int
	rtt     time.Duration // smoothed as RFC 6298 §2 does
	rttVar  time.Duration
	alive   time.Time // when the last answered probe was sent
	checked bool      // somebody wants to know whether the route lives
	urgent  bool      // and doubts it
	lost    float64   // share of the probes that were not answered, smoothed
	since   time.Time // when it became a route, or missing
	heardAt time.Time // when the peer last probed here
	heardN  int       // how often it has, in quick succession
	wide    wide
	rough   bool // rtt is a guess
}

type question struct {
	id   wire.TransactionID
	sent time.Time
	size int    // of a wide probe
	data uint64 // bytes of data that had left by the pair
}

// schedule is the pause before each retransmission: quick at first, since the
// first probe often dies at a NAT that opens a moment later.
var schedule = []time.Duration{
	20 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 40 * time.Millisecond,
	80 * time.Millisecond, 80 * time.Millisecond, 160 * time.Millisecond, 160 * time.Millisecond,
	320 * time.Millisecond, 320 * time.Millisecond, 400 * time.Millisecond,
}

// lastWait is how long the last probe that a pair is allowed may take.
const lastWait = 2 * time.Second

func pause(tries int) time.Duration { return schedule[min(max(tries, 1), len(schedule))-1] }

// addPairs puts every socket together with every target of its family.
func (e *Engine) addPairs() {
	for _, t := range e.targets {
		for _, s := range e.locals {
			if s.local.Transport() == UDP && s.is4 == t.endpoint.Addr().Is4() && e.pair(s.local, t.endpoint) == nil {
				e.addPair(s.local, t)
			}
		}
	}
	for _, s := range e.locals {
		if s.local.Transport() == ICMP {
			e.addICMPPairs(s)
		}
	}
}

func (e *Engine) addPair(l Local, t target) *pair {
	if len(e.pairs) >= maxPairs {
		return nil
	}
	p := &pair{local: l, remote: t.endpoint, kind: t.kind, limit: t.limit, nextAt: e.now}
	switch plain := e.tactics[0]; {
	case !e.now.Equal(e.started), t.kind == Host, l.Transport() != UDP:
	case e.reserved(l, t):
		p.openers, p.hold = []uint8{openerTTLs[0], openerTTLs[0]}, holdReserve
	case plain.Hold > 0:
		p.openers, p.hold = plain.Openers, plain.Hold
	}
	e.pairs = append(e.pairs, p)
	return p
}

// reserved reports whether a pair is for the case that the first socket's mapping
// was moved by a packet that came too early: on our second socket, or at the peer's.
func (e *Engine) reserved(l Local, t target) bool {
	if e.cfg.Self.Profile.KeepsEarly != nat.Yes && e.cfg.Other.Profile.KeepsEarly != nat.Yes {
		return false
	}
	return t.kind == Predicted || t.endpoint.Addr().Is4() && l != e.main4()
}

// open sends the next opener, which makes our NAT expect the peer and dies on the
// way, while the peer's NAT is being opened from inside.
func (e *Engine) open(p *pair) {
	pause := p.hold / time.Duration(len(p.openers))
	e.probe(p, p.openers[0])
	p.openers, p.hold = p.openers[1:], p.hold-pause
	p.nextAt = e.now.Add(pause)
}

func (e *Engine) pair(l Local, remote netip.AddrPort) *pair {
	for _, p := range e.pairs {
		if p.local == l && p.remote == remote {
			return p
		}
	}
	return nil
}

// run sends what is due and returns when the next thing is.
func (e *Engine) run() (next time.Time) {
	if e.probing() && (!e.now.Before(e.started.Add(attemptTime)) || e.spent()) {
		e.finish(FoundNone)
	}
	kept, gone := e.pairs[:0], []Local(nil)
	for _, p := range e.pairs {
		if !e.due(p) {
			gone = append(gone, p.local)
		} else {
			kept = append(kept, p)
			e.widen(p)
			for _, at := range []time.Time{p.nextAt, p.wide.nextAt} {
				if !at.IsZero() && (next.IsZero() || at.Before(next)) {
					next = at
				}
			}
		}
	}
	clear(e.pairs[len(kept):])
	e.pairs = kept
	for _, l := range gone {
		if l.Transport() == TCP {
			e.hangUp(l)
		}
	}
	if at := e.connect(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	// After plain punching: predictions count with its first probe.
	if at := e.fire(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if e.stopped || !e.releaseAt.IsZero() && !e.now.Before(e.releaseAt) {
		e.releaseAt = time.Time{}
		e.release()
		e.spare()
	}
	if !e.releaseAt.IsZero() && (next.IsZero() || e.releaseAt.Before(next)) {
		next = e.releaseAt
	}
	if end := e.started.Add(attemptTime); e.probing() && (next.IsZero() || end.Before(next)) {
		next = end
	}
	return next
}

// spent reports whether the probes of an attempt are used up, shots aside.
func (e *Engine) spent() bool { return e.report.Sent-e.shots-e.tcpShots >= attemptProbes }

// due does what a pair has to do by now, and reports whether it lives on.
func (e *Engine) due(p *pair) bool {
	if p.nextAt.IsZero() || e.now.Before(p.nextAt) {
		return true
	}
	switch p.state {
	case confirmed:
		return e.keep(p)
	case missing:
		return e.seek(p)
	case trying:
	}
	if e.stopped && (p.tries >= strayTries || p.limit <= 0) {
		return false
	}
	if p.limit <= 0 && p.local.Transport() == TCP {
		return false // whoever that is
	}
	if p.limit <= 0 {
		p.nextAt = time.Time{} // it still answers, and may yet be heard
		return true
	}
	if e.probing() && e.spent() {
		return true // the attempt is over
	}
	pace := &e.probePace
	if p.local.Transport() == ICMP {
		pace = &e.icmpPace
	}
	if !pace.take(e.now) {
		p.nextAt = pace.free()
		return true
	}
	if len(p.openers) > 0 {
		e.open(p)
		return true
	}
	p.limit--
	e.probe(p, 0)
	p.tries++
	p.nextAt = e.now.Add(pause(p.tries))
	if p.local.Transport() == TCP {
		p.nextAt = e.now.Add(newcomerPause)
	}
	if p.limit == 0 {
		p.nextAt = e.now.Add(lastWait)
	}
	return true
}

// probe sends one probe; its transaction ID is the nonce that has to come back.
func (e *Engine) probe(p *pair, ttl uint8) { e.probeOf(p, ttl, 0) }

// probeOf is probe, of a size if not 0.
func (e *Engine) probeOf(p *pair, ttl uint8, size int) {
	id := e.transactionID()
	e.sequence++
	e.report.Sent++
	if e.probing() {
		e.outcomes[p.tactic].Sent++
	}
	p.asked[p.askedN%len(p.asked)] = question{id, e.now, size, e.dataSent(p.local, p.remote)}
	p.askedN++
	e.emit(Action{Op: Send, Local: p.local, To: p.remote, TTL: ttl, Data: e.keys.AppendWideProbe(nil, id, e.sequence, size)})
}

// packet takes a probe or an answer. What is not authenticated changes nothing
// but a counter.
func (e *Engine) packet(l Local, from netip.AddrPort, data []byte) {
	p, err := wire.ParseProbe(data)
	switch {
	case err != nil:
		e.stats.Malformed++
	case !e.keys.Verify(p):
		if l.Transport() == ICMP && e.keys.Returned(p) {
			e.report.Echoed++ // by a router, or the peer's system: it tells nothing of the peer
			return
		}
		e.stats.Forged++
	case p.Answer:
		e.answered(l, from, p)
	case !e.window.Take(p.Sequence):
		e.stats.Replayed++
	default:
		e.probed(l, from, p)
	}
}

// probed answers the peer's probe and probes back at once (RFC 8445 §7.3.1.4,
// triggered checks): the endpoint it came from may be one that nobody knew. The
// probe tells that the peer sent it, not that it came from there: at an address
// where the server did not observe the peer it earns one probe, beyond what any
// endpoint gets.
func (e *Engine) probed(l Local, from netip.AddrPort, in wire.Probe) {
	if l >= Relayed {
		e.emit(Action{Op: Noted, Local: l, To: from, Moves: in.Moves})
		e.answer(l, from, in.ID, true)
		return
	}
	if !slices.ContainsFunc(e.tactics, func(t Tactic) bool { return t.Transport == l.Transport() }) {
		return // one of the two would not send data that way
	}
	e.report.Heard++
	p := e.pair(l, from)
	if p == nil {
		if e.stopped {
			if e.strays >= maxStrays {
				return
			}
			e.strays++
		}
		if e.won > l.Transport() && l.Transport() == ICMP {
			return // unanswered: there is something better
		}
		limit := unobservedLimit - 1
		if sharesAddress(e.cfg.Other.Observed, []netip.AddrPort{from}) {
			limit = noLimit
		}
		if p = e.addPair(l, target{from, PeerReflexive, limit}); p == nil {
			return // unanswered: a route that we have no room for must not count there
		}
		p.tactic = e.blame(l, from)
		if l.Transport() == TCP {
			p.limit = newcomerProbes
			e.extra = append(e.extra, l) // the peer's connection is ours to end
		}
	}
	// Before the answer: data may be right behind it.
	e.emit(Action{Op: Heard, Local: l, To: from, Kind: p.kind})
	e.answer(l, from, in.ID, p.state == confirmed)
	switch {
	case p.state == confirmed:
		e.wasAsked(p)
		return
	case p.rough:
		// We connected: what we sent came back already, with numbers of ours, and
		// now the peer is heard by the same way.
		e.establish(p, Count{})
		return
	case l.Transport() == TCP:
		return // our probe is under way, and does not get lost
	}
	p.limit++
	p.tries, p.nextAt, p.openers = 0, e.now, nil
}

// answer answers a probe; with counts it tells of the data that has arrived.
func (e *Engine) answer(l Local, from netip.AddrPort, id wire.TransactionID, counts bool) {
	var data []byte
	if counts && e.cfg.Traffic != nil {
		_, arrived := e.cfg.Traffic(l, from)
		data = e.keys.AppendCountingAnswer(nil, id, from, arrived)
	} else {
		data = e.keys.AppendAnswer(nil, id, from)
	}
	e.emit(Action{Op: Send, Local: l, To: from, Data: data})
}

// dataSent is how many bytes of data have left by a route.
func (e *Engine) dataSent(l Local, to netip.AddrPort) (sent uint64) {
	if e.cfg.Traffic != nil {
		sent, _ = e.cfg.Traffic(l, to)
	}
	return sent
}

// answered takes our own nonce back. The answer must come from where the
// question went (RFC 8445 §7.2.5.2.1).
func (e *Engine) answered(l Local, from netip.AddrPort, in wire.Probe) {
	p := e.pair(l, from)
	if p == nil {
		if !e.hit(l, from, in.ID) && !e.measuredBy(l, from, in) {
			e.stats.Strange++
		}
		return
	}
	for i := range p.asked {
		q := &p.asked[i]
		if q.id == in.ID && !q.sent.IsZero() {
			was := *q
			*q = question{}
			if was.size > 0 {
				e.widened(p, was)
			}
			e.confirm(p, was.sent, was.size > 0, Count{in.Counts, was.data, in.Arrived})
			return
		}
	}
	if a, ok := e.asked[in.ID]; ok && a.local == l && a.to == from {
		delete(e.asked, in.ID)
		e.confirm(p, a.sent, false, Count{})
		return
	}
	e.stats.Strange++
}

// confirm counts a route: a hole is open in both directions.
func (e *Engine) confirm(p *pair, sent time.Time, wide bool, count Count) {
	p.measure(e.now.Sub(sent))
	p.account(sent, wide)
	if p.state != confirmed {
		p.forgetBefore(sent)
	}
	if sent.After(p.alive) {
		p.alive = sent
	}
	e.establish(p, count)
}

// establish makes a pair a route, or leaves it one.
func (e *Engine) establish(p *pair, count Count) {
	e.strays = 0
	was := p.state
	if was != confirmed {
		p.state, p.since, p.lost = confirmed, e.now, 0 // what was lost before is over
	}
	if was == trying {
		if e.report.Confirmed++; e.report.Confirmed == 1 {
			e.report.First = e.now.Sub(e.started)
		}
		if t := p.local.Transport(); t > e.won {
			e.won = t
			e.decide(p.tactic)
		}
	}
	p.tries, p.checked, p.urgent, p.nextAt = 0, false, false, e.now.Add(e.keepalive(p))
	e.emit(Action{Op: Heard, Local: p.local, To: p.remote, Kind: p.kind})
	e.emit(Action{Op: Confirmed, Local: p.local, To: p.remote, Kind: p.kind, RTT: p.rtt, Loss: p.lost, Count: count})
}

// decide ends the race of a transport and of those that are worse: its first route is
// there.
func (e *Engine) decide(winner int) {
	if !e.probing() {
		return // a route that came after the attempt
	}
	for i := range e.outcomes {
		switch {
		case i == winner:
			e.outcomes[i].Result = Won
		case e.outcomes[i].Result == Running && e.tactics[i].Transport <= e.won:
			e.outcomes[i].Result = NotNeeded
		}
	}
	e.dropWorse(e.won)
	if e.won == UDP {
		e.volleys, e.open4 = nil, 0
	}
	if e.won >= TCP {
		e.releaseAt = e.now.Add(releaseAfter)
	}
}
