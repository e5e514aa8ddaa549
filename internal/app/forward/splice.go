package forward

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

const (
	// smallBuffer is what a direction has while little passes: there may be
	// thousands that wait.
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// copyStream copies until either side fails, or from ends, and says which it was.
func copyStream(to io.Writer, from io.Reader) (read, write error) {
	small := make([]byte, smallBuffer)
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	buf := small
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
		case large == nil && n == len(buf):
			large = largeBuffers.Get().(*[largeBuffer]byte)
			buf = large[:]
		case large != nil && n < smallBuffer:
			largeBuffers.Put(large)
			large, buf = nil, small
		}
	}
}

// socket is a connection of TCP or of a Unix socket.
type socket interface {
	net.Conn
	CloseWrite() error
}

// reset ends a connection so that its other end takes it for broken, where the
// system can say so.
func reset(s socket) {
	if t, ok := s.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = s.Close()
}

// splice connects a socket with the peer until both directions have ended, each by
// itself, or one has broken off, which breaks both. Before anything is read from the
// peer, ready is called; an error of its breaks off as well and is returned.
func splice(s socket, c Conn, ready func() error) (err error) {
	var broken atomic.Bool
	abort := func() {
		if !broken.Swap(true) {
			_ = c.Abort()
			reset(s)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		switch read, write := copyStream(c, s); {
		case read != nil:
			abort()
		case write != nil:
			// The peer reads no more; what it still writes may be all that the
			// client wants.
		default:
			_ = c.CloseWrite()
		}
	})
	if err = ready(); err != nil {
		abort()
		wg.Wait()
		return err
	}
	switch read, write := copyStream(s, c); {
	case read != nil:
		abort()
	case write != nil:
		// The socket's other end reads no more; whether it still writes, the
		// other direction finds out.
		if r, ok := c.(interface{ CloseRead() error }); ok {
			_ = r.CloseRead()
		}
	default:
		_ = s.CloseWrite()
	}
	wg.Wait()
	if !broken.Load() {
		_ = c.Close()
		_ = s.Close()
	}
	return nil
}
