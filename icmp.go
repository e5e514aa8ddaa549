package bodkin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"bodkin/internal/path"
	"bodkin/internal/sock"
	"bodkin/punch"
)

// icmpWays are sock's words for those of punch.
var icmpWays = [...]sock.Way{
	punch.Ask: sock.Ask, punch.Answer: sock.Answer, punch.Unreachable: sock.Unreachable, punch.Exceeded: sock.Exceeded,
}

// openICMP opens a socket for ICMP beside each of UDP. A node that was not told to punch
// by ICMP does without where the system does not let it.
func (n *Node) openICMP(ctx context.Context) error {
	if !n.cfg.abilities().Carries(punch.ICMP) {
		return nil
	}
	var errs []error
	for _, u := range n.sockets {
		c, err := sock.OpenICMP(ctx, n.cfg.Network, u)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n.icmp = append(n.icmp, c)
	}
	switch {
	case len(n.icmp) > 0:
		return nil
	case slices.Contains(n.cfg.Transports, punch.ICMP.String()):
		return fmt.Errorf("bodkin: %w", errors.Join(errs...))
	}
	n.cfg.Logger.Debug("no holes by ICMP", "error", errors.Join(errs...))
	return nil
}

// abilities are the kinds of holes to punch, of those that there are sockets for.
func (n *Node) abilities() punch.Abilities {
	a := n.cfg.abilities() &^ (punch.ByEcho | punch.ByError)
	for _, c := range n.icmp {
		if a |= punch.ByEcho; c.Raw() {
			a |= punch.ByError
		}
	}
	if len(n.ports) == 0 {
		a &^= punch.ByTCP
	}
	return a
}

// eachICMP yields the open ways of the sockets for ICMP.
func (n *Node) eachICMP(f func(punch.Local, *sock.ICMP, *sock.Leg)) {
	for i, c := range n.icmp {
		for w, way := range icmpWays {
			if leg := c.Leg(way); leg != nil {
				f(punch.ICMPLocal(i, punch.Way(w)), c, leg)
			}
		}
	}
}

func (n *Node) setICMP() {
	n.eachICMP(func(l punch.Local, _ *sock.ICMP, leg *sock.Leg) { n.path.SetSocket(l, leg) })
}

// localICMP are the same by their numbers, with the identifiers that they ask with.
func (n *Node) localICMP() (out []path.LocalSocket) {
	n.eachICMP(func(l punch.Local, c *sock.ICMP, _ *sock.Leg) {
		bound := netip.IPv4Unspecified()
		if !c.Is4() {
			bound = netip.IPv6Unspecified()
		}
		out = append(out, path.LocalSocket{Local: l, Bound: netip.AddrPortFrom(bound, c.ID())})
	})
	return out
}

// readICMP reads the sockets until they are closed.
func (n *Node) readICMP() {
	for i, c := range n.icmp {
		n.wg.Go(func() {
			err := c.Read(func(w sock.Way, from netip.AddrPort, b []byte) {
				n.path.Deliver(punch.ICMPLocal(i, punch.Way(slices.Index(icmpWays[:], w))), from, b)
			})
			if err != nil {
				n.cfg.Logger.Error("ICMP socket failed", "error", err)
			}
		})
	}
}
