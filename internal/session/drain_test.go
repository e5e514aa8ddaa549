package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/punch"

	"github.com/quic-go/quic-go/quicvarint"
)

// bulk is a reader of n bytes that follow no short pattern.
func bulk(n int) io.Reader {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return bytes.NewReader(b)
}

// The writer ends at once after its last byte; the reader begins a minute later.
func TestNothingIsLostAtShutdown(t *testing.T) {
	for name, loss := range map[string]float64{"clean": 0, "with loss": 0.1} {
		t.Run(name, func(t *testing.T) {
			scenario(t, func(t *testing.T, a, b *node) {
				a.hub.loss = loss
				at, bt := pair(t, a, b, b.listen(t, "file"))
				const size = 10 << 20
				done := make(chan error, 1)
				go func() {
					_, err := io.Copy(at, bulk(size))
					err = errors.Join(err, at.Close())
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					done <- errors.Join(err, a.Shutdown(ctx))
				}()
				time.Sleep(time.Minute)
				got, err := io.ReadAll(bt)
				want, _ := io.ReadAll(bulk(size))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d arrived, %v", len(got), size, err)
				}
				if err := <-done; err != nil {
					t.Errorf("the writer ended with %v", err)
				}
			})
		})
	}
}

func TestShutdownWithNothingToSayIsQuick(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		pair(t, a, b, b.listen(t, "echo"))
		begin := time.Now()
		if err := a.Shutdown(t.Context()); err != nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestShutdownGivesUpOnAReaderThatDoesNotRead(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		mustWrite(t, at, "unread")
		_ = at.CloseWrite()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		if err := a.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		_ = bt
	})
}

func TestShutdownWhenThePeerIsGone(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, _ := pair(t, a, b, b.listen(t, "echo"))
		mustWrite(t, at, "unread")
		_ = at.CloseWrite()
		time.AfterFunc(time.Second, func() { _ = b.Close() })
		if err := a.Shutdown(t.Context()); err != nil {
			t.Errorf("it read what it wanted: %v", err)
		}
	})
}

// A reader that closes has read what it wanted.
func TestShutdownDoesNotWaitForAReaderThatClosed(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		mustWrite(t, at, "unread")
		_ = at.CloseWrite()
		synctest.Wait()
		_ = bt.Close()
		begin := time.Now()
		if err := a.Shutdown(t.Context()); err != nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// Both end at the same time, each with words that the other is still to read.
func TestBothShutDownAtOnce(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		var wg sync.WaitGroup
		for n, c := range map[*node]*Conn{a: at, b: bt} {
			wg.Go(func() {
				mustWrite(t, c, "goodbye")
				_ = c.CloseWrite()
				mustRead(t, c, "goodbye")
				mustEnd(t, c)
				if err := n.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// The answerer's words are not lost either, and the route may be gone for a while.
func TestShutdownOutlastsAnOutage(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		mustWrite(t, bt, "the answer")
		_ = bt.CloseWrite()
		a.hub.block(punch.Relay, true)
		done := make(chan error, 1)
		go func() { done <- b.Shutdown(t.Context()) }()
		time.Sleep(20 * time.Second)
		a.hub.block(punch.Relay, false)
		mustRead(t, at, "the answer")
		mustEnd(t, at)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What is remembered of ended streams does not grow with a session's life, and
// the last of very many streams is still asked for.
func TestEndedStreamsAreSettled(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listen(t, "echo")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}
		}()
		var s *session
		for range 3 * settleAt {
			c := a.connect(t, b, "echo")
			mustWrite(t, c, "x")
			_ = c.CloseWrite()
			mustRead(t, c, "x")
			mustEnd(t, c)
			_ = c.Close()
			s = c.s
		}
		time.Sleep(time.Second)
		b.each(func(theirs *session) {
			for _, l := range []*ledger{&s.ledger, &theirs.ledger} {
				l.mu.Lock()
				if len(l.ended) > settleAt || len(l.unread) != 0 || l.leaving {
					t.Errorf("%d ended streams are remembered, %d count as unread, leaving is %v", len(l.ended), len(l.unread), l.leaving)
				}
				l.mu.Unlock()
			}
		})
		_ = l.Close()
		at, bt := pair(t, a, b, b.listen(t, "last"))
		mustWrite(t, at, "last words")
		_ = at.CloseWrite()
		done := make(chan error, 1)
		go func() { done <- a.Shutdown(t.Context()) }()
		time.Sleep(10 * time.Second)
		mustRead(t, bt, "last words")
		mustEnd(t, bt)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDrainOfAStreamThatIsStillOnItsWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		l.init()
		done := make(chan error, 1)
		go func() { done <- l.wait(t.Context(), []uint64{0, 4, 1}, 0) }()
		l.accepted(0)
		l.consumed(0)
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("did not wait for stream 4")
		}
		l.accepted(4)
		l.consumed(4)
		if err := <-done; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.wait(ctx, []uint64{8}, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func FuzzReadDrain(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0x40, 0x40})
	f.Add([]byte{0xff, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := readDrain(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again []byte
		for _, id := range ids {
			again = quicvarint.Append(again, id)
		}
		if more, err := readDrain(bytes.NewReader(again)); err != nil || len(more) != len(ids) {
			t.Errorf("%x became %v, %v", b, more, err)
		}
	})
}

func TestDrainListIsBounded(t *testing.T) {
	t.Parallel()
	if ids, err := readDrain(bytes.NewReader(make([]byte, maxDrain))); err != nil || len(ids) != maxDrain {
		t.Errorf("%d, %v", len(ids), err)
	}
	if _, err := readDrain(bytes.NewReader(make([]byte, maxDrain+1))); err == nil {
		t.Error("a list without end was read")
	}
}
