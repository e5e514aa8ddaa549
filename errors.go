package bodkin

import (
	"errors"
	"fmt"

	"bodkin/internal/node"
	"bodkin/internal/pair"
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
	// ErrServiceTaken is returned by Listen and ListenPacket for a service that
	// somebody in this process listens to.
	ErrServiceTaken = session.ErrServiceTaken
	// ErrDisplaced is returned by Accept once another process with the same key
	// accepts connections.
	ErrDisplaced = errors.New("another process with this key accepts connections now")
)

// Errors of [Node.Join], and of [Invitation.Wait].
var (
	// ErrBadCode: the text is not a code. Nothing was sent.
	ErrBadCode = pair.ErrMalformed
	// ErrOwnCode: the code is this node's own.
	ErrOwnCode = rendezvous.ErrOwnCode
	// ErrNoCode: the server has no such code: it expired, or its number is wrong.
	ErrNoCode = rendezvous.ErrNoCode
	// ErrCodeUsed: somebody else has joined with this code, or tried.
	ErrCodeUsed = rendezvous.ErrCodeUsed
	// ErrWrongCode: the words are wrong, or somebody in between tried to guess them.
	ErrWrongCode = pair.ErrWrong
	// ErrCodeSilent: the node that made the code did not go on.
	ErrCodeSilent = pair.ErrSilent
	// ErrTooManyCodes: the server takes no more invitations or joins from here now.
	ErrTooManyCodes = rendezvous.ErrTooManyCodes

	// ErrCodeTried: whoever joined had other words. The code is used up.
	ErrCodeTried = pair.ErrTried
	// ErrCodeUnfinished: somebody began to join and did not go on. The code is used up.
	ErrCodeUnfinished = pair.ErrUnfinished
	// ErrCodeExpired: nobody joined in time.
	ErrCodeExpired = node.ErrCodeExpired
	// ErrCodeLost: the server was started again and has given the code's number away.
	ErrCodeLost = rendezvous.ErrCodeLost
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
