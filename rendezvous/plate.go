package rendezvous

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// plate is a nameplate: a number that one node waits under for another one that
// knows it. They say a few letters to each other, which mean nothing to the server,
// and then it is used. When it is over its number rests: whoever comes late with an
// old code must not use up somebody else's.
type plate struct {
	number  wire.Plate
	inviter *registration
	opened  wire.TransactionID // the Invite that it was last opened by
	prefix  netip.Prefix       // of the inviter
	expires time.Time          // or when the rest ends
	joiner  *registration      // who sent the first letter; nil: nobody
	letters int                // that have gone by, in turn
	over    bool
}

// plates are all there are, with the counts that limit them.
type plates struct {
	byNumber  map[wire.Plate]*plate
	byInviter map[*registration][]*plate // those that wait
	byPrefix  map[netip.Prefix]int       // how many, of all
	joinsBy   prefixLimit                // first letters of a node
	joinsFrom prefixLimit                // and of a network
}

const (
	// maxLetters is how many letters go by at a nameplate: two each.
	maxLetters = 4
	// invitationsOfNode and invitationsOfPrefix bound the nameplates that one node
	// waits under, and that one network has.
	invitationsOfNode   = 8
	invitationsOfPrefix = 256
	// plateRest is how long a number rests, and how long others are told that a
	// nameplate is used.
	plateRest = 10 * time.Minute
	// maxInvitation bounds what an inviter asks for: the number is short, and others
	// want it.
	maxInvitation = 24 * time.Hour
	// firstPlates is how many numbers there are at the least. With more nameplates
	// there are ten times as many numbers, so that nine of ten guesses are nobody's, and
	// whoever tries numbers to spoil other people's codes does not get far.
	firstPlates = 999
)

func newPlates() plates {
	return plates{
		byNumber:  make(map[wire.Plate]*plate),
		byInviter: make(map[*registration][]*plate),
		byPrefix:  make(map[netip.Prefix]int),
		joinsBy:   prefixLimit{every: 60},
		joinsFrom: prefixLimit{every: 60},
	}
}

// waiting is how many nameplates somebody waits under.
func (x *plates) waiting() (n int) {
	for _, of := range x.byInviter {
		n += len(of)
	}
	return n
}

// waits reports whether somebody can still join.
func (p *plate) waits() bool { return p.joiner == nil }

// other is the one of the two who is not g.
func (p *plate) other(g *registration) *registration {
	if g == p.inviter {
		return p.joiner
	}
	return p.inviter
}

// at is the nameplate of that number, if it is there.
func (r *Registry) at(number wire.Plate) *plate {
	p := r.plates.byNumber[number]
	if p == nil || p.over || p.inviter.gone && p.waits() || !r.now.Before(p.expires) {
		return nil
	}
	return p
}

// invite gives a node a nameplate, or the one back that it had before this server was
// started, or takes it away.
func (r *Registry) invite(g *registration, e wire.Envelope, content wire.Attrs) {
	i, err := wire.ParseInvitation(content)
	if err != nil {
		r.stats.Malformed++
		return
	}
	if i.Lifetime == 0 {
		if p := r.at(i.Plate); p != nil && p.inviter == g && p.waits() {
			r.endPlate(p)
		}
		r.answer(g, e, i.Append(nil))
		return
	}
	i.Lifetime = min(i.Lifetime, maxInvitation)
	p := r.opened(g, e.ID)
	if p == nil {
		p = r.at(i.Plate)
	}
	switch {
	case p == nil && !r.affordsPlate(g):
		r.stats.Limited++
		r.refuse(g, e, wire.CodeTooMany)
		return
	case p == nil:
		p = r.addPlate(g, i.Plate, i.Lifetime)
	case p.inviter != g || !p.waits():
		r.stats.Refused++
		r.refuse(g, e, wire.CodeUsed)
		return
	}
	p.opened = e.ID
	r.answer(g, e, wire.Invitation{Plate: p.number, Lifetime: p.expires.Sub(r.now)}.Append(nil))
}

// opened is the nameplate that a node has by that Invite, whose answer was lost.
func (r *Registry) opened(g *registration, id wire.TransactionID) *plate {
	for _, p := range r.plates.byInviter[g] {
		if p.opened == id && r.at(p.number) == p {
			return p
		}
	}
	return nil
}

// affordsPlate reports whether a node may have one more nameplate.
func (r *Registry) affordsPlate(g *registration) bool {
	return g.asks.take(r.stamp, 1, r.limits.Introductions, 2*r.limits.Introductions) &&
		len(r.plates.byNumber) < r.limits.Invitations &&
		len(r.plates.byInviter[g]) < invitationsOfNode &&
		r.plates.byPrefix[g.prefix()] < invitationsOfPrefix
}

// prefix is the network that a node is in, for limits.
func (g *registration) prefix() netip.Prefix {
	return prefixOf(g.leg(g.primary).place.endpoint().Addr())
}

// addPlate makes a nameplate. A number that is neither taken nor at rest is found at
// once: there are ten times as many.
func (r *Registry) addPlate(g *registration, number wire.Plate, life time.Duration) *plate {
	if number == 0 {
		numbers := firstPlates
		for numbers < 10*len(r.plates.byNumber) {
			numbers = 10*numbers + 9
		}
		var b [8]byte
		for taken := true; taken; taken = r.plates.byNumber[number] != nil {
			r.draw(b[:])
			number = wire.Plate(1 + binary.BigEndian.Uint64(b[:])%uint64(numbers))
		}
	}
	if old := r.plates.byNumber[number]; old != nil { // it rests, or its node has gone
		r.dropPlate(old)
	}
	p := &plate{number: number, inviter: g, prefix: g.prefix(), expires: r.now.Add(life)}
	r.plates.byNumber[number] = p
	r.plates.byInviter[g] = append(r.plates.byInviter[g], p)
	r.plates.byPrefix[p.prefix]++
	return p
}

// endPlate lets a number rest.
func (r *Registry) endPlate(p *plate) {
	r.plates.unwait(p)
	p.over, p.expires = true, r.now.Add(plateRest)
}

func (r *Registry) dropPlate(p *plate) {
	if !p.over {
		r.endPlate(p)
	}
	delete(r.plates.byNumber, p.number)
	if r.plates.byPrefix[p.prefix]--; r.plates.byPrefix[p.prefix] == 0 {
		delete(r.plates.byPrefix, p.prefix)
	}
}

// unwait takes a nameplate from those that wait, if it is one.
func (x *plates) unwait(p *plate) {
	left := slices.DeleteFunc(x.byInviter[p.inviter], func(o *plate) bool { return o == p })
	if x.byInviter[p.inviter] = left; len(left) == 0 {
		delete(x.byInviter, p.inviter)
	}
}

// letter passes a letter on: the first one to whoever waits, the others between
// these two, in turn.
func (r *Registry) letter(g *registration, e wire.Envelope, content wire.Attrs) {
	key := introductionKey{g, e.ID}
	if i := r.introductions[key]; i != nil {
		r.answer(g, e, i.answer)
		return
	}
	l, err := wire.ParseLetter(content)
	if err != nil {
		r.stats.Malformed++
		return
	}
	if code := r.mayWrite(g, l.Plate); code != 0 {
		r.refuse(g, e, code)
		return
	}
	p := r.at(l.Plate)
	if p.waits() {
		p.joiner = g
		r.plates.unwait(p)
		if told := r.now.Add(plateRest); told.Before(p.expires) {
			p.expires = told
		}
	}
	p.letters++
	r.answer(g, e, nil)
	r.pass(&introduction{
		key: key, target: p.other(g), method: wire.Pair,
		told: wire.Letter{Plate: p.number, From: g.id, Body: l.Body}.Append(nil),
	})
}

// mayWrite is why a node may not send a letter to a nameplate, or 0.
func (r *Registry) mayWrite(g *registration, number wire.Plate) int {
	p := r.at(number)
	joins := p == nil || g != p.inviter && g != p.joiner
	switch {
	case len(r.introductions) >= maxIntroductions,
		// Whoever tries numbers is stopped, those that are nobody's count too.
		joins && !r.affordsJoin(g):
		r.stats.Limited++
		return wire.CodeTooMany
	case p == nil, !joins && !p.waits() && p.other(g).gone:
		r.stats.Refused++
		return wire.CodeNotReachable
	case p.inviter.id == g.id && p.inviter != g, p.inviter == g && p.waits():
		r.stats.Refused++
		return wire.CodeForbidden
	case p.letters >= maxLetters, joins && !p.waits(), !joins && (g == p.inviter) != (p.letters%2 == 1):
		r.stats.Refused++
		return wire.CodeUsed
	}
	return 0
}

// affordsJoin takes a first letter from the limits of a node and of its network.
func (r *Registry) affordsJoin(g *registration) bool {
	high, low := binary.BigEndian.Uint64(g.id[:]), binary.BigEndian.Uint64(g.id[8:])
	return r.plates.joinsBy.takeFor(r.now, high, low, r.limits.Joins) &&
		r.plates.joinsFrom.take(r.now, g.leg(g.primary).place.endpoint().Addr(), joinsOfPrefix(r.limits.Joins))
}

// joinsOfPrefix is how many first letters may come from a network: those of a few
// nodes, since keys cost nothing.
func joinsOfPrefix(ofNode int) int { return 5 * ofNode }

// sweepPlates ends nameplates that have expired, or whose inviter has gone, and forgets
// those that have rested.
func (r *Registry) sweepPlates() {
	for _, p := range r.plates.byNumber {
		switch {
		case p.over && !r.now.Before(p.expires):
			r.dropPlate(p)
		case !p.over && r.at(p.number) == nil:
			r.endPlate(p)
		}
	}
}
