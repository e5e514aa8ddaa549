package bodkin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/sock"
	"bodkin/punch"
	"bodkin/rendezvous"
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

// echoServer is a server that is reached by pings, and what it is called among the
// connections to it.
type echoServer struct {
	local punch.Local
	at    netip.AddrPort
}

// echoEndpoints are where the server may answer pings of ours.
func (n *Node) echoEndpoints(addrs []netip.Addr) (out []rendezvous.StreamEndpoint) {
	if n.cfg.ServerVia != "" && n.cfg.ServerVia != ViaICMP {
		return nil
	}
	for _, c := range n.icmp {
		for _, a := range addrs {
			if a = a.Unmap(); a.Is4() == c.Is4() {
				out = append(out, rendezvous.StreamEndpoint{Addr: netip.AddrPortFrom(a, c.ID()), ICMP: true})
			}
		}
	}
	return out
}

// pingServer begins to speak with the server by pings: nothing is to be waited for.
func (l *loop) pingServer(k path.Key) {
	n, in := l.node, node.Input{Op: node.Disconnected, Local: k.Local}
	for i, c := range n.icmp {
		if c.Is4() == k.To.Addr().Is4() {
			n.echoes[i].Store(&echoServer{k.Local, k.To})
			n.path.SetSocket(k.Local, c.Leg(sock.Ask))
			in = node.Input{Op: node.Connected, Local: k.Local, From: k.To}
		}
	}
	l.queue = append(l.queue, in)
}

// leaveServer ends that.
func (n *Node) leaveServer(l punch.Local) {
	for i := range n.echoes {
		if s := n.echoes[i].Load(); s != nil && s.local == l {
			n.echoes[i].Store(nil)
			n.path.SetSocket(l, nil)
		}
	}
}

// readICMP reads the sockets until they are closed.
func (n *Node) readICMP() {
	for i, c := range n.icmp {
		n.wg.Go(func() {
			err := c.Read(func(w sock.Way, from netip.AddrPort, b []byte) {
				local := punch.ICMPLocal(i, punch.Way(slices.Index(icmpWays[:], w)))
				if s := n.echoes[i].Load(); s != nil && w == sock.Ask && s.at == from {
					local = s.local
				}
				n.path.Deliver(local, from, b)
			})
			if err != nil {
				n.cfg.Logger.Error("ICMP socket failed", "error", err)
			}
		})
	}
}
