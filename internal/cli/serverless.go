package cli

import (
	"errors"
	"fmt"
	"net/netip"

	"bodkin"
)

// withoutServer makes the node one without a server, whatever settings say of servers for
// other commands.
func (a *app) withoutServer(s *bodkin.Serverless) {
	a.node.serverless, a.node.transports, a.node.via = s, nil, ""
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
