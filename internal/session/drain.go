package session

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
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
	mu       sync.Mutex
	unread   map[uint64]bool // streams that we have not read to the end
	highest  int64           // the latest stream that the peer opened; -1: none
	ended    map[uint64]bool // streams whose end we have written
	settling bool            // some of these are being asked for
	leaving  bool            // the peer asked to be let go: it reads no more
	changed  chan struct{}
}

const (
	// maxDrain bounds how many ended streams are remembered and asked for.
	maxDrain = 1 << 14
	// settleAt is how many make us ask in between, to forget those that were
	// read: a connection that lives for long ends any number of streams.
	settleAt = 1 << 10
)

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

// finished remembers a stream that we have ended, and reports whether it is time
// to settle.
func (l *ledger) finished(id uint64) (settle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ended) < maxDrain {
		l.ended[id] = true
	}
	settle = len(l.ended) >= settleAt && !l.settling
	l.settling = l.settling || settle
	return settle
}

// open are the streams that we have ended, and that the peer may not have read.
func (l *ledger) open() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.ended))
}

// settled forgets streams that the peer has read.
func (l *ledger) settled(ids []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		delete(l.ended, id)
	}
	l.settling = false
}

// finished notes that we have ended a stream.
func (s *session) finished(id uint64) {
	if !s.ledger.finished(id) || !s.m.begin() {
		return
	}
	go func() {
		defer s.m.wg.Done()
		ids := s.ledger.open()
		if s.ask(s.conn.Context(), kindSettle, ids) == nil {
			s.ledger.settled(ids)
		}
	}()
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
	err := s.ask(ctx, kindDrain, s.ledger.open())
	if errors.Is(context.Cause(ctx), errPeerLeaves) {
		return nil
	}
	return err
}

// ask asks the peer about streams, and returns when it has read all of them. With
// kindDrain it also says that we leave.
func (s *session) ask(ctx context.Context, k kind, ids []uint64) error {
	if len(ids) == 0 {
		return nil
	}
	var list []byte
	for _, id := range ids {
		list = quicvarint.Append(list, id)
	}
	stream, err := s.open(ctx, k, "")
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

func (s *session) answerDrain(stream *quic.Stream, k kind) {
	ids, err := readDrain(stream)
	if err != nil {
		s.refuse(stream, codeBadHeader)
		return
	}
	if k == kindDrain {
		s.ledger.peerLeaves()
	}
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
