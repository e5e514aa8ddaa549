package cli

import (
	"io"
	"net"
	"sync"

	"bodkin"
	"bodkin/internal/app/forward"
)

// bothListener takes connections of a session's and plain ones over TCP.
type bothListener struct {
	forward.Listener
	tcp   net.Listener
	taken chan taken
	done  chan struct{}
	end   func()
}

type taken struct {
	c   forward.Incoming
	err error
}

// plainTCP is a connection over TCP. Datagrams do not go with it.
type plainTCP struct{ *bodkin.TCPConn }

// Packets implements [forward.Incoming].
func (plainTCP) Packets() io.ReadWriteCloser { return nothing{} }

type nothing struct{}

func (nothing) Read([]byte) (int, error)  { return 0, io.EOF }
func (nothing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (nothing) Close() error              { return nil }

// alsoTCP is l, and takes plain connections to its service as well.
func alsoTCP(n *bodkin.Node, l forward.Listener, service string) (forward.Listener, error) {
	tcp, err := n.ListenTCP(service)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	b := &bothListener{Listener: l, tcp: tcp, taken: make(chan taken), done: make(chan struct{})}
	b.end = sync.OnceFunc(func() { close(b.done) })
	go func() {
		for {
			c, err := l.AcceptConn()
			if !b.offer(c, err) || err != nil {
				return
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil || !b.offer(plainTCP{c.(*bodkin.TCPConn)}, nil) {
				return
			}
		}
	}()
	return b, nil
}

func (b *bothListener) offer(c forward.Incoming, err error) bool {
	select {
	case b.taken <- taken{c, err}:
		return true
	case <-b.done:
		if err == nil {
			_ = c.Abort()
		}
		return false
	}
}

// AcceptConn waits for the next connection of either kind.
func (b *bothListener) AcceptConn() (forward.Incoming, error) {
	select {
	case t := <-b.taken:
		return t.c, t.err
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close ends listening.
func (b *bothListener) Close() error {
	b.end()
	_ = b.tcp.Close()
	return b.Listener.Close()
}
