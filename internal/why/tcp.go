package why

import (
	"bodkin/nat"
	"bodkin/punch"
)

// needsTCP reports whether TCP is the best that both sides can punch by: one of them may
// not by UDP, or its network lets none out.
func needsTCP(f Facts) bool {
	both := f.Self.Abilities & f.Other.Abilities
	return both.Has(punch.ByTCP) && (!both.Has(punch.ByUDP) || noUDP(f.Self) || noUDP(f.Other))
}

// noUDP reports whether the server sees a side's TCP alone.
func noUDP(s punch.Side) bool { return len(s.Observed) == 0 && len(s.ObservedTCP) > 0 }

// byTCP judges where TCP did not do, and there was nothing better.
func byTCP(f Facts) Verdict {
	v := Verdict{Help: []string{
		"a firewall on either side, or between, that lets TCP in from where TCP goes out to",
		"another network on either side",
	}}
	ours, theirs := tcpProfile(f.Self), tcpProfile(f.Other)
	switch us, them := fixed(ours), fixed(theirs); {
	case us == nat.No && them == nat.No:
		v.Blame = []Blame{{Both, Mapping}}
		v.Reason = "both NATs take another port for each destination, of TCP too"
	case us == nat.No:
		v.Blame = []Blame{{Ours, Mapping}}
		v.Reason = "our NAT takes another port of TCP for each destination, " + habit(ours)
	case them == nat.No:
		v.Blame = []Blame{{Theirs, Mapping}}
		v.Reason = "their NAT takes another port of TCP for each destination, " + habit(theirs)
	default:
		v.Blame = []Blame{{Between, Filtering}}
		v.Reason = "connections from both sides did not meet: a firewall on the way probably drops those from outside"
	}
	if v.Blame[0].Layer == Mapping {
		v.Reason += chance(&f.Report)
		v.Help = append([]string{at(v.Blame[0].Side) + ": one port for all destinations, or " + helpMapped}, v.Help...)
	}
	switch us, them := noUDP(f.Self), noUDP(f.Other); {
	case us && them:
		v.add(Both, "; both networks let no UDP out")
	case us:
		v.add(Ours, "; our network lets no UDP out")
	case them:
		v.add(Theirs, "; their network lets no UDP out")
	}
	return v
}

// add says that UDP would have been an easier way.
func (v *Verdict) add(s Side, reason string) {
	v.Blame = append(v.Blame, Blame{s, UDP})
	v.Reason += reason
	v.Help = append(v.Help, at(s)+": a firewall that lets UDP out")
}

// tcpProfile is how a side's NAT treats TCP, as far as that is known.
func tcpProfile(s punch.Side) nat.Profile {
	if s.TCP.Mapping != nat.Unknown {
		return s.TCP
	}
	return s.Profile
}
