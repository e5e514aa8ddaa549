package why

import (
	"net/netip"
	"slices"

	"bodkin/nat"
	"bodkin/punch"
)

// direct says what a hole came of.
func direct(f Facts) Verdict {
	v := Verdict{Way: Direct, Certain: true, Reason: "there is a hole"}
	if won := f.Report.Won(); won != "" {
		v.Reason = opened(won, f.Report.First)
	}
	return v
}

// relayed judges where packets pass over the relay: what hinders a hole. What came
// in says more than what NATs are called, and the peer's words less than our own.
func relayed(f Facts) Verdict {
	r := &f.Report
	switch {
	case f.RelayOnly:
		return Verdict{
			Blame: []Blame{{Ours, Policy}}, Certain: true,
			Reason: "this node was told to stay on the relay",
			Help:   []string{"--transports left out, here"},
		}
	case !f.Introduced:
		return Verdict{Pending: true, Reason: "the introduction is under way"}
	case pending(r):
		return Verdict{Pending: true, Reason: "the attempt to open a hole is still under way"}
	case r.Confirmed > 0:
		return Verdict{
			Blame:  []Blame{{Between, Filtering}},
			Reason: "there was a hole, and it has died; the next attempt is to come",
			Help:   []string{"some seconds of patience"},
		}
	case len(f.Other.Candidates) == 0 && r.Heard == 0:
		return Verdict{
			Blame:  []Blame{{Theirs, Policy}},
			Reason: "the peer names no endpoint of its own: it was probably told to stay on the relay",
			Help:   []string{"--transports left out, on their side"},
		}
	case unseen(f.Self) || unseen(f.Other):
		return byPingsAlone(f)
	case !sameFamily(f.Self, f.Other):
		return noFamily(f.Self)
	case onlyICMP(f):
		return byICMP(f)
	case needsTCP(f):
		return byTCP(f)
	case r.Heard > 0:
		return Verdict{
			Blame:  []Blame{{Between, Filtering}, {Theirs, Filtering}},
			Reason: "the peer's packets reach us, and ours do not reach the peer: a firewall probably lets UDP through one way only",
			Help:   []string{"on their side, or on the way to it: a firewall that lets UDP in from where UDP goes out to"},
		}
	case both4(f.Self, f.Other) && sameAddress(f.Self, f.Other) && f.Self.Profile.Hairpin != nat.Yes:
		return Verdict{
			Blame:  []Blame{{Both, Hairpin}},
			Reason: "both sides are behind the same public address, neither reaches the other inside, and the NAT that has it probably does not send back in what is meant for itself",
			Help: []string{
				"both in one network, without isolation of its clients",
				"hairpinning (NAT loopback) turned on at the router that both are behind",
				helpIPv6,
			},
		}
	}
	return nats(f)
}

// nats judges by what both NATs are.
func nats(f Facts) Verdict {
	ours, theirs := f.Self.Profile, f.Other.Profile
	if !both4(f.Self, f.Other) {
		return between() // by IPv6, where nothing is translated
	}
	switch us, them := fixed(ours), fixed(theirs); {
	case us == nat.NotMeasured && them == nat.NotMeasured:
		return unmeasured(Both)
	case us == nat.NotMeasured:
		return unmeasured(Ours)
	case them == nat.NotMeasured:
		return unmeasured(Theirs)
	case us == nat.No && them == nat.No:
		return mapping(Both, f)
	case us == nat.No && !open(theirs):
		return mapping(Ours, f)
	case them == nat.No && !open(ours):
		return mapping(Theirs, f)
	case us == nat.No || them == nat.No: // the other lets in what comes from any port
		return between()
	case ours.KeepsEarly == nat.Yes && theirs.KeepsEarly == nat.Yes:
		return early(Both)
	case ours.KeepsEarly == nat.Yes:
		return early(Ours)
	case theirs.KeepsEarly == nat.Yes:
		return early(Theirs)
	}
	return between()
}

// pending reports whether a tactic is under way, or was interrupted by the next
// attempt.
func pending(r *punch.Report) bool {
	return slices.ContainsFunc(r.Outcomes, func(o punch.Outcome) bool {
		return o.Result == punch.Running || o.Result == punch.Interrupted
	})
}

// fixed says whether a NAT keeps one port for all destinations.
func fixed(p nat.Profile) nat.Answer {
	switch p.Mapping {
	case nat.None, nat.EndpointIndependent:
		return nat.Yes
	case nat.AddressDependent, nat.AddressAndPortDependent:
		return nat.No
	default:
		return nat.NotMeasured
	}
}

// open says whether a NAT lets in what comes from another port than was sent to.
func open(p nat.Profile) bool {
	return p.Filtering != nat.Unknown && p.Filtering != nat.AddressAndPortDependent
}

// mapped says whether a router forwards to a side.
func mapped(s punch.Side) bool {
	return slices.ContainsFunc(s.Candidates, func(c punch.Candidate) bool { return c.Kind == punch.Mapped })
}

// families of a side's endpoints outside of its home.
func families(s punch.Side) (has4, has6 bool) {
	for _, e := range slices.Concat(s.Observed, s.ObservedTCP) {
		has4, has6 = has4 || e.Addr().Is4(), has6 || e.Addr().Is6()
	}
	return has4, has6
}

func both4(a, b punch.Side) bool {
	a4, _ := families(a)
	b4, _ := families(b)
	return a4 && b4
}

func both6(a, b punch.Side) bool {
	_, a6 := families(a)
	_, b6 := families(b)
	return a6 && b6
}

func sameFamily(a, b punch.Side) bool { return both4(a, b) || both6(a, b) }

func sameAddress(a, b punch.Side) bool {
	address := func(s punch.Side) (out netip.Addr) {
		for _, e := range s.Observed {
			if e.Addr().Is4() {
				return e.Addr()
			}
		}
		return out
	}
	return address(a).IsValid() && address(a) == address(b)
}
