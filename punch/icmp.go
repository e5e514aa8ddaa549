package punch

import (
	"net/netip"
	"slices"
	"time"
)

// Way is how packets travel in ICMP messages. The driver has a Local for each, and what
// comes in by it has an endpoint as UDP does.
type Way uint8

// Ways. Ask sends echo requests of our own identifier and hears the replies; Answer hears
// requests of any, and sends replies. Their endpoints are address and identifier. What
// one side asks the other answers, as often as it likes.
//
// Unreachable and Exceeded are errors about the UDP packets that the peer might have
// sent from the endpoint where it is known to that of our UDP socket. A NAT that saw a
// packet of ours on its way there lets them pass as related to that flow, in and out,
// and translates what they quote. Their endpoints are those of the peer's UDP.
const (
	Ask Way = iota
	Answer
	Unreachable
	Exceeded
	waysOfICMP
)

// ICMPLocal is the Local of a way of the nth ICMP socket.
func ICMPLocal(n int, w Way) Local { return NewLocal(ICMP, uint32(n)*uint32(waysOfICMP)+uint32(w)) }

// Way is that of a Local of ICMP.
func (l Local) Way() Way { return Way((l - firstICMP) % Local(waysOfICMP)) }

// Names of tactics.
const (
	// Echo carries packets in echo requests and replies. It takes a side that requests
	// reach: one without a NAT, or behind one that matches them by their identifier.
	Echo Name = "icmp echo"
	// Errors carries packets in ICMP errors, which pass where UDP would, though it may
	// be dropped between the two NATs.
	Errors Name = "icmp errors"
)

const (
	// afterBetter is how long ICMP leaves the race to transports that are better, if
	// both sides have one.
	afterBetter = 2500 * time.Millisecond
	// icmpLimit bounds the probes to an endpoint in an attempt, and secondICMP those to
	// all in a second: networks police ICMP.
	icmpLimit  = 16
	secondICMP = 40
	// maxICMPTargets bounds the endpoints that one way tries.
	maxICMPTargets = 16
)

// planICMP is our part in the race by ICMP: the same of both sides.
func planICMP(self, other Side, after time.Duration) (tactics []Tactic) {
	a, b := self.Abilities, other.Abilities
	if a.Has(ByEcho) && b.Has(ByError) || a.Has(ByError) && b.Has(ByEcho) {
		tactics = append(tactics, Tactic{Name: Echo, Transport: ICMP, After: after})
	}
	if a.Has(ByError) && b.Has(ByError) {
		tactics = append(tactics, Tactic{Name: Errors, Transport: ICMP, After: after})
	}
	return tactics
}

// of is the tactic that a way belongs to.
func (w Way) of() Name {
	if w == Ask || w == Answer {
		return Echo
	}
	return Errors
}

// icmpTargets are the endpoints of other that one of our sockets for ICMP may probe. The
// socket asks with the identifier id.
func icmpTargets(self, other Side, w Way, id uint16) (ts []target) {
	add := func(e netip.AddrPort, k Kind) {
		limit := icmpLimit
		if !slices.Contains(addresses(other), e.Addr()) {
			limit = unobservedLimit
		}
		have := slices.ContainsFunc(ts, func(t target) bool { return t.endpoint == e })
		if probeable(e) && private(e.Addr()) == onlyPrivate(other) && !have && len(ts) < maxICMPTargets {
			ts = append(ts, target{e, k, limit})
		}
	}
	switch w {
	case Ask:
		if !self.Abilities.Has(ByEcho) || !other.Abilities.Has(ByError) {
			return nil
		}
		for _, a := range addresses(other) {
			add(netip.AddrPortFrom(a, id), ServerReflexive)
		}
	case Answer:
		if !self.Abilities.Has(ByError) || !other.Abilities.Has(ByEcho) {
			return nil
		}
		for _, c := range other.Candidates {
			switch {
			case c.Transport != ICMP:
			case c.Kind != Host:
				add(c.Endpoint, c.Kind)
			default: // most NATs keep identifiers
				for _, a := range addresses(other) {
					if a.Is4() == c.Endpoint.Addr().Is4() {
						add(netip.AddrPortFrom(a, c.Endpoint.Port()), Predicted)
					}
				}
			}
		}
	default:
		if !self.Abilities.Has(ByError) || !other.Abilities.Has(ByError) {
			return nil
		}
		for _, e := range other.Observed {
			add(e, ServerReflexive)
		}
	}
	return ts
}

// addresses are those at which the server sees a side.
func addresses(s Side) (out []netip.Addr) {
	for _, e := range slices.Concat(s.Observed, s.ObservedTCP) {
		if !slices.Contains(out, e.Addr()) {
			out = append(out, e.Addr())
		}
	}
	return out
}

// onlyPrivate reports whether the server sees a side at private addresses alone, as one in
// a network of its own does.
func onlyPrivate(s Side) bool {
	return !slices.ContainsFunc(addresses(s), func(a netip.Addr) bool { return !private(a) })
}

// addICMPPairs puts a socket for ICMP together with its targets, when their time comes.
func (e *Engine) addICMPPairs(s socket) {
	w := s.local.Way()
	i := slices.IndexFunc(e.tactics, func(t Tactic) bool { return t.Name == w.of() })
	if i < 0 || e.outcomes[i].Result == Postponed || e.won > ICMP {
		return
	}
	for _, t := range icmpTargets(e.cfg.Self, e.cfg.Other, w, s.port) {
		if t.endpoint.Addr().Is4() != s.is4 || e.pair(s.local, t.endpoint) != nil {
			continue
		}
		if p := e.addPair(s.local, t); p != nil {
			p.tactic, p.nextAt = i, later(e.now, e.started.Add(e.tactics[i].After))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// dropWorse forgets pairs that were to become routes by a transport which is not needed
// any more.
func (e *Engine) dropWorse(than Transport) {
	for _, p := range e.pairs {
		if p.state == trying && p.local.Transport() == ICMP && ICMP < than {
			p.limit, p.nextAt = 0, time.Time{}
		}
	}
}
