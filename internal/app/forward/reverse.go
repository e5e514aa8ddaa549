package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// spares are the streams that wait for clients at the peer beside those that it
	// asks for, so that the first ones need not wait for a round trip.
	spares = 2
	// maxSpares bounds them where a peer asks for more than it has clients.
	maxSpares = 64
	// firstRetry and lastRetry are how long a reverse forward waits before it asks
	// the peer again to listen.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// checkEvery is how often it makes sure that the peer is still there: nothing
	// else would tell that a peer which listens for us has gone.
	checkEvery = 30 * time.Second
)

// replaced is what the peer says when another forward of ours listens there now.
const replaced byte = 'R'

// ErrReplaced is returned by Run when another process with this node's key has the
// peer listen at the same endpoint.
var ErrReplaced = errors.New("another forward with this key listens there now")

// reverse has the peer listen for as long as ctx, and connects its clients with the
// target here.
func (r *runner) reverse(ctx context.Context) error {
	wait := firstRetry
	for {
		began := time.Now()
		err := r.reverseOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrReplaced) {
			return err
		}
		r.failed(err)
		if time.Since(began) > lastRetry {
			wait = firstRetry
		}
		if !rest(ctx, wait) {
			return nil
		}
		wait = min(2*wait, lastRetry)
	}
}

// reverseOnce has the peer listen until that ends.
func (r *runner) reverseOnce(ctx context.Context) error {
	c, err := r.request(ctx, request{op: opListen, network: r.Listen.Network, text: r.Listen.Address})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	defer stop()
	text, err := readReply(c)
	if err != nil {
		return err
	}
	if len(text) < numberSize {
		return errMalformed
	}
	number, at := text[:numberSize], r.Listen
	if at.Network != Unix {
		at.Address = text[numberSize:]
	}
	r.listening(at)
	wg.Go(func() { r.check(ctx, cancel) })
	free := make(chan struct{}, maxSpares)
	spare := func() {
		select {
		case free <- struct{}{}:
			wg.Go(func() {
				r.spare(ctx, number, func() { <-free })
			})
		default:
		}
	}
	for range spares {
		spare()
	}
	var b [1]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return noEOF(err)
		}
		switch b[0] {
		case wanted:
			spare()
		case replaced:
			return ErrReplaced
		}
	}
}

// listening tells where the peer listens, if it is news.
func (r *runner) listening(at Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = ""
	e := Event{Kind: Listening, Forward: r.Forward}
	e.Forward.Listen = at
	r.say(e)
}

// spare is a stream that waits for a client, and is that client's then.
func (r *runner) spare(ctx context.Context, number string, gone func()) {
	c, err := r.request(ctx, request{op: opTake, network: r.Listen.Network, text: number})
	if err != nil {
		gone()
		return // the peer's listening ends, too
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	var b [1]byte
	_, err = io.ReadFull(c, b[:])
	gone()
	stop()
	if err != nil || b[0] != taken {
		_ = c.Abort()
		return
	}
	if err := connect(ctx, r.counted(c), r.To); err != nil && ctx.Err() == nil {
		r.complain(Event{Kind: Missed, Err: err}, err.Error())
	}
}

// check ends the forward when the peer is no longer there.
func (r *runner) check(ctx context.Context, gone func()) {
	for rest(ctx, checkEvery) {
		c, err := r.request(ctx, request{op: opAsk, network: r.To.Network, text: r.To.Address})
		if err == nil {
			stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
			_, err = readReply(c)
			stop()
			_ = c.Close()
		}
		var refused *RefusedError
		if err != nil && !errors.As(err, &refused) {
			gone()
			return
		}
	}
}

// numberSize is that of a listener's number, in bytes.
const numberSize = 8

// remote is a port here on which we listen for a peer.
type remote struct {
	denial
	number uint64
	spares chan Conn // streams of the peer's that wait for a client
	end    context.CancelFunc
	done   chan struct{} // closed when the port is free again

	mu      sync.Mutex // of writing
	control Conn
}

// listen listens for a peer until its stream ends.
func (s *server) listen(ctx context.Context, c Incoming, w Wish) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	r := &remote{
		denial: denial{c.Peer(), w}, spares: make(chan Conn, maxSpares), control: c, end: cancel, done: make(chan struct{}),
	}
	s.add(r)
	defer s.remove(r)
	e := entry{open: r.open, failed: func(error) {}, worked: func() {}}
	at, serve, err := e.listen(ctx, w.Endpoint)
	if err != nil {
		refuse(c, replyTo(err))
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { serve(ctx) })
	text := string(binary.BigEndian.AppendUint64(nil, r.number)) + at.Address
	if _, err := c.Write(reply{text: text}.bytes()); err != nil {
		return
	}
	// Nothing is ever written to it: its end is the forward's.
	var b [1]byte
	_, _ = io.ReadFull(c, b[:])
}

// add gives a listener its number. Another one of the same peer at the same endpoint
// is over: the peer was started again, and we may not know yet that it had gone.
func (s *server) add(r *remote) {
	s.mu.Lock()
	s.last++
	r.number = s.last
	var old []*remote
	for _, o := range s.remote {
		if o.denial == r.denial {
			old = append(old, o)
		}
	}
	s.remote[r.number] = r
	s.mu.Unlock()
	for _, o := range old {
		_ = o.say(replaced)
		o.end()
		<-o.done
	}
}

// remove forgets a listener, and lets go of the streams that wait for its clients.
func (s *server) remove(r *remote) {
	s.mu.Lock()
	delete(s.remote, r.number)
	s.mu.Unlock()
	for {
		select {
		case c := <-r.spares:
			_ = c.Abort()
		default:
			close(r.done)
			return
		}
	}
}

// take keeps a stream for the next client.
func (s *server) take(c Incoming, q request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(q.text) == numberSize {
		r := s.remote[binary.BigEndian.Uint64([]byte(q.text))]
		if r != nil && r.id == c.Peer() {
			select {
			case r.spares <- c:
				return
			default:
			}
		}
	}
	_ = c.Abort()
}

func (r *remote) say(b byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.control.Write([]byte{b})
	return err
}

// open asks for one more stream, and takes the one that has waited longest.
func (r *remote) open(ctx context.Context) (Conn, error) {
	for {
		if err := r.say(wanted); err != nil {
			return nil, err
		}
		select {
		case c := <-r.spares:
			if _, err := c.Write([]byte{taken}); err == nil {
				return c, nil
			}
			_ = c.Abort()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
