package bodkin

import (
	"net/netip"
	"slices"
	"strings"

	"bodkin/internal/sock"
	"bodkin/nat"
	"bodkin/punch"
)

// Displaced reports whether another process with the same key accepts connections
// in this one's place.
func (n *Node) Displaced() bool {
	n.known.mu.Lock()
	defer n.known.mu.Unlock()
	return n.known.displaced
}

// NAT is what is known by now of the NAT that this node is behind. It is measured
// beside everything else, and anew when the network changes.
func (n *Node) NAT() nat.Report {
	n.known.mu.Lock()
	defer n.known.mu.Unlock()
	return n.known.nat
}

// Status is a snapshot of what the node knows.
func (n *Node) Status() Status {
	s := Status{
		ID: n.ID(), Server: n.server(), Since: n.started, Services: n.sessions.Services(),
		Ignored: n.ignored(),
	}
	prefixes, _ := n.cfg.Network.Prefixes()
	for _, c := range n.sockets {
		s.Local = append(s.Local, c.Local())
		s.Private = append(s.Private, private(c, prefixes)...)
	}
	n.known.mu.Lock()
	defer n.known.mu.Unlock()
	s.Registered, s.Displaced = n.known.up, n.known.displaced
	s.ServerVia, s.ObservedTCP = string(n.known.via), slices.Clone(n.known.server.ObservedTCP)
	s.Observed, s.Mapped = slices.Clone(n.known.server.Observed), slices.Clone(n.known.mapped)
	for overlay, p := range n.known.peers {
		if overlay == p.overlay {
			s.Peers = append(s.Peers, n.peerStatus(p))
		}
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return s
}

// ignored counts what was not believed, by reason.
func (n *Node) ignored() map[string]uint64 {
	out := n.core.Ignored()
	for reason, count := range map[string]uint64{"stray": n.path.Stray.Load(), "overrun": n.path.Overrun.Load()} {
		if count > 0 {
			out[reason] = count
		}
	}
	return out
}

// private are the endpoints of a socket by the addresses of the interfaces.
func private(c *sock.Socket, prefixes []netip.Prefix) (out []netip.AddrPort) {
	for _, p := range prefixes {
		if p.Addr().Is4() == c.Is4() {
			out = append(out, netip.AddrPortFrom(p.Addr(), c.Local().Port()))
		}
	}
	return out
}

// peerStatus is called under the lock of known.
func (n *Node) peerStatus(p *knownPeer) PeerStatus {
	out := PeerStatus{ID: p.id, Traffic: make(map[string]Traffic), Attempt: attemptOf(p.account), Changes: slices.Clone(p.changes)}
	for _, r := range p.routes {
		route := routeOf(r)
		route.Sent, route.Received = n.path.RouteTraffic(r.Key)
		out.Routes = append(out.Routes, route)
	}
	t := n.path.Traffic(p.overlay)
	for class := punch.Relay; class <= punch.UDP; class++ {
		if t.Sent[class]+t.Received[class] > 0 {
			out.Traffic[class.String()] = Traffic{Sent: t.Sent[class], Received: t.Received[class]}
		}
	}
	return out
}
