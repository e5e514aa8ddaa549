package netbed

import (
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Silence makes the host's own system deaf to TCP, ICMP and fragments: it answers
// none of it any more. It is for tests that answer by hand what they read from a
// packet socket, which comes before.
func (h *Host) Silence() error {
	c, err := nftables.New(nftables.WithNetNSFd(int(h.site.ns.handle)))
	if err != nil {
		return fmt.Errorf("lab: silence of host %s: nftables: %w", h.Name(), err)
	}
	filter := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "silence"})
	input := chain(c, filter, "input", nftables.ChainHookInput, nftables.ChainPolicyAccept)
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		drop(c, filter, input, protocol(p))
	}
	// What is answered to datagrams that nobody has a socket for.
	output := chain(c, filter, "output", nftables.ChainHookOutput, nftables.ChainPolicyAccept)
	drop(c, filter, output, icmpType(unix.IPPROTO_ICMP, unreachable))
	drop(c, filter, output, icmpType(unix.IPPROTO_ICMPV6, unreachable6))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("lab: silence of host %s: nftables: %w", h.Name(), err)
	}
	return nil
}

// The types of ICMP that say that a port is unreachable (RFC 792, RFC 4443).
const (
	unreachable  = 3
	unreachable6 = 1
)
