package rendezvous

import (
	"bytes"
	"slices"

	"bodkin/peer"
)

// grave remembers a process that left. Its Register must not bring it back when it
// is replayed, for as long as the NONCE in it is good.
type grave struct {
	id       peer.ID
	instance uint64
}

type burial struct {
	counter uint64 // the highest of its Registers
	at      stamp
}

// bury ends a registration: the node said goodbye, or was silent too long.
func (r *Registry) bury(g *registration) {
	r.closeChannels(g)
	r.remove(g)
	delete(r.byHandle, g.handle)
	g.gone = true
	if len(r.graves) < r.limits.Registrations {
		d := grave{g.id, g.instance}
		r.graves[d] = burial{g.counter, r.stamp}
		r.buried = append(r.buried, d)
	}
}

// sweep forgets what was not refreshed in time.
func (r *Registry) sweep() {
	var silent []*registration
	for _, g := range r.byHandle {
		if !r.sweepLegs(g) {
			silent = append(silent, g)
		}
	}
	// In an order that does not change from run to run.
	slices.SortFunc(silent, func(a, b *registration) int { return bytes.Compare(a.handle[:], b.handle[:]) })
	for _, g := range silent {
		r.bury(g)
	}
	for len(r.buried) > 0 {
		b, ok := r.graves[r.buried[0]]
		if ok && r.stamp.since(b.at) < 2*nonceBucket {
			break
		}
		delete(r.graves, r.buried[0])
		r.buried = r.buried[1:]
	}
}

// sweepLegs drops the legs that a node no longer refreshes, and reports whether there
// is one left. A connection that ended counts for as long as it would have otherwise.
func (r *Registry) sweepLegs(g *registration) (left bool) {
	for w := range uint8(ways) {
		l := g.leg(w)
		switch {
		case !l.place.valid() && (w < udpWays || l == leg{}):
		case r.stamp.since(l.seen) < r.limits.Lifetime:
			left = true
		default:
			r.leave(g, l)
			g.put(w, leg{})
			if l.place.valid() {
				g.revision++
			}
		}
	}
	r.choose(g)
	return left
}
