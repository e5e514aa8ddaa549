// Package control lets one node serve a machine: a long-running node answers on
// a Unix socket, and commands with the same key go through it instead of being a
// second node.
//
//	control.go  what a command can do with a node, running or its own
//	server.go   the running node's side: HTTP over the socket
//	client.go   the command's side
//	stream.go   a connection through the node
//	frame.go    what such a connection looks like on the socket
//	place.go    where the socket is
package control

import (
	"context"
	"errors"

	"bodkin"
	"bodkin/internal/app/pipe"
	"bodkin/peer"
)

// Node is a node that a command may use.
type Node interface {
	Server() string
	Dial(ctx context.Context, id peer.ID, service string) (pipe.Conn, error)
	Ping(ctx context.Context, id peer.ID) (bodkin.Pong, error)
	Explain(ctx context.Context, id peer.ID) (bodkin.Explanation, error)
	Status(ctx context.Context) (bodkin.Status, error)
	// Shutdown lets go of the node: one of our own ends, a running one runs on.
	Shutdown(ctx context.Context) error
}

// Local is a node of our own.
func Local(n *bodkin.Node) Node { return local{n} }

type local struct{ n *bodkin.Node }

func (l local) Server() string { return l.n.Status().Server }

func (l local) Dial(ctx context.Context, id peer.ID, service string) (pipe.Conn, error) {
	c, err := l.n.Dial(ctx, id, service)
	if err != nil {
		return nil, err
	}
	return c, nil
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
)

// Error is an error that the running node met for us.
type Error struct {
	Kind string `json:"kind"`
	Text string `json:"error"`
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

func errorOf(err error) *Error {
	e := &Error{KindOther, err.Error()}
	var server *bodkin.ServerError
	var refused *bodkin.RefusedError
	switch {
	case errors.As(err, &server):
		e.Kind = KindServer
	case errors.As(err, &refused):
		e.Kind = KindRefused
	case errors.Is(err, bodkin.ErrNotReachable), errors.Is(err, bodkin.ErrNoAnswer):
		e.Kind = KindNotReachable
	}
	return e
}

// ErrNotRunning is returned by Connect where no node answers.
var ErrNotRunning = errors.New("nothing answers on its socket")
