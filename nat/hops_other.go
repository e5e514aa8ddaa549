//go:build !linux

package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Hops are the routers on the way to an IPv4 endpoint, the nearest first, as far as
// most: each by the address that it says a packet's TTL ended at (RFC 792), not valid
// if it says nothing. Where the system does not show such messages to programs, as
// here, the error is [errors.ErrUnsupported].
func Hops(context.Context, Network, netip.AddrPort, int) ([]netip.Addr, error) {
	return nil, fmt.Errorf("routers on the way: %w", errors.ErrUnsupported)
}
