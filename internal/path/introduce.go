package path

import (
	"io"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/punch"
)

// askSoon plans our next introduction to the peer, unless one is planned
// earlier.
func (p *Peer) askSoon(after time.Duration) {
	if t := p.now.Add(after); p.ask.again.IsZero() || t.Before(p.ask.again) {
		p.ask.again = t
	}
}

// askLater plans our next introduction after a pause, longer each time.
func (p *Peer) askLater() {
	p.askSoon(p.backoff)
	p.backoff = min(p.backoff*2, maxBackoff)
}

// sendAsk draws a session nonce and asks the server to introduce us.
func (p *Peer) sendAsk() {
	var nonce [32]byte
	if _, err := io.ReadFull(p.self.Rand, nonce[:]); err != nil {
		p.ask.again = p.now.Add(firstBackoff)
		return
	}
	p.self.Offers++
	side := p.self.Side
	offer := wire.Offer{
		Instance:    p.self.Instance,
		Counter:     p.self.Offers,
		Nonce:       nonce,
		Description: side.AppendDescription(nil),
	}
	box, err := p.self.Key.Seal(p.ID, wire.OfferPurpose, p.self.Server[:], offer.Append(nil))
	if err != nil {
		p.ask.again = time.Time{}
		p.event(Happening{Kind: Failed, Err: err})
		return
	}
	p.ask = ask{open: true, nonce: nonce, side: side}
	p.emit(Action{Op: AskServer, Data: box})
}

// introduced begins to punch: both peers were told of each other at this moment.
func (p *Peer) introduced(party wire.Party) {
	if !p.ask.open {
		return
	}
	p.ask.open = false
	other, err := punch.ParseDescription(party.Description)
	if err != nil {
		p.askFailed(Input{Err: err})
		return
	}
	other.ID, other.Observed, other.ObservedTCP = p.ID, party.Observed, party.ObservedTCP
	if p.Instance != 0 && p.Instance != party.Instance {
		p.forget("the peer restarted")
		p.ask.again = time.Time{} // this is the answer to what was lost with it
	}
	p.Instance, p.absent = party.Instance, false
	p.event(Happening{Kind: WasIntroduced, Endpoints: party.Observed})
	if p.ask.relay.Channel != 0 {
		p.addRoute(Route{Key: p.ask.relay, Since: p.now})
	}
	p.punch(true, p.ask.nonce, p.ask.side, other)
	// Again while the peer is wanted and not reached as well as can be, unless something has
	// called for it already since we asked.
	if p.wanted && !p.content() && p.ask.again.IsZero() {
		pause := attemptTime
		if other.Profile.Mapping == nat.Unknown && p.backoff < unknownFor {
			pause = 0 // the peer has just begun, and will know its NAT in a moment
		}
		p.askSoon(pause + p.backoff)
		p.backoff = min(p.backoff*2, maxBackoff)
	}
	p.profileChanged(false) // since the offer was made
}

// profileChanged asks once more if what we know now of our NAT makes a difference to
// the race that is under way.
func (p *Peer) profileChanged(again bool) {
	if !p.wanted || p.ask.open || p.content() || len(p.attempts) == 0 {
		return
	}
	self, told := p.self.Side, p.attempts[0].told
	if again || !sameRace(punch.Plan(self, told.Other), punch.Plan(told.Self, told.Other)) ||
		!sameRace(punch.Plan(told.Other, self), punch.Plan(told.Other, told.Self)) {
		p.askSoon(0)
	}
}

// sameRace reports whether two plans are of the same tactics, with openers for the
// same.
func sameRace(a, b []punch.Tactic) bool {
	return slices.EqualFunc(a, b, func(x, y punch.Tactic) bool { return x.Name == y.Name && x.Hold == y.Hold })
}

// asked begins to punch at the peer's asking. An offer that is not newer than
// the last one is a replay and changes nothing.
func (p *Peer) asked(in Input) {
	if in.Offer.Counter <= p.lastSeen {
		p.Stats.Replayed++
		return
	}
	other, err := punch.ParseDescription(in.Offer.Description)
	if err != nil {
		p.Stats.Malformed++
		return
	}
	other.ID, other.Observed, other.ObservedTCP = p.ID, in.Party.Observed, in.Party.ObservedTCP
	p.lastSeen, p.Instance, p.absent = in.Offer.Counter, in.Offer.Instance, false
	p.event(Happening{Kind: WasIntroduced, Endpoints: in.Party.Observed})
	if in.By.Channel != 0 { // a server introduced us
		p.addRoute(Route{Key: in.By, Since: p.now})
	}
	p.punch(false, in.Offer.Nonce, p.self.Side, other)
}

// punch starts an engine. Older attempts after the same side's asking end, and
// keep the routes that they found. When both sides ask at once, both attempts go
// on: the two may learn of them in different order, and would each keep what the
// other has ended.
func (p *Peer) punch(ours bool, nonce [32]byte, self, other punch.Side) {
	for _, a := range p.attempts {
		if a.told.Ours == ours {
			p.step(a, punch.Input{Op: punch.Stop})
		}
	}
	other.Profile = p.memory.Recall(other.Profile)
	a := &attempt{told: Account{Ours: ours, Began: p.now, Self: self, Other: other}, engine: punch.NewEngine(punch.Config{
		Self: self, Other: other, Secret: p.secret, Nonce: nonce, Links: p.self.Links, Rand: p.self.Rand,
		NewLocal: p.self.NewLocal, Memory: p.memory,
		Keepalive: func() time.Duration { return p.self.Keepalive }, Traffic: p.self.counted(),
	})}
	p.sweep()
	if len(p.attempts) == maxAttempts {
		p.drop(p.idlest())
	}
	p.attempts = slices.Insert(p.attempts, 0, a)
	for _, s := range p.self.Sockets {
		p.step(a, punch.Input{Op: punch.Open, Local: s.Local, From: s.Bound})
	}
	for _, s := range p.self.Ports {
		p.step(a, punch.Input{Op: punch.Open, Local: s.Local, From: s.Bound})
	}
	p.step(a, punch.Input{Op: punch.Start})
	for _, r := range slices.Clone(p.routes) {
		if r.Transport() == punch.TCP { // its endpoints cannot have another one
			p.step(a, punch.Input{Op: punch.Connected, Local: r.Local, From: r.To})
		}
	}
	if p.counts == nil || !p.has(Route.Direct) {
		p.account(a)
	}
}

// idlest is the oldest attempt that keeps no route alive, or else the oldest.
func (p *Peer) idlest() *attempt {
	for _, a := range slices.Backward(p.attempts) {
		if !a.engine.Live() {
			return a
		}
	}
	return p.attempts[len(p.attempts)-1]
}

// drop ends an attempt with the routes that nobody else keeps alive.
func (p *Peer) drop(a *attempt) {
	p.attempts = slices.DeleteFunc(p.attempts, func(b *attempt) bool { return b == a })
	p.step(a, punch.Input{Op: punch.Close})
	p.retire(a)
	for _, r := range slices.Clone(p.routes) {
		if r.Direct() && !p.kept(r.Key) {
			p.removeRoute(r.Key, "too many attempts")
		}
	}
}

// unknownFor bounds how long a peer that does not know its NAT is asked for soon
// again.
const unknownFor = 4 * time.Second

// attemptTime is how long an attempt is left alone before the next one.
const attemptTime = 10 * time.Second

// candidatesPause is how long an attempt that is under way goes on without
// candidates that came since: it may not need them.
const candidatesPause = 2 * time.Second

// againPause is that where the attempt can hardly succeed without them. The peer, which
// was told at the same time, needs some round trips to its server for its own.
const againPause = 500 * time.Millisecond

// askFailed takes note that nothing came of our ask. A relay channel that an
// earlier one opened is not concerned.
func (p *Peer) askFailed(in Input) {
	p.ask.open = false
	if p.ask.added {
		p.dropRelays("no introduction", func(r Route) bool { return r.Key == p.ask.relay })
	}
	p.event(Happening{Kind: Failed, Err: in.Err})
	if !p.wanted {
		return
	}
	pause := maxAskPause
	if p.now.Sub(p.gone) < goneTime {
		// A route that comes with each ask and goes again would be no news.
		p.absent, pause = true, goneAskPause
	}
	p.askSoon(min(p.backoff, pause))
	p.backoff = min(p.backoff*2, maxBackoff)
}

// forget drops everything about a process of the peer that is no longer there.
func (p *Peer) forget(reason string) {
	for _, a := range p.attempts {
		p.step(a, punch.Input{Op: punch.Close})
		p.retire(a)
	}
	p.attempts = nil
	for _, r := range slices.Clone(p.routes) {
		if r.Key != p.ask.relay {
			p.removeRoute(r.Key, reason)
		}
	}
	for _, k := range slices.Clone(p.heard) {
		if k != p.ask.relay {
			p.unhear(k)
		}
	}
	p.lastSeen, p.watch = 0, watch{}
	p.event(Happening{Kind: Restarted})
}

// Adopt takes over what an other Peer, of the same process as it turned out, has
// under way: its wish and its introduction. It returns the other's sources, which
// are to be closed, and those of them that are relay routes, which are to be added.
func (p *Peer) Adopt(other *Peer) (sources, relays []Key) {
	p.wanted = p.wanted || other.wanted
	p.ask, p.backoff = other.ask, other.backoff
	for _, r := range other.routes {
		if !r.Direct() {
			relays = append(relays, r.Key)
		}
	}
	return other.heard, relays
}

// Owns reports whether l is a socket or connection of one of the peer's attempts.
func (p *Peer) Owns(l punch.Local) bool {
	return slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.engine.Owns(l) })
}
