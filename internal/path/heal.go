package path

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/punch"
)

// Kind says what happened to a peer.
type Kind uint8

// Kinds of happenings.
const (
	WasIntroduced Kind = iota + 1 // the server named the peer's Endpoints
	RouteUp                       // Route is confirmed
	RouteDown                     // Route is lost, for a Reason
	Switched                      // Route is the best one now; Old was
	Failed                        // the introduction failed, with Err
	Restarted                     // the peer's process is another one now
	AttemptEnded                  // an attempt is over, with its Report
	Accounted                     // the Account of the peer is another now
)

// Happening is an event in the life of a peer.
type Happening struct {
	Kind      Kind
	Route     Route
	Old       Route
	Endpoints []netip.AddrPort
	Reason    string
	Report    *punch.Report
	Account   *Account
	Err       error
}

func (p *Peer) event(h Happening) { p.emit(Action{Op: Event, Event: h}) }

// step steps one engine and passes on what it wants.
func (p *Peer) step(a *attempt, in punch.Input) {
	var out []punch.Action
	out, a.next = a.engine.Step(p.now, in, nil)
	for _, o := range out {
		key := p.relayKey(o.Local, o.To)
		switch o.Op {
		case punch.Send:
			p.emit(Action{Op: Send, By: key, TTL: o.TTL, Data: o.Data})
		case punch.Heard:
			p.hear(key)
		case punch.Confirmed:
			known := p.has(func(r Route) bool { return r.Key == key })
			p.told(key, o.Count)
			p.confirmed(Route{Key: key, Kind: o.Kind, RTT: o.RTT, Loss: p.lossOf(key, o.Loss), Since: p.now})
			if !known {
				p.account(a)
			}
		case punch.Lost:
			p.lost(key, o.Spare)
		case punch.Narrow:
			p.setAside(key, false)
		case punch.Wide:
			p.widened(key)
		case punch.Measured:
			p.told(key, o.Count)
			p.measured(key, o.RTT)
		case punch.Noted:
			p.noted(o.Moves)
		case punch.Bind:
			p.emit(Action{Op: Bind, By: key})
		case punch.Connect:
			p.emit(Action{Op: Connect, By: key, Port: o.Port})
		case punch.Unbind:
			if !slices.ContainsFunc(p.attempts, func(b *attempt) bool { return b != a && b.engine.Adopt(o.Local) }) {
				p.emit(Action{Op: Unbind, By: key})
			}
		case punch.Done:
			p.event(Happening{Kind: AttemptEnded, Report: o.Report})
			if a == p.counts || !p.has(Route.Direct) && !a.told.Began.Before(p.counts.told.Began) {
				p.account(a)
			}
		default: // inputs
		}
	}
}

// lost takes note that an attempt has lost a route.
func (p *Peer) lost(k Key, spare bool) {
	switch {
	case p.kept(k):
	case spare:
		p.removeRoute(k, "another connection is kept")
	case k.Transport() == punch.TCP:
		p.removeRoute(k, "the connection is over")
		p.emit(Action{Op: Doubt})
	default:
		p.removeRoute(k, "no answer")
		p.emit(Action{Op: Doubt})
	}
}

// kept reports whether an attempt keeps a direct route alive. Several may: which
// of them the peer has confirmed is not known here.
func (p *Peer) kept(k Key) bool {
	return slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.engine.Has(k.Local, k.To) })
}

// confirmed takes a route in, or its new round trip.
func (p *Peer) confirmed(r Route) {
	if i := slices.IndexFunc(p.routes, func(o Route) bool { return o.Key == r.Key }); i >= 0 {
		p.routes[i].RTT, p.routes[i].Loss = r.RTT, r.Loss
		if !p.rank() {
			p.publish()
		}
		return
	}
	r.Proving = p.watch.onProbation(p.now)
	p.addRoute(r)
	if p.content() {
		p.ask.again = time.Time{}
	}
	// What older attempts look for is found.
	for _, a := range slices.Clone(p.attempts) {
		if !a.engine.Probing() && !a.engine.Live() {
			p.step(a, punch.Input{Op: punch.Close})
		}
	}
}

// content reports whether there is a direct route by the best transport that the two can
// punch by, as far as the latest introduction tells: a better one may be possible later.
func (p *Peer) content() bool {
	best := punch.Relay
	if len(p.attempts) > 0 {
		for _, t := range punch.Plan(p.attempts[0].told.Self, p.attempts[0].told.Other) {
			best = max(best, t.Transport)
		}
	}
	return p.has(func(r Route) bool { return r.Direct() && r.Transport() >= best })
}

// addRoute takes a new route in, and reports whether it was new.
func (p *Peer) addRoute(r Route) bool {
	if p.has(func(o Route) bool { return o.Key == r.Key }) {
		return false
	}
	p.hear(r.Key)
	p.event(Happening{Kind: RouteUp, Route: r})
	p.routes = append(p.routes, r)
	if len(p.routes) == 1 {
		p.event(Happening{Kind: Switched, Route: r, Reason: "first"})
	}
	if !p.rank() {
		p.publish()
	}
	return true
}

// hear opens a source for data of the peer. The oldest one that is no route is
// closed when there are too many: a peer that roams leaves them behind.
func (p *Peer) hear(k Key) {
	if slices.Contains(p.heard, k) {
		return
	}
	if len(p.heard) >= maxHeard {
		i := slices.IndexFunc(p.heard, func(h Key) bool {
			return !p.has(func(r Route) bool { return r.Key == h })
		})
		if i < 0 {
			return
		}
		p.emit(Action{Op: Unhear, By: p.heard[i]})
		p.heard = slices.Delete(p.heard, i, i+1)
	}
	p.heard = append(p.heard, k)
	p.emit(Action{Op: Hear, By: k})
}

func (p *Peer) unhear(k Key) {
	p.heard = slices.DeleteFunc(p.heard, func(h Key) bool { return h == k })
	p.emit(Action{Op: Unhear, By: k})
}

// removeRoute forgets a route, and falls back to the next best at once.
func (p *Peer) removeRoute(k Key, reason string) {
	i := slices.IndexFunc(p.routes, func(r Route) bool { return r.Key == k })
	if i < 0 {
		return
	}
	lost := p.routes[i]
	if lost.Direct() {
		p.watch.lost(p.now)
	}
	if p.routes = slices.Delete(p.routes, i, i+1); len(p.routes) == 0 && (k != p.ask.relay || !p.ask.added) {
		p.gone = p.now // it was there, and not only asked for
	}
	p.event(Happening{Kind: RouteDown, Route: lost, Reason: reason})
	if i == 0 && len(p.routes) > 0 {
		p.promote(p.best())
		p.event(Happening{Kind: Switched, Route: p.routes[0], Old: lost, Reason: reason})
	}
	p.publish()
	if k.Channel != 0 {
		p.unhear(k)
	}
	if !lost.Direct() || p.content() || !p.wanted {
		return
	}
	if p.now.Sub(lost.Since) >= steady {
		p.backoff = firstBackoff
	}
	if p.takeQuick() {
		p.askSoon(0)
		return
	}
	p.askLater()
}

// takeQuick takes one of the asks that need not wait, if there is one left: a route
// that comes and goes is asked for with backoff.
func (p *Peer) takeQuick() bool {
	if n := p.now.Sub(p.quickAt) / quickEvery; n > 0 {
		p.quick, p.quickAt = min(p.quick+int(min(n, maxQuick)), maxQuick), p.now
	}
	if p.quick == 0 {
		return false
	}
	p.quick--
	return true
}

// dropRelays drops the relay routes that are not there any more, for a reason, and
// reports whether there were any.
func (p *Peer) dropRelays(reason string, which func(Route) bool) (any bool) {
	for _, r := range slices.Clone(p.routes) {
		if !r.Direct() && which(r) {
			p.removeRoute(r.Key, reason)
			any = true
		}
	}
	return any
}

// best is the index of the best route of all but the one in use.
func (p *Peer) best() int {
	best := 0
	for i := 1; i < len(p.routes); i++ {
		if better(p.routes[i], p.routes[best]) {
			best = i
		}
	}
	return best
}

func (p *Peer) promote(i int) {
	r := p.routes[i]
	p.routes = slices.Insert(slices.Delete(p.routes, i, i+1), 0, r)
}

// rank moves the best route to the front and reports whether it changed.
func (p *Peer) rank() bool {
	i := p.best()
	if i == 0 {
		return false
	}
	old := p.routes[0]
	if old.Direct() && !old.Narrow && !p.routes[i].Direct() {
		p.watch.lost(p.now)
		p.routes[0].Proving = p.watch.onProbation(p.now)
	}
	p.promote(i)
	reason := "better"
	if old.Narrow {
		reason = p.watch.narrow[old.Key].reason
	} else if old.Direct() && !p.routes[0].Direct() {
		reason = "much worse than the relay"
	}
	p.event(Happening{Kind: Switched, Route: p.routes[0], Old: old, Reason: reason})
	p.publish()
	return true
}

func (p *Peer) publish() {
	p.emit(Action{Op: Publish, Routes: slices.Clone(p.routes)})
}
