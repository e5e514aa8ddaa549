package rendezvous

import (
	"slices"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// hello begins a registration: a Register without NONCE to every endpoint of the
// server. The first that is answered leads.
func (a *Agent) hello() {
	a.state, a.primary, a.box = stateHello, nil, nil
	for _, l := range a.servers {
		l.id, l.nonce, l.attached, l.tries = a.transaction(), nil, false, 0
		a.sayHello(l)
	}
}

func (a *Agent) sayHello(l *serverLeg) {
	a.sent(l)
	a.send(l, wire.AppendRegister(nil, l.id, nil, nil))
}

// sent notes that a try of the leg's request leaves now.
func (a *Agent) sent(l *serverLeg) {
	l.sentAt = a.now
	l.nextAt = a.now.Add(l.rto(l.tries))
	l.tries++
}

// prove sends a Register with NONCE and BOX: who we are, for the server alone.
func (a *Agent) prove(l *serverLeg, fresh bool) {
	if fresh {
		a.counter++
		l.id, l.tries = a.transaction(), 0
		box, err := wire.SealRegister(a.cfg.Key, a.cfg.Server, l.id, l.nonce, a.registration())
		if err != nil {
			a.emit(AgentAction{Op: AgentFailed, Err: err})
			return
		}
		a.box, a.dirty, a.epoch = box, false, wire.Epoch(a.now)
	}
	a.sent(l)
	a.send(l, wire.AppendRegister(nil, l.id, l.nonce, a.box))
}

// refresh keeps a leg alive, or attaches it, or with everything tells what is
// new.
func (a *Agent) refresh(l *serverLeg, everything bool) {
	if l.tries == 0 {
		l.id = a.transaction()
	}
	var content wire.Attrs
	if everything || a.dirty && l == a.primary {
		content = a.registration().Append(nil)
		a.dirty, a.epoch = false, wire.Epoch(a.now)
	}
	a.sent(l)
	a.send(l, a.seal(stun.NewType(wire.Refresh, stun.ClassRequest), l.id, l.nonce, content))
}

// due does what a leg has to do by now: try again, or keep alive.
func (a *Agent) due(l *serverLeg) {
	switch {
	case a.state == stateHello && l.nonce == nil:
		a.silent(l)
		a.sayHello(l)
	case a.state == stateProving && l == a.primary:
		if l.tries >= proveTries {
			a.failures++
			if a.failures >= 2 && !a.reported {
				a.reported = true
				a.emit(AgentAction{Op: AgentFailed, Err: ErrWrongServer})
			}
			a.hello()
			return
		}
		a.prove(l, false)
	case a.state == stateUp && l.tries >= refreshTries:
		if l != a.primary {
			l.attached, l.tries = false, 0
			l.nextAt = a.now.Add(time.Minute)
			return
		}
		a.lost()
	case a.state == stateUp:
		if l.tries > 0 && l == a.primary {
			a.dirty = true // the try that said it may not have arrived
		}
		a.refresh(l, false)
	default:
		l.nextAt = time.Time{}
	}
}

// silent counts hellos without an answer, and says so in time.
func (a *Agent) silent(l *serverLeg) {
	if l.tries < helloTries {
		return
	}
	if a.silentFor++; a.silentFor%(4*len(a.servers)) == 1 {
		a.emit(AgentAction{Op: AgentResolve})
	}
	if !a.reported {
		a.reported = true
		a.emit(AgentAction{Op: AgentFailed, Err: ErrNoServer})
	}
}

// lost begins anew, and looks whether the server has moved.
func (a *Agent) lost() {
	a.emit(AgentAction{Op: AgentLost})
	a.emit(AgentAction{Op: AgentResolve})
	a.failAsks(ErrNoIntroduction)
	a.hello()
}

// challenged takes a NONCE: an answer that nobody has authenticated, which
// changes nothing but what we send next.
func (a *Agent) challenged(l *serverLeg, nonce []byte) {
	switch {
	case a.state == stateHello:
		l.nonce = slices.Clone(nonce)
		l.nextAt = time.Time{}
		if a.primary == nil {
			a.primary, a.state = l, stateProving
			a.measure(l)
			a.prove(l, true)
		}
	case a.state == stateProving && l == a.primary && !slices.Equal(l.nonce, nonce):
		l.nonce = slices.Clone(nonce)
		a.prove(l, true)
	case a.state == stateProving && l.nonce == nil:
		l.nonce = slices.Clone(nonce)
		l.nextAt = time.Time{}
	case a.state == stateUp && !slices.Equal(l.nonce, nonce):
		// Our endpoint is another one now, or this leg has yet to attach.
		l.nonce, l.tries = slices.Clone(nonce), 0
		a.dirty = a.dirty || l == a.primary
		a.refresh(l, false)
	}
}

// measure takes the round trip of an answered first try (Karn's rule).
func (a *Agent) measure(l *serverLeg) {
	if l.tries == 1 {
		l.rtt = max(a.now.Sub(l.sentAt), time.Millisecond)
	}
}

// registered takes the server's proof that it knows us.
func (a *Agent) registered(l *serverLeg, e wire.Envelope, m *stun.Message) {
	keys := wire.NewLinkKeys(a.secret, [32]byte(a.box), e.Handle, a.cfg.Key.ID(), a.cfg.Server, a.cfg.Instance)
	content, err := wire.Open(m, e.Sequence, &keys.ToNode)
	if err != nil {
		return
	}
	r, err := wire.ParseRegistered(content)
	if err != nil {
		return
	}
	a.handle, a.keys, a.window, a.sequence = e.Handle, keys, wire.Window{}, 0
	a.window.Take(e.Sequence)
	a.state, a.failures, a.silentFor, a.reported = stateUp, 0, 0, false
	a.box = nil
	again := a.wasUp
	a.wasUp = true
	a.measure(l)
	a.alive(l)
	a.settled = false
	a.say(l, r, again)
	if again {
		a.failAsks(ErrNoIntroduction)
	}
	for _, other := range a.servers {
		if other != l {
			other.tries = 0
			a.refresh(other, false)
		}
	}
	if a.dirty {
		a.refresh(l, true)
	}
}

// alive notes that a leg's request was answered.
func (a *Agent) alive(l *serverLeg) {
	l.attached, l.tries = true, 0
	// A tenth of jitter keeps nodes that started together apart.
	var b [1]byte
	_, _ = a.cfg.Rand.Read(b[:])
	l.nextAt = a.now.Add(a.cfg.Keepalive - a.cfg.Keepalive/10*time.Duration(b[0])/255)
}

// say passes on what the server says of us, if it is news.
func (a *Agent) say(l *serverLeg, r wire.Registered, again bool) {
	if r.Flags&wire.FlagDisplaced != 0 {
		a.displace()
	}
	settled := l == a.primary && !a.dirty
	if !again && settled == a.settled && a.revision == r.Revision && slices.Equal(a.observed, r.Observed) {
		return
	}
	a.revision, a.observed, a.settled = r.Revision, r.Observed, a.settled || settled
	a.emit(AgentAction{
		Op: AgentRegistered, To: a.primary.ServerEndpoint, Registered: r, Again: again, Settled: a.settled,
	})
}

func (a *Agent) displace() {
	if !a.accepting {
		return
	}
	a.accepting = false // until a new wish to accept takes the place back
	a.emit(AgentAction{Op: AgentDisplaced})
	a.changed()
}

// hint is an unauthenticated word that the server does not know us. It only
// brings the next authenticated attempt forward, and not often.
func (a *Agent) hint() {
	if a.state != stateUp || a.now.Sub(a.hints) < hintPause {
		return
	}
	a.hints = a.now
	a.hello()
}

func (a *Agent) leave() {
	if a.state == stateUp {
		r := a.registration()
		r.Gone = true
		a.send(a.primary, a.seal(stun.NewType(wire.Refresh, stun.ClassRequest), a.transaction(), a.primary.nonce, r.Append(nil)))
	}
	a.state, a.servers, a.primary = stateIdle, nil, nil
	a.failAsks(ErrNoIntroduction)
}
