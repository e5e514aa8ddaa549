package rendezvous

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// setServers takes in where the server is. Endpoints that are not news change
// nothing.
func (a *Agent) setServers(endpoints []ServerEndpoint, streams []StreamEndpoint) {
	if a.cfg.NewStream == nil {
		streams = nil
	}
	same := len(endpoints)+len(streams) == len(a.servers) && !slices.ContainsFunc(a.servers, func(l *serverLeg) bool {
		if l.stream != nil {
			return !slices.Contains(streams, l.stream.StreamEndpoint)
		}
		return !slices.Contains(endpoints, l.ServerEndpoint)
	})
	if same && a.state != stateIdle {
		return
	}
	a.unlink()
	a.hangUp()
	a.servers, a.lead, a.state = nil, nil, stateIdle
	for _, e := range endpoints {
		a.servers = append(a.servers, &serverLeg{ServerEndpoint: e})
	}
	for _, e := range streams {
		a.servers = append(a.servers, &serverLeg{stream: &streamLeg{StreamEndpoint: e}})
	}
	a.failures, a.reported = 0, false
	if len(a.servers) > 0 {
		a.hello(0)
	}
}

// hangUp closes all connections.
func (a *Agent) hangUp() {
	for _, l := range a.servers {
		if l.stream != nil {
			a.disconnect(l)
		}
	}
}

// hello begins a registration: a Register without NONCE to every endpoint of the
// server, after a pause. The first that is answered leads.
func (a *Agent) hello(after time.Duration) {
	a.state, a.lead, a.box = stateHello, nil, nil
	a.raced = a.now.Add(after)
	for _, l := range a.servers {
		if !l.usable() {
			continue
		}
		l.id, l.nonce, l.tries, l.led = a.transaction(), nil, 0, false
		if l.nextAt = a.now.Add(after); after == 0 {
			a.sayHello(l)
		}
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

// prove sends a Register with NONCE and BOX: who we are, for the server alone. A
// BOX is good for one NONCE.
func (a *Agent) prove(l *serverLeg) {
	if a.box == nil || !bytes.Equal(a.boxNonce, l.nonce) {
		a.counter++
		l.id, l.tries = a.transaction(), 0
		box, err := wire.SealRegister(a.cfg.Key, a.cfg.Server, l.id, l.nonce, a.registration())
		if err != nil {
			a.emit(AgentAction{Op: AgentFailed, Err: err})
			return
		}
		a.box, a.boxNonce, a.dirty, a.epoch = box, l.nonce, false, wire.Epoch(a.now)
	}
	a.sent(l)
	a.send(l, wire.AppendRegister(nil, l.id, l.nonce, a.box))
}

// refresh keeps a leg alive, or attaches it, and tells the server what is new.
func (a *Agent) refresh(l *serverLeg) {
	if l.tries == 0 {
		l.id = a.transaction()
	}
	var content wire.Attrs
	if a.dirty && l == a.primary {
		content = a.registration().Append(nil)
		a.dirty, a.epoch = false, wire.Epoch(a.now)
	}
	a.sent(l)
	a.send(l, a.seal(stun.NewType(wire.Refresh, stun.ClassRequest), l.id, l.nonce, content))
}

// due does what a leg has to do by now: try again, or keep alive.
func (a *Agent) due(l *serverLeg) {
	switch {
	case l.stream != nil && l.tries >= a.enough(l):
		a.emit(AgentAction{Op: AgentDisconnect, To: l.ServerEndpoint})
		a.disconnected(l.Local, nil)
	case a.state == stateHello && l.nonce == nil:
		a.silent(l)
		a.sayHello(l)
	case a.state == stateProving && l == a.lead:
		switch other := a.otherLead(); {
		case l.tries >= leadTries && other != nil:
			a.lead, other.led, l.nextAt = other, true, time.Time{}
			a.prove(other)
		case l.tries >= proveTries:
			a.unproved()
		default:
			a.prove(l)
		}
	case a.state == stateProving && l.nonce == nil:
		a.sayHello(l)
	case a.state == stateUp && l.tries >= a.enough(l):
		if l == a.primary {
			a.lost()
		} else {
			l.tries, l.nextAt = 0, a.now.Add(a.rests(l))
		}
	case a.state == stateUp:
		if l.tries > 0 && l == a.primary {
			a.dirty = true // the try that said it may not have arrived
		}
		a.refresh(l)
	default:
		l.nextAt = time.Time{}
	}
}

// enough is how many tries without an answer are.
func (a *Agent) enough(l *serverLeg) int {
	switch {
	case l.stream != nil:
		return streamTries
	case a.primary.stream != nil:
		return retriesOverUDP
	}
	return refreshTries
}

// rests is how long a leg is left alone that nothing answered. UDP, where there is a
// connection in its place, is tried again sooner at first: it may have been a moment.
func (a *Agent) rests(l *serverLeg) time.Duration {
	if a.primary.stream == nil {
		return secondLegPause
	}
	l.rest = min(max(2*l.rest, firstRest), secondLegPause)
	return l.rest
}

// otherLead is a leg that could lead in the place of the one that does, or nil: the
// server has answered by it, and it has not led yet.
func (a *Agent) otherLead() *serverLeg {
	for _, l := range a.servers {
		if l != a.lead && l.usable() && l.nonce != nil && !l.led {
			return l
		}
	}
	return nil
}

// silent counts hellos without an answer, and says so in time.
func (a *Agent) silent(l *serverLeg) {
	if l.tries < helloTries {
		return
	}
	a.noServer()
}

// noServer says that nothing answers, and looks now and then whether the server has
// moved.
func (a *Agent) noServer() {
	a.unlink()
	if a.silentFor++; a.silentFor%(4*len(a.servers)) == 1 {
		a.emit(AgentAction{Op: AgentResolve})
	}
	err := ErrNoServer
	if a.streamErr != nil {
		err = fmt.Errorf("%w (%w)", err, a.streamErr)
	}
	a.report(err)
}

// unproved counts Registers that nothing answered though hellos were, and begins
// again, each time later.
func (a *Agent) unproved() {
	if a.failures++; a.failures >= failedTries {
		a.unlink()
		a.report(ErrWrongServer)
	}
	var pause time.Duration
	if a.failures >= failedTries {
		pause = min(time.Second<<min(a.failures-failedTries, 5), 30*time.Second)
	}
	a.hello(pause)
}

// report says once why the server does not know us.
func (a *Agent) report(err error) {
	if !a.reported {
		a.reported = true
		a.emit(AgentAction{Op: AgentFailed, Err: err})
	}
}

// lost begins anew, and looks whether the server has moved.
func (a *Agent) lost() {
	a.unlink()
	a.emit(AgentAction{Op: AgentResolve})
	a.hello(0)
}

// unlink gives the registration up.
func (a *Agent) unlink() {
	if a.primary == nil {
		return
	}
	a.primary, a.said = nil, nil
	for _, l := range a.servers {
		l.attached = false
	}
	a.emit(AgentAction{Op: AgentLost})
	a.failRequests()
}

// challenged takes a NONCE: an answer that nobody has authenticated, which changes
// nothing but what we send next, and only now and then when.
func (a *Agent) challenged(l *serverLeg, nonce []byte) {
	if bytes.Equal(l.nonce, nonce) {
		return
	}
	l.nonce = bytes.Clone(nonce)
	soon := a.now.Sub(l.challenged) >= hintPause
	switch {
	case a.state == stateHello:
		l.nextAt, l.challenged = time.Time{}, a.now
		a.lead, a.state, l.led = l, stateProving, true
		a.measure(l)
		a.prove(l)
	case a.state == stateProving && l == a.lead:
		if soon {
			l.challenged = a.now
			a.prove(l)
		}
	case a.state == stateProving:
		l.nextAt = time.Time{}
	case a.state == stateUp && soon:
		// Our endpoint is another one now, or this leg has yet to attach.
		l.challenged, l.tries = a.now, 0
		a.dirty = a.dirty || l == a.primary
		a.refresh(l)
	default: // the next try has it
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
		a.stats.Forged++
		return
	}
	r, err := wire.ParseRegistered(content)
	if err != nil {
		a.stats.Malformed++
		return
	}
	a.primary, a.handle, a.keys, a.window, a.sequence = l, e.Handle, keys, wire.Window{}, 0
	a.byStream, a.streamErr = l.stream != nil, nil
	a.window.Take(e.Sequence)
	a.state, a.failures, a.silentFor, a.reported = stateUp, 0, 0, false
	a.box = nil
	again := a.wasUp && r.Flags&wire.FlagKept == 0
	a.wasUp = true
	a.measure(l)
	a.alive(l)
	if again {
		a.forgetChannels()
	}
	for _, q := range a.requests {
		q.tries, q.nextAt = 0, a.now // nothing sealed before is any good
	}
	a.openPlates()
	a.settled, a.revision, a.said = false, 0, nil // all of it is news
	a.say(l, r, again)
	for _, other := range a.servers {
		if other.attached = other == l; other != l && other.usable() {
			other.tries = 0
			a.refresh(other)
		}
	}
	if a.dirty {
		a.refresh(l)
	}
}

// alive notes that a leg's request was answered.
func (a *Agent) alive(l *serverLeg) {
	l.tries, l.attached, l.rest = 0, true, 0
	if l.stream != nil {
		l.stream.failures = 0
	}
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
	if !again && settled == a.settled && a.revision == r.Revision && a.said == a.primary &&
		slices.Equal(a.observed, r.Observed) && slices.Equal(a.observedTCP, r.ObservedTCP) {
		return
	}
	a.revision, a.observed, a.observedTCP, a.settled = r.Revision, r.Observed, r.ObservedTCP, a.settled || settled
	a.said = a.primary
	s := a.primary.stream
	a.emit(AgentAction{
		Op: AgentRegistered, To: a.primary.ServerEndpoint, Registered: r, Again: again, Settled: a.settled,
		Stream: s != nil, TLS: s != nil && s.TLS, ICMP: s != nil && s.ICMP, RTT: a.primary.rtt,
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
// brings the next authenticated attempt forward, and not often; what we have
// stays until that says otherwise.
func (a *Agent) hint() {
	if a.state != stateUp || a.now.Sub(a.hints) < hintPause {
		return
	}
	a.hints = a.now
	a.hello(0)
}

// nudge is an unauthenticated word that the server does not know our endpoint: it
// brings the next refresh forward.
func (a *Agent) nudge(l *serverLeg) {
	if a.state != stateUp || l.tries > 0 || a.now.Sub(l.nudged) < hintPause {
		return
	}
	l.nudged = a.now
	a.refresh(l)
}

// doubt brings a leg's next refresh forward, or, where the server has been silent, the
// next hello: it may be there again.
func (a *Agent) doubt(l *serverLeg) {
	if !l.usable() || a.now.Sub(l.doubted) < doubtPause {
		return
	}
	switch {
	case a.state == stateUp && l.tries == 0:
		l.doubted = a.now
		a.refresh(l)
	case a.state == stateHello && l.stream == nil && l.nonce == nil && a.now.Sub(l.sentAt) >= doubtPause:
		l.doubted, l.nextAt = a.now, a.now
	}
}

func (a *Agent) leave() {
	if l := a.primary; l != nil {
		r := a.registration()
		r.Gone = true
		a.send(l, a.seal(stun.NewType(wire.Refresh, stun.ClassRequest), a.transaction(), l.nonce, r.Append(nil)))
		a.primary, a.said = nil, nil
		a.failRequests()
	}
	a.state, a.servers, a.lead, a.wasUp = stateIdle, nil, nil, false
	a.plates = nil
	clear(a.channels)
}
