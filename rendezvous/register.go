package rendezvous

import (
	"errors"
	"net/netip"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// registration is one process of a node. A hundred thousand of them live on a
// small server, so it is 256 bytes: keys are kept as bytes and never as cipher
// objects, times as milliseconds, and there is neither a timer nor a goroutine
// for each.
type registration struct {
	id       peer.ID
	instance uint64
	sibling  *registration // of the index: the next process, of the same ID as a rule
	extra    *extra        // nil without a channel and a connection

	handle   wire.Handle
	keys     wire.LinkKeys
	window   wire.Window
	sequence uint64 // of our own messages
	counter  uint64 // the highest of its Registers
	changed  uint32 // low half of the sequence number that the latest change came with

	revision  uint32
	about     string       // its description, then its policy tags
	described uint16       // how much of about is the description
	legs      [udpWays]leg // IPv4, IPv6
	primary   uint8        // the way that it chose for what we send
	flags     uint8        // FlagAccepting, FlagOpen, FlagDisplaced, FlagKept
	gone      bool         // no longer in the registry

	asks, asked bucket // introductions
}

// leg is where a node is by one way, and which of our sockets it came to, or by
// which connection.
type leg struct {
	place place
	local uint16
	seen  stamp
}

func (l leg) is(local int, p place) bool { return l.place == p && int(l.local) == local }

// leg is where the node is by a way; the zero leg is nowhere.
func (g *registration) leg(way uint8) leg {
	switch {
	case way < udpWays:
		return g.legs[way]
	case g.extra == nil:
		return leg{}
	}
	return g.extra.streams[way-udpWays]
}

// put changes a leg.
func (g *registration) put(way uint8, l leg) {
	switch {
	case way < udpWays:
		g.legs[way] = l
	case g.extra != nil || l != leg{}:
		g.extras().streams[way-udpWays] = l
	}
}

// register handles a Register: NONCE before anything that costs, then the BOX.
func (r *Registry) register(local int, from netip.AddrPort, m *stun.Message) {
	nonce, err := m.Get(stun.AttrNonce)
	if err != nil || !r.nonces.valid(r.now, from, nonce) {
		code := stun.CodeUnauthorized
		if err == nil {
			code = stun.CodeStaleNonce
		}
		r.stats.Unproved++
		r.plainError(local, from, m, int(code), r.nonces.make(r.now, from))
		return
	}
	opened, err := wire.OpenRegister(m, r.key)
	switch {
	case errors.Is(err, peer.ErrSeal):
		r.stats.Forged++
		return
	case err != nil:
		r.stats.Malformed++
		return
	}
	id, reg := opened.From, opened.Registration
	g := r.find(id, reg.Instance)
	if g != nil && reg.Counter == g.counter && g.leg(way(local, from)).is(local, placeOf(from)) {
		// The answer was lost: say it again, change nothing.
		r.stats.Replayed++
		r.registered(local, from, g, stun.NewType(wire.Register, stun.ClassSuccessResponse), m.TransactionID)
		return
	}
	last, known := r.graves[grave{id, reg.Instance}]
	if known && reg.Counter <= last.counter || g != nil && reg.Counter <= g.counter {
		r.stats.Replayed++
		return
	}
	if g = r.enter(g, opened); g == nil {
		r.stats.Limited++
		r.plainError(local, from, m, wire.CodeTooMany, nil)
		return
	}
	r.setLeg(g, local, from)
	g.primary = way(local, from)
	r.apply(g, reg)
	r.stats.Registered++
	r.registered(local, from, g, stun.NewType(wire.Register, stun.ClassSuccessResponse), m.TransactionID)
}

// enter makes a registration, or gives one that is there fresh keys: its channels
// live on.
func (r *Registry) enter(g *registration, o wire.Opened) *registration {
	id, instance := o.From, o.Registration.Instance
	if g == nil {
		siblings := 0
		for range r.of(id) {
			siblings++
		}
		if len(r.byHandle) >= r.limits.Registrations || siblings >= r.limits.Instances {
			return nil
		}
		g = &registration{id: id, instance: instance}
		r.add(g)
	} else {
		delete(r.byHandle, g.handle)
		for w := range uint8(ways) {
			r.leave(g, g.leg(w))
			g.put(w, leg{})
		}
		g.window, g.sequence, g.changed = wire.Window{}, 0, 0
		g.flags |= uint8(wire.FlagKept)
	}
	r.draw(g.handle[:])
	g.keys = wire.NewLinkKeys(o.Secret, o.Enc, g.handle, id, r.key.ID(), instance)
	g.counter = o.Registration.Counter
	r.byHandle[g.handle] = g
	return g
}

func (r *Registry) setLeg(g *registration, local int, from netip.AddrPort) {
	w, p := way(local, from), placeOf(from)
	if old := g.leg(w); !old.is(local, p) {
		r.leave(g, old)
		if old.place != p {
			g.revision++
		}
	}
	l := leg{p, uint16(local), r.stamp}
	g.put(w, l)
	r.settle(g, l)
	if !g.leg(g.primary).place.valid() {
		g.primary = w
	}
}

// Hangup takes note that a connection is there no more. Its node stays registered for
// as long as it may be silent: it will call again.
func (r *Registry) Hangup(local int) {
	g := r.byStream[uint16(local)]
	if g == nil {
		return
	}
	for w := uint8(udpWays); w < ways; w++ {
		if l := g.leg(w); l.place.valid() && int(l.local) == local {
			r.leave(g, l)
			g.put(w, leg{seen: l.seen})
			g.revision++
		}
	}
	r.choose(g)
}

// choose makes another leg the primary one, if that is nowhere and there is one.
func (r *Registry) choose(g *registration) {
	for w := uint8(0); w < ways && !g.leg(g.primary).place.valid(); w++ {
		if g.leg(w).place.valid() {
			g.primary = w
		}
	}
}

// registered tells a node how the server knows it, by the way that it came, which
// keeps that way open.
func (r *Registry) registered(local int, from netip.AddrPort, g *registration, t stun.MessageType, id wire.TransactionID) {
	r.replyTo(local, from, g, t, id, 0, wire.Registered{
		Observed: g.observed(0), ObservedTCP: g.observed(udpWays),
		Lifetime: r.limits.Lifetime,
		Revision: g.revision,
		Flags:    uint32(g.flags) & (wire.FlagDisplaced | wire.FlagKept),
	}.Append(nil))
}

// observed are the endpoints at which the node was seen by the way first, or by that
// of the other address family, which begins if it is the primary one.
func (g *registration) observed(first uint8) (out []netip.AddrPort) {
	second := first + 1
	if g.primary == second {
		first, second = second, first
	}
	for _, w := range [...]uint8{first, second} {
		if l := g.leg(w); l.place.valid() {
			out = append(out, l.place.endpoint())
		}
	}
	return out
}

// refresh keeps a registration, moves it, changes it or ends it.
func (r *Registry) refresh(local int, from netip.AddrPort, g *registration, e wire.Envelope, m *stun.Message, content wire.Attrs) {
	w := way(local, from)
	moved := !g.leg(w).is(local, placeOf(from))
	var reg wire.Registration
	if len(content) > 0 {
		var err error
		if reg, err = wire.ParseRegistration(content); err != nil || reg.Instance != g.instance {
			r.stats.Malformed++
			return
		}
	}
	if moved && !reg.Gone && !r.nonces.valid(r.now, from, e.Nonce) {
		// It is elsewhere now, or shows its other address family: that address
		// has to prove itself first.
		r.stats.Unproved++
		r.plainError(local, from, m, int(stun.CodeStaleNonce), r.nonces.make(r.now, from))
		return
	}
	if moved || len(content) > 0 {
		// What was overtaken on its way must not undo what overtook it.
		if int32(uint32(e.Sequence)-g.changed) <= 0 {
			r.stats.Replayed++
			return
		}
		g.changed = uint32(e.Sequence)
	}
	if reg.Gone {
		if !moved {
			r.registered(local, from, g, stun.NewType(wire.Refresh, stun.ClassSuccessResponse), e.ID)
		}
		r.bury(g)
		return
	}
	if moved {
		r.setLeg(g, local, from)
	} else {
		l := g.leg(w)
		l.seen = r.stamp
		g.put(w, l)
	}
	if len(content) > 0 {
		// What a node says of itself it says by the leg that it prefers.
		g.primary = w
		r.apply(g, reg)
	}
	r.registered(local, from, g, stun.NewType(wire.Refresh, stun.ClassSuccessResponse), e.ID)
}
