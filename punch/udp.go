package punch

import (
	"net/netip"
	"time"

	"bodkin/internal/wire"
)

// state of a pair of socket and endpoint.
type state uint8

const (
	trying    state = iota // probing, nothing came back yet
	confirmed              // our nonce came back: a route
)

// pair is one of our sockets and one of the peer's endpoints: a hole, if the
// nonces pass.
type pair struct {
	local  Local
	remote netip.AddrPort
	kind   Kind
	state  state
	limit  int // probes left while trying
	tries  int // since the last answer
	nextAt time.Time
	asked  [16]question // the latest probes under way, a ring
	askedN int
	rtt    time.Duration // smoothed as RFC 6298 §2 does
	rttVar time.Duration
	alive  time.Time // when the last answered probe was sent
}

type question struct {
	id   wire.TransactionID
	sent time.Time
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
			if s.is4 == t.endpoint.Addr().Is4() && e.pair(s.local, t.endpoint) == nil {
				e.addPair(s.local, t)
			}
		}
	}
}

func (e *Engine) addPair(l Local, t target) *pair {
	if len(e.pairs) >= maxPairs {
		return nil
	}
	p := &pair{local: l, remote: t.endpoint, kind: t.kind, limit: t.limit, nextAt: e.now}
	if hold := e.tactics[0].Hold; hold > 0 && t.kind != Host && e.now.Equal(e.started) {
		e.open(p)
		p.nextAt = e.now.Add(hold)
	}
	e.pairs = append(e.pairs, p)
	return p
}

// open sends the openers: they make our NAT expect the peer, and die on the way.
func (e *Engine) open(p *pair) {
	for _, ttl := range e.tactics[0].Openers {
		e.probe(p, ttl)
	}
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
	if e.probing() && (!e.now.Before(e.started.Add(attemptTime)) || e.report.Sent >= attemptProbes) {
		e.finish()
	}
	kept := e.pairs[:0]
	for _, p := range e.pairs {
		if e.due(p) {
			kept = append(kept, p)
			if !p.nextAt.IsZero() && (next.IsZero() || p.nextAt.Before(next)) {
				next = p.nextAt
			}
		}
	}
	clear(e.pairs[len(kept):])
	e.pairs = kept
	if end := e.started.Add(attemptTime); e.probing() && (next.IsZero() || end.Before(next)) {
		next = end
	}
	return next
}

// due does what a pair has to do by now, and reports whether it lives on.
func (e *Engine) due(p *pair) bool {
	if p.nextAt.IsZero() || e.now.Before(p.nextAt) {
		return true
	}
	if p.state == confirmed {
		return e.keep(p)
	}
	if e.stopped && (p.tries >= strayTries || p.limit <= 0) {
		return false
	}
	if p.limit <= 0 {
		p.nextAt = time.Time{} // it still answers, and may yet be heard
		return true
	}
	if e.now.Sub(e.second) >= time.Second {
		e.second, e.inSecond = e.now, 0
	}
	if e.inSecond >= secondProbes {
		p.nextAt = e.second.Add(time.Second)
		return true
	}
	e.inSecond++
	p.limit--
	e.probe(p, 0)
	p.tries++
	p.nextAt = e.now.Add(pause(p.tries))
	if p.limit == 0 {
		p.nextAt = e.now.Add(lastWait)
	}
	return true
}

// probe sends one probe; its transaction ID is the nonce that has to come back.
func (e *Engine) probe(p *pair, ttl uint8) {
	id := e.transactionID()
	e.sequence++
	e.report.Sent++
	p.asked[p.askedN%len(p.asked)] = question{id, e.now}
	p.askedN++
	e.emit(Action{Op: Send, Local: p.local, To: p.remote, TTL: ttl, Data: e.keys.AppendProbe(nil, id, e.sequence)})
}

// packet takes a probe or an answer. What is not authenticated changes nothing
// but a counter.
func (e *Engine) packet(l Local, from netip.AddrPort, data []byte) {
	p, err := wire.ParseProbe(data)
	switch {
	case err != nil:
		e.stats.Malformed++
	case !e.keys.Verify(p):
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
	e.report.Heard++
	p := e.pair(l, from)
	if p == nil {
		limit := unobservedLimit - 1
		if sharesAddress(e.cfg.Other.Observed, []netip.AddrPort{from}) {
			limit = noLimit
		}
		if p = e.addPair(l, target{from, PeerReflexive, limit}); p == nil {
			return // unanswered: a route that we have no room for must not count there
		}
	}
	// Before the answer: data may be right behind it.
	e.emit(Action{Op: Heard, Local: l, To: from, Kind: p.kind})
	e.emit(Action{Op: Send, Local: l, To: from, Data: e.keys.AppendAnswer(nil, in.ID, from)})
	if p.state == trying {
		p.limit++
		p.tries, p.nextAt = 0, e.now
	}
}

// answered takes our own nonce back. The answer must come from where the
// question went (RFC 8445 §7.2.5.2.1).
func (e *Engine) answered(l Local, from netip.AddrPort, in wire.Probe) {
	p := e.pair(l, from)
	if p == nil {
		e.stats.Strange++
		return
	}
	for i := range p.asked {
		q := &p.asked[i]
		if q.id == in.ID && !q.sent.IsZero() {
			sent := q.sent
			*q = question{}
			e.confirm(p, sent)
			return
		}
	}
	e.stats.Strange++
}

// confirm counts a route: a hole is open in both directions.
func (e *Engine) confirm(p *pair, sent time.Time) {
	p.measure(e.now.Sub(sent))
	if p.state == trying {
		p.state = confirmed
		if e.report.Confirmed++; e.report.Confirmed == 1 {
			e.report.First = e.now.Sub(e.started)
		}
	}
	if sent.After(p.alive) {
		p.alive = sent
	}
	p.tries, p.nextAt = 0, e.now.Add(keepalive)
	e.emit(Action{Op: Heard, Local: p.local, To: p.remote, Kind: p.kind})
	e.emit(Action{Op: Confirmed, Local: p.local, To: p.remote, Kind: p.kind, RTT: p.rtt})
}
