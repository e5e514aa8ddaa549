package rendezvous

import (
	"slices"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// introduction is one node's request for another, while it may be repeated. It
// is kept by the asker's handle and transaction, so that a repeated request gets
// the same answer and the target is not told twice.
type introduction struct {
	asker    *registration
	target   *registration
	answer   wire.Attrs // to the asker
	told     wire.Attrs // to the target
	toTarget wire.TransactionID
	tries    int
	nextAt   time.Time // when the target is told again; zero: it knows
	expires  time.Time
}

type introductionKey struct {
	handle wire.Handle
	id     wire.TransactionID
}

const (
	// tellAgain is when an introduction is repeated to the target: its round
	// trip is not known, and most are shorter.
	tellAgain = 120 * time.Millisecond
	tellTries = 7
	// introductionLife covers all repeats of the asker.
	introductionLife = 15 * time.Second
)

// introduce tells both at once: in the same instant the asker is answered with
// the target's endpoints, and the target is told the asker's. Neither side's
// first probe can then reach the other's NAT before it can have been opened from
// inside: owd(S,A) + owd(A,B) >= owd(S,B), and its mirror.
func (r *Registry) introduce(g *registration, e wire.Envelope, content wire.Attrs) {
	key := introductionKey{g.handle, e.ID}
	if i := r.introductions[key]; i != nil {
		r.answer(g, e, i.answer)
		return
	}
	ask, err := wire.ParseAsk(content)
	if err != nil {
		r.stats.Malformed++
		return
	}
	if !g.asks.take(r.now, 1, r.limits.Introductions, 2*r.limits.Introductions) {
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
	if !target.asked.take(r.now, 1, r.limits.Introduced, 3*r.limits.Introduced) {
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
		asker: g, target: target, expires: r.now.Add(introductionLife),
		answer: wire.Party{
			ID: target.node.id, Instance: target.node.instance, Observed: target.observed(),
			Description: target.description, Channel: ask.Channel, Revision: target.revision,
		}.Append(nil),
		told: wire.Party{
			ID: g.node.id, Instance: g.node.instance, Observed: g.observed(),
			Offer: ask.Offer, Channel: p.channel(target), Revision: target.revision,
		}.Append(nil),
	}
	r.draw(i.toTarget[:])
	r.introductions[key], r.waiting[i.toTarget] = i, i
	r.stats.Introductions++
	r.answer(g, e, i.answer)
	r.tell(i)
}

func (r *Registry) refuse(g *registration, e wire.Envelope, code int) {
	r.reply(g, stun.NewType(wire.Introduce, stun.ClassErrorResponse), e.ID, code, nil)
}

// target is the process that takes connections for the peer asked for, if it is
// there and lets the asker in. The answer does not say which was missing.
func (r *Registry) target(g *registration, ask wire.Ask) *registration {
	who := r.byID[ask.Target]
	if who == nil || who.accepting == nil || who.accepting == g {
		return nil
	}
	t := who.accepting
	if t.gone || t.flags&wire.FlagDisplaced != 0 {
		return nil
	}
	if t.flags&wire.FlagOpen != 0 || slices.ContainsFunc(ask.Tags, func(tag wire.Tag) bool { return slices.Contains(t.tags, tag) }) {
		return t
	}
	return nil
}

// tell sends an introduction to its target, again until it is acknowledged.
func (r *Registry) tell(i *introduction) {
	i.tries++
	i.nextAt = r.now.Add(tellAgain << min(i.tries-1, 4))
	if i.tries >= tellTries {
		i.nextAt = time.Time{}
	}
	r.reply(i.target, stun.NewType(wire.Introduced, stun.ClassRequest), i.toTarget, 0, i.told)
}

// acknowledged ends the repeats of an introduction.
func (r *Registry) acknowledged(g *registration, e wire.Envelope) {
	if i := r.waiting[e.ID]; i != nil && i.target == g {
		i.nextAt = time.Time{}
		delete(r.waiting, e.ID)
	}
}

// retransmit repeats what is due and returns when the next one is.
func (r *Registry) retransmit() (next time.Time) {
	for id, i := range r.waiting {
		if !i.nextAt.IsZero() && !r.now.Before(i.nextAt) && !i.target.gone {
			r.tell(i)
		}
		if i.nextAt.IsZero() || i.target.gone {
			delete(r.waiting, id)
			continue
		}
		if next.IsZero() || i.nextAt.Before(next) {
			next = i.nextAt
		}
	}
	return next
}
