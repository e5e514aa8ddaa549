package punch

import (
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"
)

// Failure is why there is no connection.
type Failure uint8

// Failures.
const (
	Refused     Failure = iota + 1 // a reset came back
	NoWay                          // an ICMP error did
	TimedOut                       // nothing did
	Busy                           // the endpoints have a connection, or no port is left
	Unsupported                    // this system cannot do it
	Ended                          // there was a connection, and it is over
	Taken                          // it carries something else from now on
)

var failureNames = [...]string{"none", "refused", "no way there", "timed out", "busy", "unsupported", "ended", "taken"}

// String is a word for it.
func (f Failure) String() string {
	if int(f) < len(failureNames) {
		return failureNames[f]
	}
	return "none"
}

// dial is one of the peer's TCP endpoints, and our connecting to it again and again
// from one of our ports, until there is a route. When both connect at once the SYNs
// cross (simultaneous open, RFC 9293 §3.5): each NAT has been opened from inside.
type dial struct {
	port   Local
	to     target
	tactic int
	conn   Local     // the connect under way; 0: none
	began  time.Time // when it was asked for
	nextAt time.Time // of the next connect, or when the one under way is given up
	tries  int
	left   int // connects that are still allowed
	shot   bool
}

const (
	// dialTime is how long one connect may take: the system repeats the SYN after one
	// and three seconds. A jitter of as much as dialJitter keeps two sides that fail
	// in step from failing in step again.
	dialTime   = 3500 * time.Millisecond
	dialJitter = time.Second
	// A connect that was refused came too early, or too late: where routers answer
	// with resets, both SYNs must be under way at once. The next one follows within
	// redialTrips round trips, at random, and that is soonest and latest.
	redialTrips = 2
	redialFirst = 10 * time.Millisecond
	redialLast  = 300 * time.Millisecond
	// busyPause is how long a connect waits whose endpoints are in use.
	busyPause = 150 * time.Millisecond
	// attemptDials bounds the connects of one attempt, and secondDials those in a
	// second; shots have bounds of their own.
	attemptDials = 100
	secondDials  = 25
	// privateDials bounds the connects to a private endpoint.
	privateDials = 4
	// newcomerProbes are what a connection gets that has not proved to be the peer's,
	// one every newcomerPause.
	newcomerProbes = 3
	newcomerPause  = time.Second
	// tcpKeepalive holds a connection in NATs and firewalls that forget much sooner
	// than RFC 5382 REQ-5 lets them.
	tcpKeepalive = time.Minute
	// What is lost of a connection is sent again by the system, after 200 ms at the
	// soonest: an answer that is late says little.
	// shotTime is how long a connect may take that is one of many, shotTries how often
	// it is made, and secondConnects how many are begun in a second.
	shotTime       = 1400 * time.Millisecond
	shotTries      = 3
	secondConnects = 150
	tcpCheck       = 300 * time.Millisecond
	tcpLossTries   = 4
)

// addDials pairs every port with every TCP endpoint of its family.
func (e *Engine) addDials() {
	if len(e.tcpTargets) == 0 {
		return
	}
	t := e.tactics[e.plainTCP()]
	for _, to := range e.tcpTargets {
		for _, p := range e.ports {
			if p.is4 != to.endpoint.Addr().Is4() || slices.ContainsFunc(e.dials, func(d *dial) bool { return d.port == p.local && d.to.endpoint == to.endpoint }) {
				continue
			}
			e.dials = append(e.dials, e.newDial(t, p.local, to))
		}
	}
}

func (e *Engine) newDial(t Tactic, port Local, to target) *dial {
	begin := e.started.Add(t.After)
	if to.kind == Host {
		return &dial{port: port, to: to, tactic: e.plainTCP(), left: privateDials, nextAt: begin}
	}
	return &dial{
		port: port, to: to, tactic: e.plainTCP(), left: min(to.limit, attemptDials), nextAt: begin.Add(e.together()),
	}
}

// addShots prepares the connects of tactics that guess ports.
func (e *Engine) addShots() {
	main, to := e.main4TCP(), endpoint4(e.cfg.Other.byTCP())
	if main == 0 || len(e.tcpTargets) == 0 {
		return
	}
	for i, t := range e.tactics {
		if t.Transport != TCP || t.Name == PlainTCP || e.outcomes[i].Result == Postponed {
			continue
		}
		begin := e.started.Add(t.After + e.together())
		add := func(port Local, to netip.AddrPort) {
			e.dials = append(e.dials, &dial{port: port, to: target{to, Predicted, noLimit}, tactic: i, left: shotTries, nextAt: begin, shot: true})
		}
		for range t.Sockets {
			add(0, to)
		}
		for _, port := range t.Aim.ports(t.Shots, e.cfg.Rand) {
			add(main, netip.AddrPortFrom(to.Addr(), port))
		}
		e.connectPace = newPace(secondConnects)
	}
}

// main4TCP is our TCP port of IPv4; 0 if there is none.
func (e *Engine) main4TCP() Local {
	for _, p := range e.ports {
		if p.is4 {
			return p.local
		}
	}
	return 0
}

// plainTCP is the place of that tactic in the race.
func (e *Engine) plainTCP() int {
	return max(0, slices.IndexFunc(e.tactics, func(t Tactic) bool { return t.Name == PlainTCP }))
}

// together is how long we wait so that both dial at the same moment: the server
// introduced both at once, and each was told half its own round trip later.
func (e *Engine) together() time.Duration {
	us, them := e.cfg.Self.ServerRTT, e.cfg.Other.ServerRTT
	if us == 0 || them <= us {
		return 0
	}
	return min((them-us)/2, time.Second)
}

// connect does what is due of the connects, and returns when the next thing is.
func (e *Engine) connect() (next time.Time) {
	if !e.probing() {
		return time.Time{}
	}
	for _, d := range e.dials {
		e.redial(d)
		if !d.nextAt.IsZero() && (next.IsZero() || d.nextAt.Before(next)) {
			next = d.nextAt
		}
	}
	return next
}

// redial gives up a connect that takes too long, and begins the next one.
func (e *Engine) redial(d *dial) {
	if d.nextAt.IsZero() || e.now.Before(d.nextAt) {
		return
	}
	if d.conn != 0 {
		e.hangUp(d.conn)
		d.conn, d.nextAt = 0, e.now
	}
	switch {
	case e.won >= TCP:
		d.nextAt = time.Time{} // there is a route
	case e.connected(d):
		d.nextAt = e.now.Add(busyPause)
	case d.left == 0 || !d.shot && e.connects >= attemptDials:
		d.nextAt = time.Time{}
	case d.shot && !e.connectPace.take(e.now):
		d.nextAt = e.connectPace.free()
	case !d.shot && !e.dialPace.take(e.now):
		d.nextAt = e.dialPace.free()
	default:
		d.left--
		d.tries++
		e.dial(d)
		d.nextAt = e.now.Add(e.patience(d))
	}
}

// patience is how long a connect may take.
func (e *Engine) patience(d *dial) time.Duration {
	if d.shot && d.port != 0 {
		return shotTime + e.jitter(shotTime/8)
	}
	return dialTime + e.jitter(dialJitter)
}

// dial asks for one connect.
func (e *Engine) dial(d *dial) {
	d.conn, d.began = e.cfg.NewLocal(TCP), e.now
	e.extra = append(e.extra, d.conn)
	if d.shot {
		e.tcpShots++
	} else {
		e.connects++
	}
	e.report.Sent++
	e.outcomes[d.tactic].Sent++
	e.emit(Action{Op: Connect, Local: d.conn, Port: d.port, To: d.to.endpoint})
}

// jitter is a random time of up to d.
func (e *Engine) jitter(d time.Duration) time.Duration {
	var b [4]byte
	_, _ = io.ReadFull(e.cfg.Rand, b[:])
	return time.Duration(uint64(binary.BigEndian.Uint32(b[:])) * uint64(d) >> 32)
}

// connected reports whether a connection with a dial's endpoint stands.
func (e *Engine) connected(d *dial) bool {
	return slices.ContainsFunc(e.pairs, func(p *pair) bool {
		return p.local.Transport() == TCP && p.remote == d.to.endpoint
	})
}

// isConnected takes a connection in: one that we asked for, or that another Engine of
// the same peer did. It proves nothing yet, and is probed at once.
func (e *Engine) isConnected(in Input) {
	l, from := in.Local, unmap(in.From)
	if e.pair(l, from) != nil {
		return
	}
	p := &pair{local: l, remote: from, kind: PeerReflexive, limit: newcomerProbes, tactic: e.plainTCP(), nextAt: e.now}
	for _, d := range e.dials {
		if d.conn == l {
			// The way there and back has brought numbers of ours with it.
			p.kind, p.tactic, p.rtt, p.rough = d.to.kind, d.tactic, max(e.now.Sub(d.began), 1), true
			d.conn, d.nextAt = 0, e.now.Add(busyPause)
		}
	}
	if e.stopped && p.rtt > 0 || len(e.pairs) >= maxPairs {
		e.hangUp(l)
		return
	}
	e.pairs = append(e.pairs, p)
}

// hasFailed takes note that a connect failed, or that a connection is over.
func (e *Engine) hasFailed(l Local, why Failure) {
	e.extra = slices.DeleteFunc(e.extra, func(x Local) bool { return x == l })
	e.pairs = slices.DeleteFunc(e.pairs, func(p *pair) bool {
		if p.local == l && p.state == confirmed {
			e.emit(Action{Op: Lost, Local: l, To: p.remote, Kind: p.kind, Spare: why == Taken})
		}
		return p.local == l
	})
	for _, d := range e.dials {
		if d.conn == l {
			d.conn = 0
			d.nextAt = e.now.Add(e.pauseAfter(d, why))
		}
	}
}

// pauseAfter is how long a dial waits after a connect that failed.
func (e *Engine) pauseAfter(d *dial, why Failure) time.Duration {
	switch why {
	case Busy:
		d.left++
		return busyPause + e.jitter(busyPause)
	case Unsupported:
		d.left = 0
		return 0
	default:
	}
	trip := min(max(e.now.Sub(d.began), redialFirst), redialLast)
	return e.jitter(redialTrips * trip)
}

// hangUp ends a connection, or a connect, of ours.
func (e *Engine) hangUp(l Local) {
	if i := slices.Index(e.extra, l); i >= 0 {
		e.extra = slices.Delete(e.extra, i, i+1)
		e.emit(Action{Op: Unbind, Local: l})
	}
}

// spare closes the connections beyond the one that is kept. When several came up both
// sides must keep the same: the one of the smaller ID chooses, the other one sees the
// rest end.
func (e *Engine) spare() {
	if string(e.cfg.Self.ID[:]) > string(e.cfg.Other.ID[:]) {
		return
	}
	var best *pair
	for _, p := range e.pairs {
		if p.local.Transport() == TCP && p.state == confirmed && (best == nil || preferred(p, best)) {
			best = p
		}
	}
	if best == nil {
		return
	}
	for _, p := range slices.Clone(e.pairs) {
		if p.local.Transport() == TCP && p != best {
			e.dropConnection(p, true)
		}
	}
}

// preferred reports whether one of two connections is to be kept: within a link rather
// than through routers, and of two alike the earlier.
func preferred(p, other *pair) bool {
	if (p.kind == Host) != (other.kind == Host) {
		return p.kind == Host
	}
	return p.local < other.local
}

// dropConnection closes a connection, which may have been a route.
func (e *Engine) dropConnection(p *pair, spare bool) {
	e.pairs = slices.DeleteFunc(e.pairs, func(x *pair) bool { return x == p })
	if p.state == confirmed {
		e.emit(Action{Op: Lost, Local: p.local, To: p.remote, Kind: p.kind, Spare: spare})
	}
	e.hangUp(p.local)
}
