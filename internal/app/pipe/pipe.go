// Package pipe connects a connection with standard input and output, as netcat
// does, and knows when that is over.
package pipe

import (
	"context"
	"errors"
	"io"
	"net"
)

// Conn is a connection that can be closed half.
type Conn interface {
	net.Conn
	CloseWrite() error
	// Context ends when nothing can be written any more: we closed our
	// direction, the peer gave up on it, or the connection is gone.
	Context() context.Context
}

// Run copies both ways: in to the connection, whose direction it closes at the
// end of in, and the connection to out. It returns when the peer has ended its
// direction and ours is over, too: in has ended, or the peer will not read any
// more of it. in may still be open then, and a Read of it under way.
func Run(ctx context.Context, c Conn, in io.Reader, out io.Writer) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, in)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	_, err := io.Copy(out, c)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	select {
	case err = <-sent:
	case <-c.Context().Done():
		select {
		case err = <-sent:
		default: // the peer reads no more, and in stays open
		}
	}
	return err
}
