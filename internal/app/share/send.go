package share

import (
	"context"
	"errors"
	"sync"

	"bodkin/peer"
)

// Sender gives a Source to others.
type Sender struct {
	Options
	Node   Node
	Source *Source

	mu     sync.Mutex
	opened bool // the stream has been read from
}

var errSpent = &stopError{failOther, errors.New("a stream cannot be sent twice; start it again on both sides")}

// To sends to a peer that listens, or will: it dials until the peer is there, and again when
// it went away.
func (s *Sender) To(ctx context.Context, id peer.ID) error {
	return s.persist(ctx, id, func(ctx context.Context) error {
		l, err := dial(ctx, s.Node, id, roleSend)
		if err != nil {
			return err
		}
		return s.run(ctx, l)
	})
}

// run is one transfer, to its end.
func (s *Sender) run(ctx context.Context, l *link) error {
	o := &outgoing{src: s.Source, link: l, gate: s.gate(s.Node, l.peer), pace: pace{rate: s.Rate}, did: &Progress{}}
	o.begun = func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.opened && s.Source.stream != nil {
			return errSpent
		}
		s.opened = true
		s.tell(Notice{Kind: NoticeBegun, Peer: l.peer, Progress: o.did})
		return nil
	}
	err := o.run(ctx)
	l.end(err)
	if err == nil {
		s.tell(Notice{Kind: NoticeDone, Peer: l.peer, Progress: o.did})
	} else if o.did.Counts().Sent > 0 {
		err = &brokenError{err}
	}
	return err
}

// ended is how a transfer ended.
type ended struct {
	link *link
	err  error
}

// Serve sends to those who come and are admitted, until it has reached so many of them. One
// that went away may come back and go on; one that will never come is told of by missing.
func (s *Sender) Serve(ctx context.Context, l Listener, admit func(peer.ID) bool, receivers int, missing <-chan error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := newHub(ctx, roleSend, admit)
	go func() { cancel(h.run(l)) }()
	running := make(map[peer.ID]*link)
	ends, over := make(chan ended), make(map[peer.ID]bool)
	count := 0 // of those whose end has not been heard of
	var failed error
	for len(over) < receivers || count > 0 {
		select {
		case l := <-h.found:
			if old := running[l.peer]; old != nil {
				old.cancel(errEnded) // it has come back
			}
			running[l.peer] = l
			count++
			go func() { ends <- ended{l, s.run(ctx, l)} }()
		case e := <-ends:
			count--
			id := e.link.peer
			if running[id] != e.link {
				continue // another took its place
			}
			delete(running, id)
			if s.goesOn(e.err) {
				s.tell(Notice{Kind: NoticeWaiting, Peer: id, Error: e.err})
				continue
			}
			over[id] = true
			if e.err != nil && receivers > 1 {
				s.tell(Notice{Kind: NoticeFailed, Peer: id, Error: e.err})
			}
			if e.err != nil {
				failed = e.err
			}
		case err := <-missing:
			if receivers--; receivers > 0 {
				s.tell(Notice{Kind: NoticeFailed, Error: err})
			}
			failed = err
		case <-ctx.Done():
			for range count {
				<-ends
			}
			return context.Cause(ctx)
		}
	}
	return failed
}

// goesOn reports whether a peer may come back after an error.
func (s *Sender) goesOn(err error) bool {
	return err != nil && passing(err) && (s.Source.stream == nil || !began(err))
}
