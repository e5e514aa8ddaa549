package rendezvous

import (
	"slices"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// introduction is one node's request for another, while it may be repeated. It
// is kept by the asker and its transaction, so that a repeated request gets the
// same answer and the target is not told twice. A letter at a nameplate is passed on
// in the same way.
type introduction struct {
	key      introductionKey
	target   *registration
	method   stun.Method // what the target is told by: Introduced or Pair
	answer   wire.Attrs  // to the asker
	told     wire.Attrs  // to the target, until it acknowledged
	toTarget wire.TransactionID
	tries    int
	nextAt   time.Time // when the target is told again
	expires  time.Time
}

type introductionKey struct {
	asker *registration
	id    wire.TransactionID
}

const (
	// tellAgain is when an introduction is repeated to the target: its round
	// trip is not known, and most are shorter. Two more repeats come after as much
	// again, the others each twice as late as the one before, up to 640 ms: a
	// target that is never told costs the asker a whole attempt.
	tellAgain = 80 * time.Millisecond
	tellTries = 10
	// introductionLife covers all repeats of the asker.
	introductionLife = 15 * time.Second
	// maxIntroductions bounds what all nodes together make the server remember,
	// half a kilobyte each: 8,700 introductions a second.
	maxIntroductions = 1 << 17
)

// introduce tells both at once: in the same instant the asker is answered with
// the target's endpoints, and the target is told the asker's. Neither side's
// first probe can then reach the other's NAT before it can have been opened from
// inside: owd(S,A) + owd(A,B) >= owd(S,B), and its mirror.
func (r *Registry) introduce(g *registration, e wire.Envelope, content wire.Attrs) {
	key := introductionKey{g, e.ID}
	if i := r.introductions[key]; i != nil {
		r.answer(g, e, i.answer)
		return
	}
	ask, err := wire.ParseAsk(content)
	if err != nil {
		r.stats.Malformed++
		return
	}
	if !g.asks.take(r.stamp, 1, r.limits.Introductions, 2*r.limits.Introductions) ||
		len(r.introductions) >= maxIntroductions {
		r.stats.Limited++
		r.refuse(g, e, wire.CodeTooMany)
		return
	}
	target := r.target(g, ask)
	if target == nil {
		r.stats.Refused++
		r.refuse(g, e, wire.CodeNotReachable)
		return
	}
	if !target.asked.take(r.stamp, 1, r.limits.Introduced, 3*r.limits.Introduced) {
		r.stats.Limited++
		r.refuse(g, e, wire.CodeTooMany)
		return
	}
	p := r.open(g, target, ask.Channel)
	if p == nil {
		r.stats.Limited++
		r.refuse(g, e, wire.CodeTooMany)
		return
	}
	i := &introduction{
		key: key, target: target, method: wire.Introduced,
		answer: wire.Party{
			ID: target.id, Instance: target.instance, Observed: target.observed(0), ObservedTCP: target.observed(udpWays),
			Description: target.description(), Channel: ask.Channel, Revision: target.revision,
		}.Append(nil),
		told: wire.Party{
			ID: g.id, Instance: g.instance, Observed: g.observed(0), ObservedTCP: g.observed(udpWays),
			Offer: ask.Offer, Channel: p.channel(target), Revision: target.revision,
		}.Append(nil),
	}
	r.stats.Introductions++
	r.answer(g, e, i.answer)
	r.pass(i)
}

// pass remembers an introduction, and tells its target.
func (r *Registry) pass(i *introduction) {
	r.draw(i.toTarget[:])
	i.expires = r.now.Add(introductionLife)
	r.introductions[i.key], r.waiting[i.toTarget] = i, i
	r.recent = append(r.recent, i)
	r.tell(i)
}

func (r *Registry) refuse(g *registration, e wire.Envelope, code int) {
	r.reply(g, stun.NewType(e.Type.Method, stun.ClassErrorResponse), e.ID, code, nil)
}

// target is the process that takes connections for the peer asked for, if it is
// there and lets the asker in. The answer does not say which was missing. A node
// is not introduced to its own ID: the two sides' keys would be one.
func (r *Registry) target(g *registration, ask wire.Ask) *registration {
	if t := r.acceptor(ask.Target); t != nil && t.id != g.id && t.allows(ask.Tags) {
		return t
	}
	return nil
}

// tell sends an introduction to its target, again until it is acknowledged. The
// pause after a try is the same for all introductions, so that each of the rows is
// in the order of time.
func (r *Registry) tell(i *introduction) {
	i.tries++
	if i.tries < tellTries {
		i.nextAt = r.now.Add(tellAgain << min(max(0, i.tries-3), 3))
		r.rows[i.tries-1] = append(r.rows[i.tries-1], i)
	} else {
		delete(r.waiting, i.toTarget)
	}
	content := i.told
	if age := r.now.Sub(i.expires.Add(-introductionLife)).Milliseconds(); age > 0 && i.method == wire.Introduced {
		content = slices.Clip(content)
		content.AddUint32(wire.AttrAge, uint32(age))
	}
	r.reply(i.target, stun.NewType(i.method, stun.ClassRequest), i.toTarget, 0, content)
}

// acknowledged ends the repeats of an introduction.
func (r *Registry) acknowledged(g *registration, e wire.Envelope) {
	if i := r.waiting[e.ID]; i != nil && i.target == g {
		i.told = nil
		delete(r.waiting, e.ID)
	}
}

// retransmit repeats what is due.
func (r *Registry) retransmit() {
	for try := range r.rows {
		for len(r.rows[try]) > 0 {
			i := r.rows[try][0]
			wanted := i.told != nil && !i.target.gone
			if wanted && r.now.Before(i.nextAt) {
				break
			}
			r.rows[try][0] = nil
			r.rows[try] = r.rows[try][1:]
			if wanted {
				r.tell(i)
			} else {
				delete(r.waiting, i.toTarget)
			}
		}
	}
}

// forgetIntroductions forgets what nobody can repeat any more.
func (r *Registry) forgetIntroductions() {
	for len(r.recent) > 0 && !r.now.Before(r.recent[0].expires) {
		delete(r.introductions, r.recent[0].key)
		r.recent[0] = nil
		r.recent = r.recent[1:]
	}
}
