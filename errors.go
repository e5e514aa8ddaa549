package bodkin

import (
	"errors"
	"fmt"

	"bodkin/internal/session"
	"bodkin/peer"
	"bodkin/rendezvous"
)

var (
	// ErrNotReachable is wrapped by errors of Dial and Ping when the server
	// would not introduce us: the peer is unknown to it, offline, or does not
	// allow us. The server does not say which.
	ErrNotReachable = rendezvous.ErrNotReachable
	// ErrNoAnswer is wrapped by errors of Dial and Ping when the server knows
	// the peer and it says nothing for 15 seconds: it may just have gone.
	ErrNoAnswer = session.ErrNoAnswer
	// ErrClosed is returned by everything after Close.
	ErrClosed = session.ErrClosed
	// ErrDisplaced is returned by Accept once another process with the same key
	// accepts connections.
	ErrDisplaced = errors.New("another process with this key accepts connections now")
)

// RefusedError says that the peer was reached and refused the connection.
type RefusedError = session.RefusedError

// ServerError says what is wrong with the rendezvous server.
type ServerError struct {
	Server string // its URL
	Err    error
}

// Error says what is wrong and what to do.
func (e *ServerError) Error() string { return fmt.Sprintf("rendezvous server %s: %v", e.Server, e.Err) }

// Unwrap is the reason alone.
func (e *ServerError) Unwrap() error { return e.Err }

// DialError says why a peer could not be reached.
type DialError struct {
	Peer peer.ID
	Err  error
}

// Error names the peer and the reason.
func (e *DialError) Error() string { return fmt.Sprintf("dial %s: %v", e.Peer.Short(), e.Err) }

// Unwrap is the reason alone.
func (e *DialError) Unwrap() error { return e.Err }
