package igd

import (
	"context"
	"errors"
	"fmt"

	"github.com/huin/goupnp/soap"
)

// ErrSilent: no device answered a search.
var ErrSilent = errors.New("no UPnP device answered; if the router has UPnP, turn it on there")

// Codes that routers refuse with: UPnP Device Architecture 1.1 §3.2.2, WANIPConnection:2
// §2.5 and WANIPv6FirewallControl:1 §2.6. Those of the two services overlap; a
// pinhole's have names of their own.
const (
	InvalidAction      = 401
	InvalidArgs        = 402
	ActionFailed       = 501
	NotImplemented     = 602
	NotAuthorised      = 606
	InactiveConnection = 703
	IndexInvalid       = 713
	NoSuchEntry        = 714
	WildcardInSource   = 715
	WildcardExternal   = 716
	Conflict           = 718
	SamePortRequired   = 724
	OnlyPermanent      = 725
	RemoteWildcard     = 726
	ExternalWildcard   = 727
	NoPortMaps         = 728
	ConflictOther      = 729
	PortWildcard       = 732

	PinholeSpace      = 701
	FirewallDisabled  = 702
	InboundNotAllowed = 703
	NoSuchPinhole     = 704
	ProtocolUnknown   = 705
	InternalWildcard  = 706
	ProtocolWildcard  = 707
	SourceWildcard    = 708
	NoPacketSent      = 709
)

// Error is a router's no.
type Error struct {
	Action string
	Code   int // 0: a fault without a code of UPnP
	// Text is what the router says of it.
	Text string
}

// Error says what was refused.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Action, e.Text, e.Code) }

// Code is the code that a router refused with, 0 if err is something else.
func Code(err error) int {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// explain makes an action's error one of ours: goupnp's hold up to all that the
// router sent.
func explain(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	if f := (*soap.SOAPFaultError)(nil); errors.As(err, &f) {
		e := &Error{Action: action, Code: f.Detail.UPnPError.Errorcode, Text: clean(f.Detail.UPnPError.ErrorDescription)}
		if e.Text == "" {
			e.Text = clean(f.FaultString)
		}
		return e
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", action, ctx.Err())
	}
	return fmt.Errorf("%s: %s", action, clean(err.Error()))
}
