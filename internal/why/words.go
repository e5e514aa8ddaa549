package why

import (
	"fmt"
	"strings"
	"time"

	"bodkin/nat"
	"bodkin/punch"
)

const (
	helpIPv6   = "IPv6 on both sides"
	helpMapped = "UPnP or PCP turned on at the router, so that it gives a fixed port away"
)

func opened(won punch.Name, after time.Duration) string {
	how := map[punch.Name]string{
		punch.Plain:         "both sides probed the endpoints at which they are known",
		punch.Predict:       "the next port of a NAT that counts was predicted",
		punch.Birthday:      "among many sockets of one side and many ports tried by the other, two met",
		punch.BlockBirthday: "among the ports of a carrier's block, two met",
		punch.Mixed:         "a predicted port met one of a carrier's block",
		punch.PlainTCP:      "connections from both sides met",
		punch.PredictTCP:    "the next port of a NAT that counts was predicted, and connections met there",
		punch.BirthdayTCP:   "among many ports of one side and many tried by the other, two connections met",
		punch.Echo:          "echo requests of one side reached the other, whose replies carry its packets",
		punch.Errors:        "ICMP errors carry packets, which both NATs take for answers to UDP",
	}[won]
	if how == "" {
		how = string(won)
	}
	return fmt.Sprintf("a hole opened %.1f ms after the introduction: %s", float64(after.Microseconds())/1000, how)
}

// at names a side in front of what would help there.
func at(s Side) string {
	switch s {
	case Ours:
		return "on our side"
	case Theirs:
		return "on their side"
	default:
		return "on either side"
	}
}

// habit is how a NAT without a fixed port takes ports.
func habit(p nat.Profile) string {
	switch p.Ports.Allocation {
	case nat.Sequential:
		return "one after the other"
	case nat.Block:
		return "at random in a block"
	case nat.Random:
		return "at random"
	default:
		return "in no order that is known"
	}
}

// mapping blames a side, or both, for ports that nobody can know.
func mapping(s Side, f Facts) Verdict {
	ours, theirs := habit(f.Self.Profile), habit(f.Other.Profile)
	v := Verdict{Blame: []Blame{{s, Mapping}}}
	switch {
	case s == Both && ours == theirs:
		v.Reason = fmt.Sprintf("both NATs take another port for each destination, %s, and let in nothing unexpected", ours)
	case s == Both:
		v.Reason = fmt.Sprintf("both NATs take another port for each destination, ours %s, theirs %s, and let in nothing unexpected", ours, theirs)
	case s == Ours:
		v.Reason = fmt.Sprintf("our NAT takes another port for each destination, %s, and theirs lets in nothing from a port that it does not know", ours)
	default:
		v.Reason = fmt.Sprintf("their NAT takes another port for each destination, %s, and ours lets in nothing from a port that it does not know", theirs)
	}
	v.Reason += chance(&f.Report)
	if both6(f.Self, f.Other) {
		v.Blame = append(v.Blame, Blame{Between, Filtering})
		v.Reason += "; by IPv6, where no ports change, a firewall on the way probably drops what comes"
	}
	v.Help = []string{
		at(s) + ": one port for all destinations: 'static port' in the outbound NAT of pfSense and OPNsense, masquerade without 'random' on Linux",
	}
	if (s != Theirs && mapped(f.Self)) || (s != Ours && mapped(f.Other)) {
		v.Reason += "; a router has mapped a port, and nothing comes by it: another NAT is probably in front of it"
	} else {
		v.Help = append(v.Help, at(s)+": "+helpMapped)
	}
	if !both6(f.Self, f.Other) {
		v.Help = append(v.Help, helpIPv6)
	}
	v.Help = append(v.Help, at(s)+", if the NAT is the carrier's: another network, or a public address from the carrier")
	return v
}

// chance says what became of the tactics against such NATs.
func chance(r *punch.Report) string {
	var tried []string
	for _, o := range r.Outcomes {
		if o.Tactic == punch.Plain || o.Tactic == punch.PlainTCP || o.Tactic == punch.Echo || o.Tactic == punch.Errors {
			continue
		}
		if o.Result == punch.Postponed {
			return fmt.Sprintf("; %s has found nothing before and rests for a while", o.Tactic)
		}
		tried = append(tried, string(o.Tactic))
	}
	if len(tried) == 0 {
		return "; guessing would take more packets than is fair"
	}
	return fmt.Sprintf("; %s found nothing this time, and is tried again", strings.Join(tried, " and "))
}

func early(s Side) Verdict {
	whose := map[Side]string{Ours: "our NAT", Theirs: "their NAT", Both: "each NAT"}[s]
	return Verdict{
		Blame:  []Blame{{s, Early}, {Between, Filtering}},
		Reason: whose + " keeps a packet that comes before it has sent one itself, and takes another port then: that has probably happened",
		Help: []string{
			at(s) + ": a router that drops what comes uninvited: an INPUT chain with the policy 'drop' on Linux",
			"another attempt, which follows by itself",
		},
	}
}

func unmeasured(s Side) Verdict {
	whose := map[Side]string{Ours: "our NAT", Theirs: "the peer's NAT", Both: "either NAT"}[s]
	return Verdict{
		Blame:  []Blame{{s, Unmeasured}},
		Reason: "nothing of the peer came in, and it is not known what " + whose + " does",
		Help:   []string{at(s) + ": `bodkin check`, which says what the NAT does and whether the server can tell", helpIPv6},
	}
}

func between() Verdict {
	return Verdict{
		Blame:  []Blame{{Between, Filtering}},
		Reason: "both NATs should let each other's packets in, and nothing of the peer came: a firewall on the way probably drops UDP between the two networks",
		Help: []string{
			"a firewall on either side, or between, that lets UDP through to any port",
			"another network on either side",
		},
	}
}

func noFamily(self punch.Side) Verdict {
	v := Verdict{Blame: []Blame{{Both, Family}}, Certain: true}
	if has4, _ := families(self); has4 {
		v.Reason = "we have only IPv4 towards the server, and the peer only IPv6"
		v.Help = []string{"IPv6 on our side, or IPv4 on theirs"}
		return v
	}
	v.Reason = "we have only IPv6 towards the server, and the peer only IPv4"
	v.Help = []string{"IPv4 on our side, or IPv6 on theirs"}
	return v
}
