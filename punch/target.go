package punch

import (
	"net/netip"
	"slices"
)

// target is an endpoint to probe, and how often at the most.
type target struct {
	endpoint netip.AddrPort
	kind     Kind
	limit    int
}

const (
	// unobservedLimit bounds the probes to a public endpoint that the server
	// did not observe: nobody can aim a node at a stranger.
	unobservedLimit = 4
	// privateLimit bounds the probes to a private endpoint: it answers within
	// a few milliseconds, or is a stranger's.
	privateLimit = 10
	// reserveLimit bounds the probes to a port that the server did not observe, of
	// an address where it did observe the peer.
	reserveLimit = 20
	noLimit      = 1 << 20
)

// targets are the endpoints of other that self may probe, the most promising
// first. links are the prefixes of self's own interfaces.
func targets(self, other Side, links []netip.Prefix, by Transport) []target {
	if !self.Abilities.Carries(by) || !other.Abilities.Carries(by) {
		return nil
	}
	var ts []target
	add := func(t target) {
		i := slices.IndexFunc(ts, func(u target) bool { return u.endpoint == t.endpoint })
		if i < 0 {
			ts = append(ts, t)
			return
		}
		ts[i].limit = max(ts[i].limit, t.limit)
	}
	observed := other.Observed
	if by == TCP {
		observed = other.ObservedTCP
	}
	shared := sharesAddress(self.seen(), other.seen())
	for _, c := range other.Candidates {
		if c.Transport == by && private(c.Endpoint.Addr()) && probeable(c.Endpoint) &&
			(shared || onLink(links, c.Endpoint.Addr())) {
			add(target{c.Endpoint, c.Kind, privateLimit})
		}
	}
	for _, e := range observed {
		if probeable(e) {
			add(target{e, ServerReflexive, noLimit})
		}
	}
	if by == TCP && len(observed) == 0 {
		for _, t := range kept(other) {
			add(t)
		}
	}
	for _, c := range other.Candidates {
		if c.Transport == by && !private(c.Endpoint.Addr()) && probeable(c.Endpoint) {
			limit := unobservedLimit
			if sharesAddress(other.seen(), []netip.AddrPort{c.Endpoint}) {
				limit = reserveLimit // another port of the peer's own address
			}
			add(target{c.Endpoint, c.Kind, limit})
		}
	}
	return ts
}

// kept are the TCP endpoints of a side whose TCP the server has not seen: most NATs keep
// ports, and have one address for both transports.
func kept(other Side) (ts []target) {
	for _, e := range other.Observed {
		for _, c := range other.Candidates {
			if c.Transport == TCP && c.Kind == Host && c.Endpoint.Addr().Is4() == e.Addr().Is4() && probeable(e) {
				ts = append(ts, target{netip.AddrPortFrom(e.Addr(), c.Endpoint.Port()), Predicted, reserveLimit})
			}
		}
	}
	return ts
}

// seen are all endpoints at which the server sees a side.
func (s Side) seen() []netip.AddrPort { return append(slices.Clip(s.Observed), s.ObservedTCP...) }

func sharesAddress(a, b []netip.AddrPort) bool {
	return slices.ContainsFunc(a, func(x netip.AddrPort) bool {
		return slices.ContainsFunc(b, func(y netip.AddrPort) bool { return x.Addr() == y.Addr() })
	})
}

func onLink(links []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(links, func(p netip.Prefix) bool { return p.Contains(a) })
}

var carrierGrade = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// private reports whether an address means something else in every home: RFC
// 1918, RFC 4193, RFC 6598 and link-local addresses, and loopback.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || carrierGrade.Contains(a)
}

// probeable refuses what no peer can be reached at.
func probeable(e netip.AddrPort) bool {
	a := e.Addr()
	return e.Port() != 0 && a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
