package rendezvous

import (
	"net/netip"
	"slices"
	"time"
)

// Over TCP and TLS a node says the same as over UDP, where the network lets nothing
// else through. Connections are opened a little later than UDP is tried, and one is
// enough: the first by which the server answers. UDP is tried again now and then, and
// taken back when it works.

const (
	// headStart is how long UDP has before the first connection is opened, and TCP
	// before TLS.
	headStart = 300 * time.Millisecond
	// headOfPings is how long everything else has before pings.
	headOfPings = 1500 * time.Millisecond
	// doubtfulTries of a refresh without an answer open a connection beside UDP.
	doubtfulTries = 3
	// retriesOverUDP are those of a node that has a connection.
	retriesOverUDP = 3
	// firstRest is how long UDP is left alone first where a connection works; each time
	// twice as long, up to secondLegPause.
	firstRest = 2 * time.Second
	// streamTries without an answer mean that a connection leads nowhere: what is lost,
	// TCP repeats by itself.
	streamTries = 5
	// streamLinger is how long a connection stays that is not needed any more.
	streamLinger = 30 * time.Second
	// redialFirst and redialMax are the pauses after connections that failed, with a
	// quarter of jitter: those of a server that was restarted do not all come at once.
	redialFirst = 500 * time.Millisecond
	redialMax   = 30 * time.Second
)

// StreamEndpoint is where the server takes connections.
type StreamEndpoint struct {
	// Addr is invalid where the driver finds the way by the server's name: through
	// a proxy that looks it up.
	Addr netip.AddrPort
	TLS  bool
	// ICMP says that it is no connection at all, but pings: where nothing else gets
	// through.
	ICMP bool
}

// streamState is how far a connection is.
type streamState uint8

const (
	streamClosed streamState = iota
	streamDialling
	streamOpen
)

// streamLeg is what a serverLeg has of a connection.
type streamLeg struct {
	StreamEndpoint
	state    streamState
	dialAt   time.Time // when to connect; zero: not
	closeAt  time.Time // when to hang up; zero: not
	failures int       // since the server last answered
}

// usable reports whether packets can leave by the leg.
func (l *serverLeg) usable() bool { return l.stream == nil || l.stream.state == streamOpen }

// via is the leg of a packet's source.
func (a *Agent) via(local uint32, from netip.AddrPort) *serverLeg {
	for _, l := range a.servers {
		if l.stream != nil && l.stream.state == streamOpen && l.Local == local {
			return l
		}
	}
	for _, l := range a.servers {
		if l.stream == nil && l.Addr == from {
			return l
		}
	}
	return nil
}

// wantStream reports whether there should be a connection now.
func (a *Agent) wantStream() bool {
	switch {
	case a.state == stateIdle:
		return false
	case a.state != stateUp || a.primary.stream != nil:
		return true
	}
	return a.keepStream || a.primary.tries >= doubtfulTries
}

// attached is the connection by which the server has answered, or nil.
func (a *Agent) attached() *serverLeg {
	i := slices.IndexFunc(a.servers, func(l *serverLeg) bool { return l.stream != nil && l.attached })
	if i < 0 {
		return nil
	}
	return a.servers[i]
}

// runStreams opens and closes connections, and returns when the next is due.
func (a *Agent) runStreams() (next time.Time) {
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	want, attached := a.wantStream(), a.attached()
	racing := want && attached == nil
	if racing && !a.racing && a.state == stateUp {
		a.raced = a.now
	}
	if a.racing = racing; racing {
		a.race()
	}
	for _, l := range a.servers {
		s := l.stream
		if s == nil {
			continue
		}
		switch spare := !want || attached != nil && l != attached; {
		case !spare:
			s.closeAt = time.Time{}
			if !s.dialAt.IsZero() && !a.now.Before(s.dialAt) {
				a.connect(l)
			}
		case s.state == streamOpen && l == attached:
			if s.closeAt.IsZero() {
				s.closeAt = a.now.Add(streamLinger)
			}
			if !a.now.Before(s.closeAt) {
				a.disconnect(l)
			}
		default:
			a.disconnect(l)
		}
		earliest(s.dialAt)
		earliest(s.closeAt)
	}
	return next
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// race plans connections where none is planned or under way: one kind after the other.
func (a *Agent) race() {
	kinds := []func(*serverLeg) bool{
		func(l *serverLeg) bool { return l.stream == nil },
		func(l *serverLeg) bool { return l.stream != nil && !l.stream.TLS && !l.stream.ICMP },
		func(l *serverLeg) bool { return l.stream != nil && l.stream.TLS },
		func(l *serverLeg) bool { return l.stream != nil && l.stream.ICMP },
	}
	start := a.raced
	for i, of := range kinds {
		any := false
		for _, l := range a.servers {
			if !of(l) {
				continue
			}
			if l.stream != nil && l.stream.ICMP {
				if a.state == stateUp && a.primary.stream == nil && a.primary.tries < doubtfulTries {
					continue // it is our TCP that the server is to see
				}
				start = later(start, a.raced.Add(headOfPings))
			}
			any = true
			if s := l.stream; s != nil && s.state == streamClosed && s.dialAt.IsZero() {
				s.dialAt = start
			}
		}
		// Where UDP did not work a moment ago, nothing waits for it.
		if any && (i > 0 || a.state != stateUp && !a.byStream) {
			start = start.Add(headStart)
		}
	}
}

// connect opens a connection.
func (a *Agent) connect(l *serverLeg) {
	l.Local, l.Addr = a.cfg.NewStream(), l.stream.Addr
	l.stream.state, l.stream.dialAt = streamDialling, time.Time{}
	a.emit(AgentAction{Op: AgentConnect, To: l.ServerEndpoint, TLS: l.stream.TLS, ICMP: l.stream.ICMP})
}

// disconnect closes a connection, and opens it no more.
func (a *Agent) disconnect(l *serverLeg) {
	s := l.stream
	if s.state != streamClosed {
		a.emit(AgentAction{Op: AgentDisconnect, To: l.ServerEndpoint})
	}
	a.closed(l)
	s.dialAt, s.failures = time.Time{}, 0
}

// closed takes note that a connection is there no more.
func (a *Agent) closed(l *serverLeg) {
	l.stream.state, l.stream.closeAt = streamClosed, time.Time{}
	l.attached, l.nonce, l.tries, l.nextAt = false, nil, 0, time.Time{}
	l.id = a.transaction() // nothing on it answers anything any more
}

// connected takes a connection: it says what there is to say.
func (a *Agent) connected(local uint32, remote netip.AddrPort) {
	for _, l := range a.servers {
		if l.stream == nil || l.stream.state != streamDialling || l.Local != local {
			continue
		}
		l.stream.state, l.Addr = streamOpen, remote
		l.nonce, l.tries, l.challenged = nil, 0, time.Time{}
		switch a.state {
		case stateUp:
			a.refresh(l)
		case stateHello, stateProving:
			l.id = a.transaction()
			a.sayHello(l)
		default: // it closes with the next step
		}
	}
}

// disconnected takes note that a connection failed or ended. It is opened again, later
// each time; if the registration went by it, at once.
func (a *Agent) disconnected(local uint32, err error) {
	for _, l := range a.servers {
		if l.stream == nil || l.stream.state == streamClosed || l.Local != local {
			continue
		}
		s := l.stream
		if err != nil && s.state == streamDialling {
			a.streamErr = err
		}
		pause := redialFirst << min(s.failures, 6)
		if s.failures++; l.attached {
			pause, s.failures = redialFirst/2, 1 // it has worked
		}
		a.closed(l)
		s.dialAt = a.now.Add(a.jittered(min(pause, redialMax)))
		switch l {
		case a.primary:
			a.lost()
		case a.lead:
			a.hello(0)
		default:
			a.silentStreams()
		}
	}
}

// silentStreams says in time that there is no way to the server, where there is no
// UDP to tell it.
func (a *Agent) silentStreams() {
	if a.state == stateUp || slices.ContainsFunc(a.servers, func(l *serverLeg) bool {
		return l.stream == nil || l.stream.failures == 0
	}) {
		return
	}
	a.noServer()
}

// jittered is d, or up to a quarter more.
func (a *Agent) jittered(d time.Duration) time.Duration {
	var b [1]byte
	_, _ = a.cfg.Rand.Read(b[:])
	return d + d/4*time.Duration(b[0])/255
}

// prefer makes l the leg that the registration goes by.
func (a *Agent) prefer(l *serverLeg) {
	a.primary, a.byStream = l, l.stream != nil
	l.tries = 0
	a.dirty, a.settled = true, false
	a.refresh(l)
}

// choose looks whether the registration should go by another leg, now that l answered:
// by UDP if that works, and by a connection if it does not.
func (a *Agent) choose(l *serverLeg) {
	if p := a.primary; l != p && (l.stream == nil && p.stream != nil || l.stream != nil && p.tries >= doubtfulTries) {
		a.prefer(l)
	}
}
