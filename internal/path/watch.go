package path

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"bodkin/punch"
)

const (
	// silence is how long a hole that we send into may be silent before it is
	// asked whether it lives, checkEvery how often it is asked in any case
	// while data flows: data proves no route, probes do.
	silence    = 250 * time.Millisecond
	checkEvery = 2 * time.Second
	checkPause = 500 * time.Millisecond
	// quietTime after the last data was sent a direct route is asked once more: a
	// side that only receives would not know that nothing comes any more.
	quietTime = time.Second
	// doubtTime is for how long that goes on while a route is in doubt.
	doubtTime = 15 * time.Second
	// relayEvery is how often the relay is measured while data takes a direct
	// route, relaySoon how often while it matters: beside a route that is lossy or
	// given up on, and in use.
	relayEvery = 30 * time.Second
	relaySoon  = 200 * time.Millisecond
	// lossy is the loss at which a direct route is compared with the relay.
	lossy = 0.08
	// sampleLife is how long measurements of the relay count.
	sampleLife = 10 * time.Second
	// A route that large packets do not pass is tried again, by probes, after narrowFirst,
	// then with pauses that double up to narrowLast; one that swallowed data, by data,
	// after swallowFirst and up to swallowLast, since that is missing then for a moment.
	// What went well for so long again is forgotten. Nothing is tried for nobody: only
	// within narrowIdle of data.
	narrowFirst  = 2 * time.Second
	narrowLast   = 30 * time.Second
	swallowFirst = 5 * time.Second
	swallowLast  = 5 * time.Minute
	narrowIdle   = 5 * time.Second
	// Direct routes that are lost within flapTime of each other have to prove
	// themselves, for maxProbation at the most.
	flapTime     = time.Minute
	maxProbation = 10 * time.Second
	// wideSize is the size of the probes that try it: that of the packets which QUIC
	// begins with. maxSize is the largest that it comes to.
	wideSize = 1232
	maxSize  = 1452
	// wideFrom is from which size on packets are such that a narrow route might
	// swallow.
	wideFrom = 400
)

// watch is what looking after a peer's routes has come to.
type watch struct {
	checked time.Time // when the route in use was last asked
	quiet   time.Time // when to ask, since nothing was sent any more
	sent    time.Time // when something last was
	burst   time.Time // since when something is, without a pause
	size    int       // how large
	narrow  map[Key]*narrow
	data    map[Key]*ledger
	relay   measure
	moves   uint32 // the latest that the peer said of itself
	losses  int    // of direct routes, each within flapTime of the one before
	lostAt  time.Time
	proved  time.Time // when a route that came and went has proved itself
}

// lost takes note that a direct route was lost.
func (w *watch) lost(now time.Time) {
	if now.Sub(w.lostAt) > flapTime {
		w.losses = 0
	}
	w.losses, w.lostAt = w.losses+1, now
}

// onProbation reports whether a direct route has to live for some time before it is
// used beside another one, since routes have come and gone, and says until when.
func (w *watch) onProbation(now time.Time) bool {
	if w.losses < 2 || now.Sub(w.lostAt) > flapTime {
		return false
	}
	w.proved = now.Add(min(time.Second<<min(w.losses-1, 5), maxProbation))
	return true
}

// narrow is a route that large packets do not pass, or data whatever its size.
type narrow struct {
	again  time.Time // when to try it
	pause  time.Duration
	passed time.Time // when it was found to be well again; zero: not yet
	tried  bool      // since it was set aside
	reason string
	data   bool // whatever its size
}

// setAside plans when a route is tried again.
func (n *narrow) setAside(now time.Time, data bool, reason string) {
	first, last := narrowFirst, narrowLast
	if data {
		first, last = swallowFirst, swallowLast
	}
	if n.pause == 0 || !n.passed.IsZero() && now.Sub(n.passed) > last {
		n.pause = first
	}
	n.again, n.pause = now.Add(n.pause), min(2*n.pause, last)
	n.passed, n.tried, n.reason, n.data = time.Time{}, false, reason, data
}

// measure is the round trip over a relay route.
type measure struct {
	asked   time.Time
	pending int // measurements that nothing has answered
	loss    float64
	rtt     time.Duration
	samples []time.Time // the latest ones
}

// active looks after the routes while data is being sent.
func (p *Peer) active(in Input) {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return r.Key == in.By })
	if i < 0 {
		return
	}
	if p.now.Sub(p.watch.sent) > checkPause {
		p.watch.burst = p.now // before it there was nothing to answer
	}
	p.watch.quiet, p.watch.sent, p.watch.size = p.now.Add(quietTime), p.now, in.Size
	r, since := p.routes[i], p.now.Sub(p.watch.checked)
	if in.Heard.Before(p.watch.burst) {
		in.Heard = p.watch.burst
	}
	silent := p.now.Sub(in.Heard) > max(silence, 3*r.RTT)
	if silent && since > checkPause {
		p.emit(Action{Op: Doubt})
	}
	p.measureRelay(r)
	if since <= checkPause || !silent && (p.now.Equal(p.watch.burst) || since <= checkEvery && in.Size < wideFrom) {
		return
	}
	p.checkAll(r, silent)
}

// checkAll asks the direct route in use. One that was left for the relay is asked,
// too: it may be better again. QUIC would begin there with its first packet size.
func (p *Peer) checkAll(inUse Route, urgent bool) {
	p.watch.checked = p.now
	for _, o := range slices.Clone(p.routes) {
		switch {
		case !o.Direct() || o.Narrow:
		case o.Key == inUse.Key:
			p.check(o.Key, p.watch.size, urgent)
		case !inUse.Direct():
			p.check(o.Key, min(p.watch.size, wideSize), urgent)
		}
	}
}

// quiet asks once more after the last data was sent: nothing may leave since nothing
// comes. While a route is in doubt it goes on for a while: QUIC waits longer and
// longer, and would not tell.
func (p *Peer) quiet() {
	p.watch.quiet = time.Time{}
	if len(p.routes) == 0 {
		return
	}
	r := p.routes[0]
	doubtful := r.Loss >= lossy || !r.Direct() && p.has(Route.Direct)
	if doubtful && p.now.Sub(p.watch.sent) < doubtTime {
		p.watch.quiet = p.now.Add(checkPause)
		p.measureRelay(r)
	}
	if p.now.Sub(p.watch.checked) >= checkPause {
		p.checkAll(r, false)
	}
}

// check asks a direct route whether it lives, and if data has the size for that,
// whether large packets pass. It is urgent if there is reason for doubt.
func (p *Peer) check(k Key, size int, urgent bool) {
	if size = min(size, maxSize); size < wideFrom {
		size = 0
	}
	for _, a := range p.attempts {
		p.step(a, punch.Input{Op: punch.Check, Local: k.Local, From: k.To, Size: size, Urgent: urgent})
	}
}

// setAside leaves a route that probes pass and other packets do not, large ones or data
// of any size, for as long as there is another one.
func (p *Peer) setAside(k Key, data bool) {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return r.Key == k })
	if i < 0 || p.routes[i].Narrow && data {
		return
	}
	reason := "large packets do not pass"
	if data {
		reason = "data does not arrive"
	}
	n := p.watch.narrow[k]
	if n == nil {
		n = new(narrow)
		if p.watch.narrow == nil {
			p.watch.narrow = make(map[Key]*narrow)
		}
		p.watch.narrow[k] = n
	}
	n.setAside(p.now, data, reason)
	if p.routes[i].Narrow {
		return
	}
	p.watch.lost(p.now)
	p.routes[i].Narrow = true
	if !p.rank() {
		p.publish()
	}
}

// widened takes note that large packets pass a route. One that swallowed data shows only
// under data whether it still does, and its time has to come.
func (p *Peer) widened(k Key) {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return r.Key == k })
	if i < 0 || !p.routes[i].Narrow {
		return
	}
	n := p.watch.narrow[k]
	if n.data && !n.tried {
		return
	}
	p.routes[i].Narrow, p.routes[i].Proving = false, p.watch.onProbation(p.now)
	n.again, n.passed = time.Time{}, p.now
	delete(p.watch.data, k) // what was lost is lost
	if !p.rank() {
		p.publish()
	}
}

// look does what looking after the routes has to do by now, and says when the next
// thing is.
func (p *Peer) look(earliest func(time.Time)) {
	due := func(t time.Time) bool { return !t.IsZero() && !p.now.Before(t) }
	w := &p.watch
	if due(w.quiet) {
		p.quiet()
	}
	earliest(w.quiet)
	if due(w.proved) {
		w.proved = time.Time{}
		p.prove()
	}
	earliest(w.proved)
	for _, r := range slices.Clone(p.routes) {
		n := w.narrow[r.Key]
		if n == nil || !r.Narrow {
			continue
		}
		if due(n.again) {
			if p.now.Sub(w.sent) > narrowIdle {
				continue // with the next data
			}
			n.again, n.tried = p.now.Add(n.pause), true // should nothing come of it
			p.check(r.Key, wideSize, false)
		}
		earliest(n.again)
	}
	gone := func(k Key) bool { return !p.has(func(r Route) bool { return r.Key == k }) }
	maps.DeleteFunc(w.narrow, func(k Key, _ *narrow) bool { return gone(k) })
	maps.DeleteFunc(w.data, func(k Key, _ *ledger) bool { return gone(k) })
}

// prove lets routes that came and went be used like others.
func (p *Peer) prove() {
	for i := range p.routes {
		p.routes[i].Proving = false
	}
	if !p.rank() {
		p.publish()
	}
}

// relayLocal numbers a relay channel as a socket, for an engine, which knows no
// channels; relayKey is the way back.
const relayLocal = punch.Relayed

func (p *Peer) relayKey(l punch.Local, to netip.AddrPort) Key {
	if l < relayLocal {
		return Key{Local: l, To: to}
	}
	if i := int(l - relayLocal); i < len(p.relays) {
		return p.relays[i]
	}
	return Key{}
}

func (p *Peer) engineLocal(k Key) punch.Local {
	if k.Channel == 0 {
		return k.Local
	}
	i := slices.Index(p.relays, k)
	if i < 0 {
		if len(p.relays) == maxRelays {
			p.relays = nil // what is measured by an old one is not heard of
		}
		i, p.relays = len(p.relays), append(p.relays, k)
	}
	return relayLocal + punch.Local(i)
}

// maxRelays bounds the relay channels of a peer that have numbers.
const maxRelays = 64

// measureRelay sends a probe around over the relay, now and then, to know what it is
// worth.
func (p *Peer) measureRelay(inUse Route) {
	m, every := &p.watch.relay, relayEvery
	i := slices.IndexFunc(p.routes, func(r Route) bool { return !r.Direct() })
	if i < 0 || len(p.attempts) == 0 {
		return
	}
	switch direct := p.has(Route.Direct); {
	case inUse.Direct() && inUse.Loss >= lossy, !inUse.Direct() && direct:
		every = relaySoon
	case !inUse.Direct():
		every = checkEvery
	}
	if p.now.Sub(m.asked) < every {
		return
	}
	if m.pending++; m.pending > 2 {
		m.loss += (1 - m.loss) / 8
	}
	p.probeRelay(p.routes[i].Key)
}

func (p *Peer) probeRelay(k Key) {
	p.watch.relay.asked = p.now
	a := p.attempts[0]
	for _, o := range p.attempts {
		if o.engine.Live() {
			a = o
			break
		}
	}
	p.step(a, punch.Input{Op: punch.Measure, Local: p.engineLocal(k), From: k.To, Moves: p.self.Moves})
}

// tellMoved tells the peer over the relay that we can be reached elsewhere: a side
// that was dialled cannot ask to be introduced. It says so once for each attempt that
// the two may still share, and not at all where there is none.
func (p *Peer) tellMoved() {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return !r.Direct() })
	if i < 0 {
		return
	}
	k := p.routes[i].Key
	for _, a := range slices.Clone(p.attempts) {
		p.step(a, punch.Input{Op: punch.Measure, Local: p.engineLocal(k), From: k.To, Moves: p.self.Moves})
	}
}

// noted takes what the peer says of its network over the relay: where that has
// changed since the last introduction, another one is due.
func (p *Peer) noted(moves uint32) {
	if moves <= p.watch.moves {
		return
	}
	p.watch.moves = moves
	p.recheck()
	if p.wanted && p.takeQuick() {
		p.askSoon(0)
	}
}

// measured takes a round trip over the relay.
func (p *Peer) measured(k Key, rtt time.Duration) {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return r.Key == k })
	if i < 0 {
		return
	}
	m := &p.watch.relay
	m.pending = 0
	m.loss -= m.loss / 8
	if m.rtt == 0 {
		m.rtt = rtt
	}
	m.rtt += (rtt - m.rtt) / 8
	m.samples = slices.DeleteFunc(append(m.samples, p.now), func(t time.Time) bool { return p.now.Sub(t) > sampleLife })
	r := &p.routes[i]
	r.RTT, r.Loss, r.Samples = m.rtt, p.lossOf(k, m.loss), len(m.samples)
	if !p.rank() {
		p.publish()
	}
}
