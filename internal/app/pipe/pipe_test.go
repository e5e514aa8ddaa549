package pipe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"bodkin/internal/app/pipe"
)

// conn is one end of a connection in memory, whose two directions end apart as
// a stream's do.
type conn struct {
	in     *io.PipeReader
	out    *io.PipeWriter
	ctx    context.Context
	cancel context.CancelFunc
}

var (
	errBroken = errors.New("broken off")
	errUnread = errors.New("not read")
)

// connect makes both ends.
func connect() (a, b *conn) {
	a, b = &conn{}, &conn{}
	a.in, b.out = io.Pipe()
	b.in, a.out = io.Pipe()
	for _, c := range []*conn{a, b} {
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
	return a, b
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *conn) Context() context.Context    { return c.ctx }

func (c *conn) CloseWrite() error {
	c.cancel()
	return c.out.Close()
}

func (c *conn) Close() error {
	_ = c.in.CloseWithError(errUnread)
	return c.CloseWrite()
}

func (c *conn) Abort() error {
	c.cancel()
	_ = c.in.CloseWithError(errUnread)
	return c.out.CloseWithError(errBroken)
}

// unread gives up on what the other end writes: its Context ends.
func (c *conn) unread(other *conn) {
	_ = c.in.CloseWithError(errUnread)
	other.cancel()
}

// silent is an input that has nothing and does not end.
func silent(t *testing.T) io.Reader {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	return r
}

func TestBothDirectionsReachTheirEnds(t *testing.T) {
	t.Parallel()
	a, b := connect()
	var atA, atB bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := pipe.Run(t.Context(), a, pipe.Streams{In: strings.NewReader("from a"), Out: &atA}); err != nil {
			t.Error(err)
		}
	})
	if err := pipe.Run(t.Context(), b, pipe.Streams{In: strings.NewReader("from b"), Out: &atB}); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if atA.String() != "from b" || atB.String() != "from a" {
		t.Errorf("a has %q, b has %q", &atA, &atB)
	}
}

func TestRunLastsUntilTheInputEndsToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := connect()
		in, typed := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- pipe.Run(t.Context(), a, pipe.Streams{In: in, Out: io.Discard}) }()
		_ = b.CloseWrite()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("ended with the peer's direction: %v", err)
		default:
		}
		go func() { _, _ = typed.Write([]byte("late")); _ = typed.Close() }()
		if got, err := io.ReadAll(b); string(got) != "late" || err != nil {
			t.Errorf("peer read %q, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestPersonNeedNotEndTheInput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := connect()
		done := make(chan error, 1)
		go func() { done <- pipe.Run(t.Context(), a, pipe.Streams{In: silent(t), Out: io.Discard, Person: true}) }()
		synctest.Wait()
		_ = b.CloseWrite()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("peer read %v instead of the end", err)
		}
	})
}

func TestPeerThatReadsNoMoreEndsAnIdleInput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := connect()
		done := make(chan error, 1)
		go func() { done <- pipe.Run(t.Context(), a, pipe.Streams{In: silent(t), Out: io.Discard}) }()
		synctest.Wait()
		b.unread(a)
		_ = b.CloseWrite()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestPeerThatReadsNoMoreIsAnErrorForWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := connect()
		done := make(chan error, 1)
		go func() { done <- pipe.Run(t.Context(), a, pipe.Streams{In: strings.NewReader("more"), Out: io.Discard}) }()
		synctest.Wait() // the Write waits for a Read
		_ = b.CloseWrite()
		synctest.Wait()
		b.unread(a)
		if err := <-done; !errors.Is(err, errUnread) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestErrorsBreakTheConnectionOff(t *testing.T) {
	t.Parallel()
	bad := errors.New("disk is gone")
	for name, s := range map[string]pipe.Streams{
		"of the input":  {In: io.MultiReader(strings.NewReader("part"), iotest.ErrReader(bad)), Out: io.Discard},
		"of the output": {In: silent(t), Out: failing{bad}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := connect()
			go func() { _, _ = b.Write([]byte("something")) }()
			read := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, b)
				read <- err
			}()
			if err := pipe.Run(t.Context(), a, s); !errors.Is(err, bad) {
				t.Errorf("ended with %v", err)
			}
			if err := <-read; !errors.Is(err, errBroken) {
				t.Errorf("the peer took it for the whole: %v", err)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestInterruptBreaksTheConnectionOff(t *testing.T) {
	t.Parallel()
	a, b := connect()
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupt := errors.New("interrupted")
	cancel(interrupt)
	if err := pipe.Run(ctx, a, pipe.Streams{In: silent(t), Out: io.Discard}); !errors.Is(err, interrupt) {
		t.Errorf("ended with %v", err)
	}
	if _, err := io.ReadAll(b); !errors.Is(err, errBroken) {
		t.Errorf("the peer took it for the whole: %v", err)
	}
}

func TestTurnsLoseNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in, typed := io.Pipe()
		turns := pipe.NewTurns(in)
		first := turns.Take()
		waiting := make(chan error, 1)
		go func() {
			_, err := first.Read(make([]byte, 10))
			waiting <- err
		}()
		synctest.Wait()
		_ = first.Close()
		if err := <-waiting; !errors.Is(err, io.EOF) {
			t.Errorf("a turn that ended: %v", err)
		}
		go func() { _, _ = typed.Write([]byte("typed between two turns")); _ = typed.Close() }()
		synctest.Wait()
		second := turns.Take()
		b := make([]byte, 5)
		if _, err := io.ReadFull(second, b); string(b) != "typed" || err != nil {
			t.Errorf("second turn read %q, %v", b, err)
		}
		third := turns.Take()
		if n, err := second.Read(b); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the second turn went on beside the third: %d, %v", n, err)
		}
		if rest, err := io.ReadAll(third); string(rest) != " between two turns" || err != nil {
			t.Errorf("third turn read %q, %v", rest, err)
		}
		if rest, err := io.ReadAll(turns.Take()); len(rest) > 0 || err != nil {
			t.Errorf("after the end %q, %v", rest, err)
		}
	})
}
