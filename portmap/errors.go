package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"bodkin/internal/pcp"
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
	// Retry is how long it will stay so, as the router says; 0 if it does not.
	Retry time.Duration
}

// Error says who refused what, and what to do.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s at %v: %v (%s, %d): %s", e.Protocol, e.Gateway, e.Err, e.Name, e.Code, e.Hint)
}

// Unwrap is what the code means.
func (e *RefusedError) Unwrap() error { return e.Err }

// another is the refusal of a router that would give another port than the exact
// one.
func another(p Protocol, gateway netip.Addr, port uint16) error {
	return &RefusedError{
		Protocol: p, Gateway: gateway, Name: "another port",
		Err: ErrInUse, Hint: fmt.Sprintf("port %d would be free; choose that, or do without Exact", port),
	}
}

// refusal is what a result code means, and what to do about it.
type refusal struct {
	err  error
	hint string
}

// pcpRefusals are PCP's result codes (RFC 6887 §7.4).
var pcpRefusals = map[pcp.Result]refusal{
	pcp.UnsuppVersion:         {ErrUnsupported, "the router speaks another version of PCP, or NAT-PMP, which is asked beside it"},
	pcp.NotAuthorized:         {ErrDenied, "allow it in the router's settings; if a program that was killed had mapped the port, its mapping first has to expire"},
	pcp.MalformedRequest:      {ErrFailed, "the router understood the request wrongly; update it, or turn PCP off and NAT-PMP or UPnP on"},
	pcp.UnsuppOpcode:          {ErrUnsupported, "the router's PCP cannot do this kind of mapping; update it, or turn NAT-PMP or UPnP on"},
	pcp.UnsuppOption:          {ErrUnsupported, "the router cannot restrict mappings so; ask without Exact and Remotes"},
	pcp.MalformedOption:       {ErrFailed, "the router understood the request wrongly; ask without Exact and Remotes"},
	pcp.NetworkFailure:        {ErrNetwork, "wait until the router has a connection and an address outside"},
	pcp.NoResources:           {ErrResources, "delete mappings on the router that are no longer needed, or restart it"},
	pcp.UnsuppProtocol:        {ErrUnsupported, "the router maps no ports of this transport"},
	pcp.UserExQuota:           {ErrResources, "delete mappings of this machine that are no longer needed, or raise its quota on the router"},
	pcp.CannotProvideExternal: {ErrInUse, "choose another external port, or do without Exact"},
	pcp.AddressMismatch:       {ErrUnsupported, "between this machine and the router is another NAT; ask that one, or make it a bridge"},
	pcp.ExcessiveRemotePeers:  {ErrResources, "name fewer Remotes"},
}

// pmpRefusals are NAT-PMP's (RFC 6886 §3.5).
var pmpRefusals = map[pcp.PMPResult]refusal{
	pcp.PMPUnsupportedVersion: {ErrUnsupported, "the router speaks another version, or PCP, which is asked beside it"},
	pcp.PMPRefused:            {ErrDenied, "turn NAT-PMP on in the router's settings, or allow it for this machine"},
	pcp.PMPNetworkFailure:     {ErrNetwork, "wait until the router has a connection and an address outside"},
	pcp.PMPOutOfResources:     {ErrResources, "delete mappings on the router that are no longer needed, or restart it"},
	pcp.PMPUnsupportedOpcode:  {ErrUnsupported, "the router maps no ports of this transport"},
}
