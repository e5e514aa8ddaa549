// Package control lets one node serve a machine: a long-running node answers on
// a Unix socket, and commands with the same key go through it instead of being a
// second node.
//
//	control.go  what a command can do with a node, running or its own
//	server.go   the running node's side: HTTP over the socket
//	client.go   the command's side
//	stream.go   a connection through the node
//	packets.go  datagrams beside it
//	listen.go   connections that peers open, for a command
//	pairing.go  codes, and guests
//	frame.go    what such a connection looks like on the socket
//	place.go    where the socket is
package control

import (
	"context"
	"errors"
	"net"
	"time"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// Node is a node that a command may use.
type Node interface {
	// ID, Dial and Listen.
	forward.Node
	Server() string
	Ping(ctx context.Context, id peer.ID) (bodkin.Pong, error)
	Explain(ctx context.Context, id peer.ID) (bodkin.Explanation, error)
	Status(ctx context.Context) (bodkin.Status, error)
	// Invite makes a code that is good for life; Join uses one.
	Invite(ctx context.Context, life time.Duration) (Invitation, error)
	Join(ctx context.Context, code string) (peer.ID, error)
	// Admit lets one more peer in, to one service, until end is called.
	Admit(ctx context.Context, id peer.ID, service string) (end func(), err error)
	// Shutdown lets go of the node: one of our own ends, a running one runs on.
	Shutdown(ctx context.Context) error
}

// Local is a node of our own.
func Local(n *bodkin.Node) Node { return local{n} }

type local struct{ n *bodkin.Node }

func (l local) Server() string { return l.n.Status().Server }

func (l local) ID() peer.ID { return l.n.ID() }

func (l local) Dial(ctx context.Context, id peer.ID, service string) (forward.Conn, error) {
	c, err := l.n.Dial(ctx, id, service)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Listen listens, and waits until the server knows that we do.
func (l local) Listen(ctx context.Context, service string) (forward.Listener, error) {
	in, err := l.n.Listen(service)
	if err != nil {
		return nil, err
	}
	if err := l.n.WaitRegistered(ctx); err != nil {
		_ = in.Close()
		return nil, err
	}
	return accepting{in}, nil
}

// accepting is a listener of our own node.
type accepting struct{ net.Listener }

func (a accepting) AcceptConn() (forward.Incoming, error) {
	c, err := a.Accept()
	if err != nil {
		return nil, err
	}
	return c.(*bodkin.Conn), nil
}

func (l local) Ping(ctx context.Context, id peer.ID) (bodkin.Pong, error) { return l.n.Ping(ctx, id) }

func (l local) Explain(ctx context.Context, id peer.ID) (bodkin.Explanation, error) {
	return l.n.Explain(ctx, id)
}

func (l local) Status(context.Context) (bodkin.Status, error) { return l.n.Status(), nil }

func (l local) Shutdown(ctx context.Context) error { return l.n.Shutdown(ctx) }

// Kinds of errors that a running node met.
const (
	KindOther        = "other"
	KindServer       = "server"
	KindNotReachable = "not-reachable"
	KindRefused      = "refused"
	KindDisplaced    = "displaced"
	KindTaken        = "taken"
)

// Error is an error that the running node met for us.
type Error struct {
	Kind string `json:"kind"`
	Text string `json:"error"`
	// Peer, Service and Reason are the parts of a refusal.
	Peer    peer.ID `json:"peer,omitzero"`
	Service string  `json:"service,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// Unwrap is the error that it was there, where commands tell it from others.
func (e *Error) Unwrap() error {
	switch e.Kind {
	case KindRefused:
		return &bodkin.RefusedError{Peer: e.Peer, Service: e.Service, Reason: e.Reason}
	case KindDisplaced:
		return bodkin.ErrDisplaced
	case KindTaken:
		return bodkin.ErrServiceTaken
	default:
		return codeErrors[e.Kind]
	}
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

func errorOf(err error) *Error {
	e := &Error{Kind: KindOther, Text: err.Error()}
	var server *bodkin.ServerError
	var refused *bodkin.RefusedError
	switch {
	case errors.As(err, &server):
		e.Kind = KindServer
	case errors.As(err, &refused):
		e.Kind, e.Peer, e.Service, e.Reason = KindRefused, refused.Peer, refused.Service, refused.Reason
	case errors.Is(err, bodkin.ErrDisplaced):
		e.Kind = KindDisplaced
	case errors.Is(err, bodkin.ErrServiceTaken):
		e.Kind = KindTaken
	case errors.Is(err, bodkin.ErrNotReachable), errors.Is(err, bodkin.ErrNoAnswer):
		e.Kind = KindNotReachable
	case codeKind(err) != "":
		e.Kind = codeKind(err)
	}
	return e
}

// ErrNoReport is returned by Report where a process only listens, say.
var ErrNoReport = errors.New("the running node has nothing to report")

// ErrNotRunning is returned by Connect where no node answers.
var ErrNotRunning = errors.New("nothing answers on its socket")
