package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"bodkin/peer"
)

// Serve takes requests until ctx ends, and does what allow says may be done: it is
// asked for each connection, so that what it says may change meanwhile. A connection
// that was allowed stays. Serve returns an error if it cannot begin or go on. Calls of
// tell do not overlap.
func Serve(ctx context.Context, n Node, allow func(peer.ID, Wish) bool, tell func(Event)) error {
	l, err := n.Listen(ctx, Service)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &server{node: n, allow: allow, say: tell, told: make(map[denial]bool), remote: make(map[uint64]*remote)}
	defer s.wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	s.tell(Event{Kind: Serving})
	for {
		c, err := l.AcceptConn()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.wg.Go(func() { s.serve(ctx, c) })
	}
}

// requestTime is how long a stream may take to say what it is for.
const requestTime = 30 * time.Second

// server is the serving side.
type server struct {
	node  Node
	allow func(peer.ID, Wish) bool
	say   func(Event)
	wg    sync.WaitGroup

	mu     sync.Mutex
	told   map[denial]bool
	last   uint64
	remote map[uint64]*remote // by number
}

// denial is what was refused to whom.
type denial struct {
	id   peer.ID
	wish Wish
}

// maxTold bounds the denials that are remembered, each of which is told once.
const maxTold = 256

func (s *server) tell(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say(e)
}

// denied tells that a peer wanted what is not allowed.
func (s *server) denied(id peer.ID, w Wish) {
	f := Forward{Peer: id, To: w.Endpoint}
	if w.Reverse {
		f = Forward{Peer: id, Listen: w.Endpoint, Reverse: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := (denial{id, w}); !s.told[d] && len(s.told) < maxTold {
		s.told[d] = true
		s.say(Event{Kind: Denied, Forward: f})
	}
}

// serve does what one stream is for.
func (s *server) serve(ctx context.Context, c Incoming) {
	late := time.AfterFunc(requestTime, func() { _ = c.Abort() })
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	q, err := readRequest(c)
	late.Stop()
	stop()
	switch {
	case errors.Is(err, errVersion):
		refuse(c, reply{status: statusVersion})
		return
	case err != nil:
		_ = c.Abort()
		return
	}
	if q.op == opTake {
		s.take(c, q)
		return
	}
	w := Wish{Endpoint: Endpoint{q.network, q.text}, Reverse: q.op == opListen}
	if err := w.check(); err != nil {
		refuse(c, reply{statusFailed, err.Error()})
		return
	}
	if !s.allow(c.Peer(), w) {
		s.denied(c.Peer(), w)
		refuse(c, reply{status: statusNotAllowed})
		return
	}
	switch q.op {
	case opAsk:
		refuse(c, reply{})
	case opListen:
		s.listen(ctx, c, w)
	default:
		_ = connect(ctx, c, w.Endpoint)
	}
}

// check says what is wrong with what a peer asks for. It may be anything.
func (w Wish) check() error {
	if w.Network == Unix {
		if w.Address == "" || w.Address[0] == '@' {
			return fmt.Errorf("%q is no path of a socket", w.Address)
		}
		return nil
	}
	text := Endpoint{w.Network, w.Address}.String()
	parser := ParseTarget
	if w.Reverse {
		parser = ParseListen
	}
	e, err := parser(text)
	if err != nil {
		return err
	}
	if e != w.Endpoint {
		return fmt.Errorf("%q is not written as it should be", w.Address)
	}
	return nil
}
