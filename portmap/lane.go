package portmap

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"
)

// lane keeps one mapping at one address of ours.
type lane struct {
	place

	mapping *Mapping
	ask     ask
	cancel  context.CancelCauseFunc
	done    chan struct{}
	hint    chan struct{} // due has changed

	// The lane's goroutine's:
	failures int
	had      grant     // what was granted last, also when it is lost
	asked    *speaker  // by whom an answer is still to come
	until    time.Time // when the grant ends, if it is not renewed

	// Under the Client's mutex:
	due     time.Time
	serving *speaker // who granted; nil if there is no grant
	grant   Grant
	err     error // the last refusal
}

// lane starts one; the Client's mutex is held.
func (m *Mapping) lane(p place) *lane {
	due := time.Now()
	if !m.client.settled(p.device) {
		due = due.Add(grace) // somebody better may be about to be found
	}
	l := &lane{
		place: p, mapping: m, ask: m.ask, done: make(chan struct{}), hint: make(chan struct{}, 1), due: due,
	}
	l.ask.internal = netip.AddrPortFrom(p.addr, m.ask.internal.Port())
	var ctx context.Context
	ctx, l.cancel = context.WithCancelCause(m.closed)
	m.client.lanes.Go(func() {
		defer close(l.done)
		l.run(ctx)
	})
	return l
}

// begin has a lane without a grant ask. The Client's mutex is held.
func (l *lane) begin(after time.Duration) {
	if l.serving == nil {
		l.advance(time.Now().Add(after))
	}
}

// hurry brings the next request forward: at once if there is no grant, and if a
// grant may be lost, within the spread. The Client's mutex is held.
func (l *lane) hurry(spread time.Duration) {
	due := time.Now()
	if l.serving != nil {
		due = due.Add(rand.N(spread))
	}
	l.advance(due)
}

// advance makes the next request due, if it is not earlier.
func (l *lane) advance(due time.Time) {
	if !l.due.IsZero() && l.due.Before(due) {
		return
	}
	l.due = due
	select {
	case l.hint <- struct{}{}:
	default:
	}
}

func (l *lane) run(ctx context.Context) {
	c := l.mapping.client
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.hint:
		case <-ctx.Done():
			l.end(ctx)
			return
		}
		c.mu.Lock()
		due := l.due
		c.mu.Unlock()
		switch {
		case due.IsZero(): // until somebody is found
			timer.Stop()
			continue
		case time.Until(due) > 0:
			timer.Reset(time.Until(due))
			continue
		}
		c.mu.Lock()
		l.due = time.Time{}
		c.mu.Unlock()
		wait := l.request(ctx)
		c.mu.Lock()
		if next := time.Now().Add(wait); wait > 0 && (l.due.IsZero() || l.due.After(next)) {
			l.due = next
		}
		if !l.due.IsZero() {
			timer.Reset(time.Until(l.due))
		}
		c.mu.Unlock()
	}
}

const (
	// answerWait is how long a router that speaks a protocol has to answer, if
	// there is another way to ask, and answerMost if there is none.
	answerWait = 5 * time.Second
	answerMost = 30 * time.Second
	// deleteWait is how long it has to take a mapping back.
	deleteWait = time.Second
)

// request asks, or renews, and says when to do so next: 0 is when somebody is
// found.
func (l *lane) request(ctx context.Context) time.Duration {
	speakers, _ := l.mapping.client.speakers(l)
	if next, kept := l.renew(ctx, speakers); kept || ctx.Err() != nil {
		return next
	}
	var told time.Duration
	var last error
	for i, s := range speakers {
		wait := answerWait
		if i == len(speakers)-1 {
			wait = answerMost
		}
		g, err := l.open(ctx, s, wait)
		if err == nil {
			return l.granted(s, g)
		}
		if ctx.Err() != nil {
			return 0
		}
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			told = max(told, refused.Retry)
		}
		last = errors.Join(last, err)
	}
	if last == nil {
		return 0
	}
	l.refused(last)
	l.failures++
	return retry(l.failures-1, errors.Is(last, ErrDenied), told)
}

// open asks one speaker.
func (l *lane) open(ctx context.Context, s *speaker, wait time.Duration) (grant, error) {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	l.asked = s
	g, err := s.protocol.open(within, l.ask, l.had)
	if ctx.Err() == nil {
		l.asked = nil
	}
	if errors.Is(err, ErrSilent) && ctx.Err() == nil && !l.holds() {
		l.mapping.client.silent(s, err)
	}
	return g, err
}

// renew asks the router that granted. A silent one is asked again as long as the
// grant lasts; one that refuses, or is no longer there, has ended it.
func (l *lane) renew(ctx context.Context, speakers []*speaker) (next time.Duration, kept bool) {
	s := l.server()
	if s == nil {
		return 0, false
	}
	err := ErrNoGateway
	for _, x := range speakers {
		if x == s {
			var g grant
			if g, err = l.open(ctx, s, answerMost); err == nil {
				return l.granted(s, g), true
			}
		}
	}
	if ctx.Err() != nil {
		return 0, false
	}
	left := time.Until(l.until)
	if errors.Is(err, ErrSilent) && (l.had.lifetime == 0 || left > minRenewal) {
		if l.had.lifetime == 0 {
			return retryFirst, true
		}
		return renewal(left, rand.Float64()), true
	}
	l.lost(err)
	return 0, false
}

func (l *lane) server() *speaker {
	l.mapping.client.mu.Lock()
	defer l.mapping.client.mu.Unlock()
	return l.serving
}

func (l *lane) holds() bool { return l.server() != nil }

// granted publishes a grant and says when to renew it.
func (l *lane) granted(s *speaker, g grant) time.Duration {
	c, now := l.mapping.client, time.Now()
	l.failures, l.had, l.until = 0, g, now.Add(g.lifetime)
	x := Grant{
		Protocol: s.protocol.name(), Interface: s.router.gateway.Interface, Gateway: s.router.gateway.Addr,
		Transport: l.ask.transport, Internal: l.ask.internal, External: g.external, Lifetime: g.lifetime, Since: now,
	}
	kind := EventGranted
	c.mu.Lock()
	if l.serving == s && l.grant.External == x.External {
		kind, x.Since, x.Verdict = EventRenewed, l.grant.Since, l.grant.Verdict
	}
	l.serving, l.grant, l.err = s, x, nil
	l.due = time.Time{} // whatever happened meanwhile, this answer is newer
	l.mapping.notify()
	c.mu.Unlock()
	c.tell(Event{Kind: kind, Protocol: x.Protocol, Gateway: x.Gateway, External: x.External.Addr(), Grant: x})
	if kind == EventGranted {
		l.check(x)
	}
	if g.lifetime == 0 {
		return permanentRenewal
	}
	return renewal(g.lifetime, rand.Float64())
}

// check has somebody outside say what a grant is worth, beside everything else.
func (l *lane) check(g Grant) {
	c := l.mapping.client
	if c.config.Check == nil {
		return
	}
	c.lanes.Go(func() {
		v := c.config.Check(l.mapping.closed, g)
		c.mu.Lock()
		stands := l.serving != nil && l.grant.External == g.External && v != ""
		if stands {
			l.grant.Verdict = v
			g = l.grant
			l.mapping.notify()
		}
		c.mu.Unlock()
		if stands {
			c.tell(Event{Kind: EventChecked, Protocol: g.Protocol, Gateway: g.Gateway, External: g.External.Addr(), Grant: g})
		}
	})
}

func (l *lane) refused(err error) {
	c := l.mapping.client
	c.mu.Lock()
	l.err = err
	l.mapping.notify()
	c.mu.Unlock()
	e := Event{Kind: EventRefused, Err: err}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		e.Protocol, e.Gateway = refused.Protocol, refused.Gateway
	}
	c.tell(e)
}

// lost withdraws the grant.
func (l *lane) lost(err error) { l.withdraw(EventLost, err) }

func (l *lane) withdraw(kind EventKind, err error) {
	c := l.mapping.client
	c.mu.Lock()
	g := l.grant
	l.serving, l.grant, l.err = nil, Grant{}, err
	l.mapping.notify()
	c.mu.Unlock()
	c.tell(Event{Kind: kind, Protocol: g.Protocol, Gateway: g.Gateway, External: g.External.Addr(), Grant: g, Err: err})
}

// end gives the grant back, unless its router is no longer there.
func (l *lane) end(ctx context.Context) {
	s := l.server()
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errDetached):
		return
	case s == nil:
		s = l.asked // it may have granted what we did not hear of
		if s == nil || errors.Is(cause, ErrNoGateway) {
			return
		}
	case errors.Is(cause, ErrNoGateway):
		l.lost(cause)
		return
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteWait)
	defer cancel()
	err := s.protocol.remove(within, l.ask, l.had)
	switch {
	case !l.holds():
	case err != nil:
		l.lost(err)
	default:
		l.withdraw(EventDeleted, nil)
	}
}
