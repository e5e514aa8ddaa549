package cli

import (
	"context"
	"net/netip"

	"bodkin/internal/sock"
)

// icmpUse is what a program can do by ICMP: all, echo alone, or nothing, and why no more.
type icmpUse struct {
	Ways   string `json:"ways"`
	Reason string `json:"reason,omitempty"`
}

// useOfICMP tries to open the socket that a node would.
func useOfICMP(ctx context.Context) icmpUse {
	udp, err := sock.OpenSmall(ctx, sock.System{}, "udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return icmpUse{"none", err.Error()}
	}
	defer func() { _ = udp.Close() }()
	c, err := sock.OpenICMP(ctx, sock.System{}, udp)
	if err != nil {
		return icmpUse{"none", err.Error()}
	}
	defer func() { _ = c.Close() }()
	if !c.Raw() {
		return icmpUse{"echo", sock.ErrNotRaw().Error()}
	}
	return icmpUse{Ways: "all"}
}

func (u icmpUse) words() string {
	switch u.Ways {
	case "all":
		return "can be used to punch: pings, and errors"
	case "echo":
		return "can be used to ask with pings, and no more: " + u.Reason
	default:
		return "cannot be used to punch: " + u.Reason
	}
}
