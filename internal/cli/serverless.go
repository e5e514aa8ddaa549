package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"bodkin"
)

// withoutServer makes the node one without a server, and finds what contradicts that.
func (a *app) withoutServer(s *bodkin.Serverless) error {
	for _, name := range []string{"server", "server-via", "transports"} {
		if slices.Contains(a.given, name) {
			return &codeError{codeUsage, fmt.Errorf("--serverless goes without --%s: there is no server then, and no way but UDP", name)}
		}
	}
	a.node.serverless, a.node.transports, a.node.via = s, nil, ""
	return nil
}

// endpointOrAddress reads where a peer is; without a port, that is 0.
func endpointOrAddress(s string) (netip.AddrPort, error) {
	e, err := netip.ParseAddrPort(s)
	if err != nil {
		a, second := netip.ParseAddr(s)
		if second != nil {
			return e, fmt.Errorf("%q is no IPv4 address, nor one with a port: 203.0.113.7 or 203.0.113.7:%d", s, bodkin.ServerlessPort)
		}
		e = netip.AddrPortFrom(a, 0)
	}
	if !e.Addr().Unmap().Is4() {
		return e, errors.New("a peer is found without a server by IPv4 alone")
	}
	return e, nil
}
