package daemon

import (
	"context"
	"net"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// On is a node of the library to run on. Unlike others it does not wait for the server
// when it listens: a daemon may start before the network does.
func On(n *bodkin.Node) Node { return node{n} }

type node struct{ *bodkin.Node }

// Dial implements [forward.Node].
func (n node) Dial(ctx context.Context, id peer.ID, service string) (forward.Conn, error) {
	c, err := n.Node.Dial(ctx, id, service)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Listen implements [forward.Node].
func (n node) Listen(_ context.Context, service string) (forward.Listener, error) {
	l, err := n.Node.Listen(service)
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

type listener struct{ net.Listener }

// AcceptConn implements [forward.Listener].
func (l listener) AcceptConn() (forward.Incoming, error) {
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	return c.(*bodkin.Conn), nil
}
