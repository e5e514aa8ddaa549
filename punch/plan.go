package punch

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/nat"
)

// Tactic is one way to open a hole, as part of a race.
type Tactic struct {
	Name      string
	Transport Transport
	// Openers are the TTLs of the packets that open our own NAT first and die
	// before they can reach the peer's.
	Openers []uint8
	// Hold is how long full-TTL probes wait behind the openers.
	Hold time.Duration
}

// holdForEarly covers what the peer's NAT may open later than ours: a slow hop
// inside its home (Wi-Fi) and the server's jitter.
const holdForEarly = 40 * time.Millisecond

// openerTTLs die one, two and three routers out. A TTL of 2 ends before a
// carrier's NAT, hence the third.
var openerTTLs = []uint8{2, 3, 4}

// Plan is the race for a pair: a pure function of both sides, so that both peers
// compute plans that fit each other. Evidence beats labels: plain punching is
// always in the race.
func Plan(self, other Side) []Tactic {
	plain := Tactic{Name: "plain", Transport: UDP}
	if other.Profile.KeepsEarly == nat.Yes {
		plain.Openers, plain.Hold = openerTTLs, holdForEarly
	}
	return []Tactic{plain}
}

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
	noLimit      = 1 << 20
)

// targets are the endpoints of other that self may probe, the most promising
// first. links are the prefixes of self's own interfaces.
func targets(self, other Side, links []netip.Prefix) []target {
	var ts []target
	add := func(t target) {
		i := slices.IndexFunc(ts, func(u target) bool { return u.endpoint == t.endpoint })
		if i < 0 {
			ts = append(ts, t)
			return
		}
		ts[i].limit = max(ts[i].limit, t.limit)
	}
	shared := sharesAddress(self.Observed, other.Observed)
	for _, c := range other.Candidates {
		if c.Transport == UDP && private(c.Endpoint.Addr()) && probeable(c.Endpoint) &&
			(shared || onLink(links, c.Endpoint.Addr())) {
			add(target{c.Endpoint, c.Kind, privateLimit})
		}
	}
	for _, e := range other.Observed {
		if probeable(e) {
			add(target{e, ServerReflexive, noLimit})
		}
	}
	for _, c := range other.Candidates {
		if c.Transport == UDP && !private(c.Endpoint.Addr()) && probeable(c.Endpoint) {
			add(target{c.Endpoint, c.Kind, unobservedLimit})
		}
	}
	return ts
}

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
