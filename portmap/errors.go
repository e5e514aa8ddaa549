package portmap

import (
	"errors"
	"fmt"
	"net/netip"
)

// What routers refuse; a RefusedError wraps one of the first six.
var (
	// ErrDenied: the router's policy is against it.
	ErrDenied = errors.New("denied by the router's policy")
	// ErrInUse: the external port is taken.
	ErrInUse = errors.New("the external port is in use")
	// ErrResources: the router has no room for more, for us or at all.
	ErrResources = errors.New("the router has no room for more mappings")
	// ErrNetwork: the router has no network outside at the moment.
	ErrNetwork = errors.New("the router has no connection outside")
	// ErrUnsupported: the router does not have what was asked for.
	ErrUnsupported = errors.New("not supported by the router")
	// ErrFailed: the router could not, and did not say more.
	ErrFailed = errors.New("the router failed")

	// ErrSilent: nothing answered.
	ErrSilent = errors.New("no answer")
	// ErrCannot: the protocol cannot express the request.
	ErrCannot = errors.New("cannot be asked for")
	// ErrNoGateway: this machine has no router to ask.
	ErrNoGateway = errors.New("no gateway")
	// ErrClosed: the Client or Mapping was closed.
	ErrClosed = errors.New("closed")
)

// RefusedError is a router's no.
type RefusedError struct {
	Protocol Protocol
	Gateway  netip.Addr
	// Code is the protocol's result code, Name its name in the protocol's document.
	Code int
	Name string
	// Err is one of the errors above: what the code means.
	Err error
	// Hint is what to do about it.
	Hint string
}

// Error says who refused what, and what to do.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s at %v: %v (%s, %d): %s", e.Protocol, e.Gateway, e.Err, e.Name, e.Code, e.Hint)
}

// Unwrap is what the code means.
func (e *RefusedError) Unwrap() error { return e.Err }
