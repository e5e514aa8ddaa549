package punch

import (
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// A volley is the single probes of one tactic: at many ports of the peer's address,
// or from many sockets of ours. A shot that hits is answered, and becomes a pair.
type volley struct {
	tactic int // of the race
	shots  []shot
	first  uint8 // TTL of the first shot from a socket that opens
	passes []pass
	next   int // shot of the pass under way
	due    time.Time
}

type shot struct {
	local Local
	to    netip.AddrPort
}

// pass is one time through all shots of a volley: with a TTL if not 0, and what
// follows it a pause later.
type pass struct {
	ttl   uint8
	pause time.Duration
}

// asked is a shot under way.
type asked struct {
	shot
	tactic int
	sent   time.Time
}

const (
	// shotTick and tickShots make 400 shots a second, which secondShots bounds; with
	// the probes of plain punching it stays below 500.
	shotTick    = 10 * time.Millisecond
	tickShots   = 4
	secondShots = 400
	// tickSockets is how many sockets are opened in a tick. Each shoots at once.
	tickSockets = 8
	// volleyShots bounds what the shots of one attempt may be; with attemptProbes
	// that makes 2,000.
	volleyShots = 1600
)

// load prepares the shots of the race.
func (e *Engine) load() {
	main, to := e.main4(), endpoint4(e.cfg.Other)
	for i, t := range e.tactics {
		if e.outcomes[i].Result == Postponed || t.Transport != UDP {
			continue
		}
		if t.Sockets > 0 && e.cfg.NewLocal != nil {
			e.open4 = t.Sockets
			passes := t.fromSockets()
			opened := shotTick * time.Duration((t.Sockets+tickSockets-1)/tickSockets)
			e.volleys = append(e.volleys, &volley{
				tactic: i, first: passes[0].ttl, passes: passes[1:], due: e.now.Add(opened + passes[0].pause),
			})
		}
		if t.Aim.Order == NoAim || main == 0 {
			continue
		}
		v := &volley{tactic: i, passes: t.atPorts(), due: e.now}
		for _, port := range t.Aim.ports(t.Shots, e.cfg.Rand) {
			v.shots = append(v.shots, shot{main, netip.AddrPortFrom(to.Addr(), port)})
		}
		e.volleys = append(e.volleys, v)
	}
	if len(e.volleys) > 0 {
		e.shotPace = newPace(secondShots)
	}
}

// main4 is the socket that the server knows, of IPv4; 0 if there is none.
func (e *Engine) main4() Local {
	for _, s := range e.locals {
		if s.is4 && s.local.Transport() == UDP {
			return s.local
		}
	}
	return 0
}

// fromSockets are the passes of a tactic that probes from many sockets. The first
// goes on while the sockets open.
func (t Tactic) fromSockets() []pass {
	switch {
	case t.Name == Predict && t.Quiet:
		return []pass{{2, 2 * time.Second}, {3, time.Second}, {0, time.Second}, {0, 2 * time.Second}, {0, 0}}
	case t.Name == Predict:
		return []pass{{0, 100 * time.Millisecond}, {0, 400 * time.Millisecond}, {0, time.Second}, {0, 2 * time.Second}, {0, 0}}
	case t.Name == BlockBirthday && t.Quiet:
		// A carrier's NAT is not the first.
		return []pass{{3, time.Second}, {4, 3 * time.Second}, {0, 0}}
	case t.Quiet:
		return []pass{{2, 4 * time.Second}, {4, 2 * time.Second}, {0, 0}}
	}
	return []pass{{0, 4 * time.Second}, {0, 0}}
}

// atPorts are the passes of a tactic that tries many ports. A port that was tried
// costs no other mapping when it is tried again.
func (t Tactic) atPorts() []pass {
	passes := []pass{{0, 300 * time.Millisecond}, {0, time.Second}, {0, 2 * time.Second}, {0, 0}}
	for len(passes) > 1 && len(passes)*t.Shots > birthdayShots {
		passes = slices.Delete(passes, 0, 1)
	}
	return passes
}

// ports are those that an Aim tries, in order.
func (a Aim) ports(n int, random io.Reader) []uint16 {
	switch a.Order {
	case Sweep:
		return a.sweep(n)
	case Diagonal:
		return a.diagonal(n)
	case Spread:
		return a.sample(n, random)
	default:
		return nil
	}
}

// fire shoots what is due, and opens sockets to shoot from. It returns when it
// wants to be called again.
func (e *Engine) fire() (next time.Time) {
	if !e.probing() || e.won == UDP {
		return time.Time{}
	}
	if e.now.Before(e.fireAt) {
		return e.fireAt
	}
	for range min(tickSockets, e.open4) {
		e.open4--
		e.bind()
	}
	left := tickShots
	for progress := true; progress && left > 0; {
		progress = false
		for _, v := range e.volleys {
			if left > 0 && e.shootNext(v) {
				left--
				progress = true
			}
		}
	}
	e.volleys = slices.DeleteFunc(e.volleys, func(v *volley) bool { return len(v.passes) == 0 && e.open4 == 0 })
	e.fireAt = e.nextFire(left)
	return e.fireAt
}

// nextFire is when there is something to shoot again.
func (e *Engine) nextFire(left int) (next time.Time) {
	soon := e.now.Add(shotTick)
	if e.open4 > 0 || left == 0 {
		return soon
	}
	for _, v := range e.volleys {
		if len(v.passes) == 0 || len(v.shots) == 0 {
			continue // it waits for its sockets
		}
		if next.IsZero() || v.due.Before(next) {
			next = v.due
		}
	}
	if !next.IsZero() && next.Before(soon) {
		return soon
	}
	return next
}

// shootNext fires the next shot of a volley, and reports whether there was one. When
// all have been shot, the next pass begins.
func (e *Engine) shootNext(v *volley) bool {
	if len(v.passes) == 0 || e.now.Before(v.due) || v.next >= len(v.shots) || !e.shoot(v, v.shots[v.next], v.passes[0].ttl) {
		return false
	}
	if v.next++; v.next == len(v.shots) {
		v.due, v.next = e.now.Add(v.passes[0].pause), 0
		v.passes = v.passes[1:]
	}
	return true
}

// shoot sends one probe, if that many may leave.
func (e *Engine) shoot(v *volley, s shot, ttl uint8) bool {
	if e.shots >= volleyShots || !e.shotPace.take(e.now) {
		return false
	}
	id := e.transactionID()
	e.sequence++
	e.shots++
	e.report.Sent++
	e.outcomes[v.tactic].Sent++
	e.asked[id] = asked{s, v.tactic, e.now}
	e.emit(Action{Op: Send, Local: s.local, To: s.to, TTL: ttl, Data: e.keys.AppendProbe(nil, id, e.sequence)})
	return true
}

// bind asks for a socket.
func (e *Engine) bind() {
	l := e.cfg.NewLocal(UDP)
	e.extra = append(e.extra, l)
	e.report.Sockets++
	e.emit(Action{Op: Bind, Local: l})
}

// bound takes a socket of ours that is open now. Its first shot leaves at once, since
// sockets are asked for at a pace; the later ones with those of all.
func (e *Engine) bound(l Local) {
	for _, v := range e.volleys {
		if e.tactics[v.tactic].Sockets == 0 {
			continue
		}
		s := shot{l, endpoint4(e.cfg.Other)}
		v.shots = append(v.shots, s)
		e.shoot(v, s, v.first)
		if soon := e.now.Add(shotTick); e.fireAt.IsZero() && e.open4 == 0 {
			e.fireAt = soon
		}
	}
}

// hit takes the answer to a shot: what was shot at is a pair from now on.
func (e *Engine) hit(l Local, from netip.AddrPort, id wire.TransactionID) bool {
	a, ok := e.asked[id]
	if !ok || a.local != l || a.to != from {
		return false
	}
	delete(e.asked, id)
	if p := e.addPair(l, target{from, Predicted, noLimit}); p != nil {
		p.tactic = a.tactic
		e.confirm(p, a.sent, false, Count{})
	}
	return true
}

// blame is the tactic that made a pair possible which the peer's probe showed.
func (e *Engine) blame(l Local, from netip.AddrPort) int {
	if l.Transport() == TCP {
		return e.plainTCP()
	}
	for i, t := range e.tactics {
		if l.Transport() == ICMP && t.Name == l.Way().of() {
			return i
		}
		if t.Sockets > 0 && slices.Contains(e.extra, l) {
			return i
		}
	}
	for _, a := range e.asked {
		if a.local == l && a.to == from {
			return a.tactic
		}
	}
	return 0
}

// release closes the sockets of ours that no pair uses, of transports that are not
// being tried any more.
func (e *Engine) release() {
	e.extra = slices.DeleteFunc(e.extra, func(l Local) bool {
		if e.probing() && l.Transport() > e.won {
			return false
		}
		if slices.ContainsFunc(e.pairs, func(p *pair) bool { return p.local == l }) {
			return false
		}
		e.emit(Action{Op: Unbind, Local: l})
		return true
	})
}

// Owns reports whether l is a socket that the Engine asked for with Bind and has not
// closed.
func (e *Engine) Owns(l Local) bool { return slices.Contains(e.extra, l) }

// Adopt takes over a socket that another Engine for the same peer has done with, if a
// hole that this one found is on it: the peer's shots tell nothing of who opened the
// socket that they hit. It reports whether it did; then the socket is not to be closed.
func (e *Engine) Adopt(l Local) bool {
	if !slices.ContainsFunc(e.pairs, func(p *pair) bool { return p.local == l }) {
		return false
	}
	if !e.Owns(l) {
		e.extra = append(e.extra, l)
	}
	return true
}
