package rendezvous

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// registration is one process of a node. Ten thousand of them live on a small
// server: keys are kept as bytes, never as cipher objects, and there is neither
// a timer nor a goroutine for each.
type registration struct {
	node        nodeKey
	handle      wire.Handle
	keys        wire.LinkKeys
	window      wire.Window
	sequence    uint64 // of our own messages
	counter     uint64 // the highest of its Registers
	legs        [2]leg // IPv4, IPv6
	primary     uint8
	flags       uint32
	revision    uint32
	gone        bool // a tombstone: it said goodbye
	seen        time.Time
	description []byte
	tags        []wire.Tag
	channels    map[wire.Channel]*pair
	next        wire.Channel // where the search for a free served channel begins
	asks, asked bucket
	relayed     bucket
}

// leg is where a node is in one address family, and which of our sockets it
// came to.
type leg struct {
	local int
	addr  netip.AddrPort
	seen  time.Time
}

func family(a netip.AddrPort) uint8 {
	if a.Addr().Is4() {
		return 0
	}
	return 1
}

// register handles a Register: NONCE before anything that costs, then the BOX.
func (r *Registry) register(local int, from netip.AddrPort, m *stun.Message) {
	nonce, err := m.Get(stun.AttrNonce)
	if err != nil || !r.nonces.valid(r.now, from, nonce) {
		code := int(stun.CodeUnauthorized)
		if err == nil {
			code = int(stun.CodeStaleNonce)
		}
		r.stats.Unproved++
		r.plainError(local, from, m, code, r.nonces.make(r.now, from))
		return
	}
	id, enc, reg, err := wire.OpenRegister(m, r.key)
	switch {
	case errors.Is(err, peer.ErrSeal):
		r.stats.Forged++
		return
	case err != nil:
		r.stats.Malformed++
		return
	}
	g := r.byNode[nodeKey{id, reg.Instance}]
	switch {
	case g != nil && reg.Counter == g.counter && g.legs[family(from)].addr == from && !g.gone:
		// The answer was lost: say it again, change nothing.
	case g != nil && reg.Counter <= g.counter:
		r.stats.Replayed++
		return
	default:
		if g = r.enter(g, id, reg, enc); g == nil {
			r.stats.Limited++
			r.plainError(local, from, m, wire.CodeTooMany, nil)
			return
		}
		r.setLeg(g, local, from)
		g.primary = family(from)
		r.apply(g, reg)
		r.stats.Registered++
	}
	g.seen = r.now
	r.reply(g, stun.NewType(wire.Register, stun.ClassSuccessResponse), m.TransactionID, 0, r.registered(g))
}

// enter makes a registration, or gives one that is there fresh keys.
func (r *Registry) enter(g *registration, id peer.ID, reg wire.Registration, enc [32]byte) *registration {
	secret, err := r.key.Shared(id)
	if err != nil {
		return nil
	}
	if g == nil {
		who := r.byID[id]
		if len(r.byHandle) >= r.limits.Registrations || who != nil && who.instances >= r.limits.Instances {
			return nil
		}
		if who == nil {
			who = &identity{}
			r.byID[id] = who
		}
		who.instances++
		g = &registration{node: nodeKey{id, reg.Instance}}
		r.byNode[g.node] = g
	} else {
		delete(r.byHandle, g.handle)
		r.forgetSources(g)
		g.legs, g.window, g.sequence, g.gone = [2]leg{}, wire.Window{}, 0, false
	}
	r.draw(g.handle[:])
	g.keys = wire.NewLinkKeys(secret, enc, g.handle, id, r.key.ID(), reg.Instance)
	g.counter = reg.Counter
	r.byHandle[g.handle] = g
	return g
}

func (r *Registry) forgetSources(g *registration) {
	for _, l := range g.legs {
		if r.bySource[l.addr] == g {
			delete(r.bySource, l.addr)
		}
	}
}

func (r *Registry) setLeg(g *registration, local int, from netip.AddrPort) {
	l := &g.legs[family(from)]
	if l.addr != from {
		if r.bySource[l.addr] == g {
			delete(r.bySource, l.addr)
		}
		g.revision++
	}
	*l = leg{local, from, r.now}
	r.bySource[from] = g
}

// apply takes over what a node says of itself.
func (r *Registry) apply(g *registration, reg wire.Registration) {
	displaced := g.flags & wire.FlagDisplaced
	if !slices.Equal(g.description, reg.Description) {
		g.description = slices.Clone(reg.Description)
		g.revision++
	}
	accepted := g.flags&wire.FlagAccepting != 0
	g.flags = reg.Flags&(wire.FlagAccepting|wire.FlagOpen) | displaced
	g.tags = slices.Clone(reg.Tags)
	who := r.byID[g.node.id]
	switch {
	case g.flags&wire.FlagAccepting == 0:
		if who.accepting == g {
			who.accepting = nil
		}
	case displaced != 0 && accepted:
		// It has not heard yet that another process took its place.
		g.flags &^= wire.FlagAccepting
	case who.accepting != g:
		r.displace(who.accepting)
		g.flags &^= wire.FlagDisplaced
		who.accepting = g
	}
}

// displace tells a process that a newer one accepts in its place. The newcomer
// never waits: the old process may be dead, and its registration still fresh.
func (r *Registry) displace(old *registration) {
	if old == nil || old.gone {
		return
	}
	old.flags |= wire.FlagDisplaced
	var content wire.Attrs
	content.AddUint32(wire.AttrFlags, wire.FlagDisplaced)
	var id wire.TransactionID
	r.draw(id[:])
	r.reply(old, stun.NewType(wire.Notice, stun.ClassIndication), id, 0, content)
}

func (r *Registry) registered(g *registration) wire.Attrs {
	return wire.Registered{
		Observed: g.observed(),
		Lifetime: r.limits.Lifetime,
		Revision: g.revision,
		Flags:    g.flags & wire.FlagDisplaced,
	}.Append(nil)
}

// observed are the endpoints at which the node was seen, the primary one first.
func (g *registration) observed() (out []netip.AddrPort) {
	for _, i := range [2]uint8{g.primary, 1 - g.primary} {
		if g.legs[i].addr.IsValid() {
			out = append(out, g.legs[i].addr)
		}
	}
	return out
}

// refresh keeps a registration, moves it, changes it or ends it.
func (r *Registry) refresh(local int, from netip.AddrPort, g *registration, e wire.Envelope, m *stun.Message, content wire.Attrs) {
	l := &g.legs[family(from)]
	if l.addr != from || l.local != local {
		// It is elsewhere now, or shows its other address family: that address
		// has to prove itself first.
		if !r.nonces.valid(r.now, from, e.Nonce) {
			r.stats.Unproved++
			r.plainError(local, from, m, int(stun.CodeStaleNonce), r.nonces.make(r.now, from))
			return
		}
		r.setLeg(g, local, from)
	}
	if len(content) > 0 {
		reg, err := wire.ParseRegistration(content)
		if err != nil || reg.Instance != g.node.instance {
			r.stats.Malformed++
			return
		}
		if reg.Gone {
			r.answerFrom(g, local, from, e)
			r.bury(g)
			return
		}
		r.apply(g, reg)
	}
	g.seen, g.legs[family(from)].seen = r.now, r.now
	r.answerFrom(g, local, from, e)
}

// answerFrom answers a Refresh by the way it came, which keeps that way open.
func (r *Registry) answerFrom(g *registration, local int, from netip.AddrPort, e wire.Envelope) {
	g.sequence++
	env := wire.Envelope{
		Type: stun.NewType(wire.Refresh, stun.ClassSuccessResponse), ID: e.ID, Handle: g.handle, Sequence: g.sequence,
	}
	r.send(local, from, env.Seal(nil, &g.keys.ToNode, r.registered(g)))
}

// bury ends a registration but remembers its counter, for as long as a NONCE
// that was used for it is good: a replayed Register must not bring it back.
func (r *Registry) bury(g *registration) {
	r.closeChannels(g)
	r.forgetSources(g)
	if who := r.byID[g.node.id]; who.accepting == g {
		who.accepting = nil
	}
	g.gone, g.description, g.tags = true, nil, nil
}

// sweep forgets what was not refreshed in time.
func (r *Registry) sweep() {
	for h, g := range r.byHandle {
		life := r.limits.Lifetime
		if g.gone {
			life = max(life, 2*nonceBucket)
		}
		if r.now.Sub(g.seen) < life {
			r.sweepLeg(g)
			continue
		}
		r.bury(g)
		delete(r.byHandle, h)
		delete(r.byNode, g.node)
		who := r.byID[g.node.id]
		if who.instances--; who.instances == 0 {
			delete(r.byID, g.node.id)
		}
	}
	for k, i := range r.introductions {
		if !r.now.Before(i.expires) {
			delete(r.introductions, k)
			delete(r.waiting, i.toTarget)
		}
	}
}

// sweepLeg drops the address family that a node no longer refreshes.
func (r *Registry) sweepLeg(g *registration) {
	other := 1 - g.primary
	if l := g.legs[g.primary]; r.now.Sub(l.seen) >= r.limits.Lifetime && g.legs[other].addr.IsValid() {
		g.primary, other = other, g.primary
	}
	if l := &g.legs[other]; l.addr.IsValid() && r.now.Sub(l.seen) >= r.limits.Lifetime {
		if r.bySource[l.addr] == g {
			delete(r.bySource, l.addr)
		}
		*l = leg{}
		g.revision++
	}
}
