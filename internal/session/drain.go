package session

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin/peer"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Ping measures the round trip to a peer's session and back, over the route that
// data takes.
func (m *Manager) Ping(ctx context.Context, id peer.ID, remote netip.AddrPort) (time.Duration, error) {
	s, err := m.session(ctx, id, remote)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	stream, err := s.open(ctx, kindPing, "")
	if err != nil {
		return 0, err
	}
	defer s.done(stream)
	stop := context.AfterFunc(ctx, func() { stream.CancelRead(codeDone) })
	defer stop()
	_ = stream.Close()
	var b [1]byte
	if _, err := io.ReadFull(stream, b[:]); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, s.explain("", err)
	}
	return time.Since(begin), nil
}

func (s *session) answerPing(stream *quic.Stream) {
	_, _ = stream.Write([]byte{1})
	_ = stream.Close()
	s.done(stream)
}

// done forgets a stream of ours that the application never saw.
func (s *session) done(stream *quic.Stream) {
	stream.CancelRead(codeDone)
	s.ledger.consumed(uint64(stream.StreamID()))
}

// ledger knows which streams still have something to read here, and which ones
// we have ended, so that a process can end without losing what it wrote: QUIC
// does not say when a stream's end was acknowledged, and acknowledged is not
// read.
type ledger struct {
	mu      sync.Mutex
	unread  map[uint64]bool // streams that we have not read to the end
	highest int64           // the latest stream that the peer opened; -1: none
	ended   map[uint64]bool // streams whose end we have written
	leaving bool            // the peer asked to be let go: it reads no more
	changed chan struct{}
}

// maxDrain bounds how many ended streams are remembered and asked for.
const maxDrain = 1 << 14

func (l *ledger) init() {
	l.unread, l.ended = make(map[uint64]bool), make(map[uint64]bool)
	l.highest, l.changed = -1, make(chan struct{})
}

func (l *ledger) opened(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unread[id] = true
}

func (l *ledger) accepted(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unread[id] = true
	l.highest = max(l.highest, int64(id))
}

func (l *ledger) consumed(id uint64) { l.change(func() { delete(l.unread, id) }) }

func (l *ledger) peerLeaves() { l.change(func() { l.leaving = true }) }

// change does f under the lock and wakes those who wait.
func (l *ledger) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *ledger) finished(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ended) < maxDrain {
		l.ended[id] = true
	}
}

// wait returns when all those streams were read to the end here. A stream that
// the peer opened and that has not arrived yet was not.
func (l *ledger) wait(ctx context.Context, ids []uint64, peersParity uint64) error {
	return l.until(ctx, func() bool {
		return !slices.ContainsFunc(ids, func(id uint64) bool {
			return l.unread[id] || id&1 == peersParity && int64(id) > l.highest
		})
	})
}

// until returns when done says so; it is called under the lock at every change.
func (l *ledger) until(ctx context.Context, done func() bool) error {
	for {
		l.mu.Lock()
		ok, changed := done(), l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errPeerLeaves = errors.New("the peer leaves")

// drain asks the peer to say when it has read all that we have ended. A peer that
// asks the same has read what it wanted: it may be gone before it answers.
func (s *session) drain(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if s.ledger.until(ctx, func() bool { return s.ledger.leaving }) == nil {
			cancel(errPeerLeaves)
		}
	}()
	err := s.ask(ctx)
	if errors.Is(context.Cause(ctx), errPeerLeaves) {
		return nil
	}
	return err
}

func (s *session) ask(ctx context.Context) error {
	s.ledger.mu.Lock()
	var list []byte
	for id := range s.ledger.ended {
		list = quicvarint.Append(list, id)
	}
	s.ledger.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	stream, err := s.open(ctx, kindDrain, "")
	if err != nil {
		return err
	}
	defer s.done(stream)
	stop := context.AfterFunc(ctx, func() {
		stream.CancelRead(codeDone)
		stream.CancelWrite(codeDone)
	})
	defer stop()
	if _, err := stream.Write(list); err != nil {
		return err
	}
	_ = stream.Close()
	if _, err := io.Copy(io.Discard, stream); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// The peer ended the connection: it has read what it wanted.
		var app *quic.ApplicationError
		if errors.As(err, &app) && app.Remote {
			return nil
		}
		return err
	}
	return nil
}

func (s *session) answerDrain(stream *quic.Stream) {
	ids, err := readDrain(stream)
	if err != nil {
		s.refuse(stream, codeBadHeader)
		return
	}
	s.ledger.peerLeaves()
	var parity uint64 // of streams that the peer opens: even if it is the client
	if s.dialled {
		parity = 1
	}
	if s.ledger.wait(s.conn.Context(), ids, parity) == nil {
		_ = stream.Close()
	}
	s.done(stream)
}

// readDrain reads the list of a drain: variable-length integers (RFC 9000 §16).
func readDrain(r io.Reader) (ids []uint64, err error) {
	b := bufio.NewReader(r)
	for {
		id, err := quicvarint.Read(b)
		switch {
		case errors.Is(err, io.EOF):
			return ids, nil
		case err != nil:
			return nil, err
		case len(ids) == maxDrain:
			return nil, errHeader
		}
		ids = append(ids, id)
	}
}

// Shutdown waits until the peers have read what was written to streams that were
// ended, or ctx ends, and then closes the Manager.
func (m *Manager) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	m.each(func(s *session) {
		wg.Go(func() {
			if err := s.drain(ctx); err != nil && s.conn.Context().Err() == nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	})
	wg.Wait()
	return errors.Join(append(errs, m.Close())...)
}
