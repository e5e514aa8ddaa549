// Package pipe connects a connection with a pair of streams, as netcat does, and
// knows when that is over.
//
//	pipe.go    copying both ways, with half-close
//	turns.go   one input for several connections, one after another
//	command.go a command in the place of the streams
package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Conn is a connection that can be closed half.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
	// Abort breaks both directions off, so that the peer does not take what it
	// has for the whole.
	Abort() error
	// Context ends when nothing can be written any more: we closed our
	// direction, the peer gave up on it, or the connection is gone.
	Context() context.Context
}

// Streams are what a connection is connected with.
type Streams struct {
	In  io.Reader
	Out io.Writer
	// Person says that somebody types In: such an input ends with the peer's
	// direction, for nobody would know that an end is waited for.
	Person bool
}

// Run copies both ways: In to the connection, whose direction it closes at the
// end of In, and the connection to Out. It returns when the peer has ended its
// direction and ours is over, too: In has ended, or the peer will not read any
// more of it. In may still be open then, and a Read of it under way.
//
// An error of either stream, or the end of ctx, breaks the connection off.
func Run(ctx context.Context, c Conn, s Streams) error {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	defer stop()
	up := &upward{conn: c, in: s.In}
	sent := make(chan error, 1)
	go func() {
		read, write := up.copy()
		if read != nil {
			abort(fmt.Errorf("read input: %w", read))
		}
		sent <- write
	}()
	_, err := io.Copy(s.Out, c)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		_ = c.Abort()
		return err
	}
	if s.Person {
		select {
		case err = <-sent:
		default:
			_ = up.end()
		}
		return err
	}
	select {
	case err = <-sent:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.Context().Done():
	}
	// The peer reads no more. That is an error only if there is more.
	if up.waiting.Load() {
		return nil
	}
	select {
	case err = <-sent:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return err
}

// upward is the direction from In to the peer.
type upward struct {
	conn    Conn
	in      io.Reader
	waiting atomic.Bool // In has nothing at the moment
	mu      sync.Mutex  // a Write must not meet a CloseWrite
	ended   bool
}

// Read reads In.
func (u *upward) Read(b []byte) (int, error) {
	u.waiting.Store(true)
	defer u.waiting.Store(false)
	return u.in.Read(b)
}

// copy is Copy with the end of In passed on.
func (u *upward) copy() (read, write error) {
	if read, write = Copy(u, u); read != nil || write != nil {
		return read, write
	}
	return nil, u.end()
}

// Copy copies until either side fails, or from ends, and says which it was.
func Copy(to io.Writer, from io.Reader) (read, write error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return err, nil
		}
	}
}

// Write writes to the peer.
func (u *upward) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return 0, io.ErrClosedPipe
	}
	return u.conn.Write(b)
}

func (u *upward) end() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil
	}
	u.ended = true
	return u.conn.CloseWrite()
}
