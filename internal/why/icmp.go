package why

import (
	"bodkin/nat"
	"bodkin/punch"
)

// helpRaw is how a program gets what ICMP errors take.
const helpRaw = "the right to open raw sockets, instead of root: sudo setcap cap_net_raw+ep $(which bodkin)"

// onlyICMP reports whether ICMP is all that both sides may punch by.
func onlyICMP(f Facts) bool {
	both := f.Self.Abilities & f.Other.Abilities
	return f.Self.Abilities.Carries(punch.ICMP) && f.Other.Abilities.Carries(punch.ICMP) && !both.Has(punch.ByUDP) && !both.Has(punch.ByTCP)
}

// unprivileged is who may send pings and nothing else.
func unprivileged(f Facts) (who Side, any bool) {
	us, them := !f.Self.Abilities.Has(punch.ByError), !f.Other.Abilities.Has(punch.ByError)
	switch {
	case us && them:
		return Both, true
	case us:
		return Ours, true
	case them:
		return Theirs, true
	}
	return Both, false
}

// byICMP judges where ICMP was all that there was, and did not do. The words for a
// router's echo come first: it looks like an answer, and is none.
func byICMP(f Facts) Verdict {
	who, any := unprivileged(f)
	v := Verdict{Blame: []Blame{{Both, Filtering}}, Help: []string{"--transports left out, on both sides"}}
	switch {
	case who == Both && any:
		v.Blame, v.Certain = []Blame{{Both, Policy}}, true
		v.Reason = "both sides may send pings, and neither may answer them"
	case f.Report.Echoed > 0:
		v.Reason = "our pings were answered by the router of the other side, and not by the peer: echo requests do not get through its NAT"
	case any:
		v.Reason = "pings do not get from one side to the other: NATs let in the replies to their own alone"
	case fixed(f.Self.Profile) != nat.No && fixed(f.Other.Profile) != nat.No:
		v.Blame = []Blame{{Between, Filtering}, {Both, Filtering}}
		v.Reason = "neither pings nor ICMP errors get from one side to the other: a firewall drops them, or a NAT does not translate them"
	default:
		v.Blame = []Blame{{Both, Mapping}}
		v.Reason = "neither pings nor ICMP errors get from one side to the other: errors take a NAT with one port for all destinations, on both sides"
	}
	if any {
		v.Help = append([]string{at(who) + ": " + helpRaw}, v.Help...)
		if who != Both {
			v.Blame = append(v.Blame, Blame{who, Policy})
			v.Reason += "; ICMP errors might, and one side may not send them"
		}
	}
	return v
}

// unseen reports whether the server sees neither UDP nor TCP of a side, which it hears of
// by pings.
func unseen(s punch.Side) bool { return len(s.Observed) == 0 && len(s.ObservedTCP) == 0 }

// byPingsAlone is about a side from which nothing but pings gets out.
func byPingsAlone(f Facts) Verdict {
	s, whose := Both, "either side's"
	switch {
	case !unseen(f.Other):
		s, whose = Ours, "our"
	case !unseen(f.Self):
		s, whose = Theirs, "the peer's"
	}
	v := Verdict{
		Blame:  []Blame{{s, UDP}, {Between, Filtering}},
		Reason: "the server sees neither " + whose + " UDP nor its TCP, and pings did not get through to the peer",
		Help: []string{
			at(s) + ": a network that lets UDP out; company and guest networks often do not",
			"a public address on the other side: pings find it",
		},
	}
	if f.Report.Echoed > 0 {
		v.Reason += "; its router answered ours"
	}
	return v
}
