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
	relay    *relaying     // nil without a channel

	handle   wire.Handle
	keys     wire.LinkKeys
	window   wire.Window
	sequence uint64 // of our own messages
	counter  uint64 // the highest of its Registers
	changed  uint32 // low half of the sequence number that the latest change came with

	revision  uint32
	about     string // its description, then its policy tags
	described uint16 // how much of about is the description
	legs      [2]leg // IPv4, IPv6
	primary   uint8
	flags     uint8 // FlagAccepting, FlagOpen, FlagDisplaced, FlagKept
	gone      bool  // no longer in the registry

	asks, asked bucket // introductions
}

// leg is where a node is in one address family, and which of our sockets it
// came to.
type leg struct {
	place place
	local uint16
	seen  stamp
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
	if g != nil && reg.Counter == g.counter && g.legs[family(from)].place == placeOf(from) {
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
	g.primary = family(from)
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
		for i := range g.legs {
			r.leave(g, g.legs[i].place)
		}
		g.legs, g.window, g.sequence, g.changed = [2]leg{}, wire.Window{}, 0, 0
		g.flags |= uint8(wire.FlagKept)
	}
	r.draw(g.handle[:])
	g.keys = wire.NewLinkKeys(o.Secret, o.Enc, g.handle, id, r.key.ID(), instance)
	g.counter = o.Registration.Counter
	r.byHandle[g.handle] = g
	return g
}

func (r *Registry) setLeg(g *registration, local int, from netip.AddrPort) {
	l, p := &g.legs[family(from)], placeOf(from)
	if l.place != p {
		r.leave(g, l.place)
		g.revision++
	}
	*l = leg{p, uint16(local), r.stamp}
	r.settle(g, p)
}

// registered tells a node how the server knows it, by the way that it came, which
// keeps that way open.
func (r *Registry) registered(local int, from netip.AddrPort, g *registration, t stun.MessageType, id wire.TransactionID) {
	r.replyTo(local, from, g, t, id, 0, wire.Registered{
		Observed: g.observed(),
		Lifetime: r.limits.Lifetime,
		Revision: g.revision,
		Flags:    uint32(g.flags) & (wire.FlagDisplaced | wire.FlagKept),
	}.Append(nil))
}

// observed are the endpoints at which the node was seen, the primary one first.
func (g *registration) observed() (out []netip.AddrPort) {
	for _, i := range [2]uint8{g.primary, 1 - g.primary} {
		if g.legs[i].place.valid() {
			out = append(out, g.legs[i].place.endpoint())
		}
	}
	return out
}

// refresh keeps a registration, moves it, changes it or ends it.
func (r *Registry) refresh(local int, from netip.AddrPort, g *registration, e wire.Envelope, m *stun.Message, content wire.Attrs) {
	l := &g.legs[family(from)]
	moved := l.place != placeOf(from) || int(l.local) != local
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
	}
	if len(content) > 0 {
		r.apply(g, reg)
	}
	g.legs[family(from)].seen = r.stamp
	r.registered(local, from, g, stun.NewType(wire.Refresh, stun.ClassSuccessResponse), e.ID)
}
