package cli

import (
	"net/netip"
	"strings"

	"bodkin/nat"
	"bodkin/punch"
)

// meeting is what comes of a connection to a peer behind some class of NAT.
type meeting struct {
	Peer    string     `json:"peer"`
	Outcome outcome    `json:"outcome"`
	Tactic  punch.Name `json:"tactic,omitempty"`
	text    string
}

// outcome is how sure a direct connection is.
type outcome string

const (
	direct    outcome = "direct"
	mostly    outcome = "mostly direct"
	sometimes outcome = "sometimes direct"
	relayed   outcome = "relay"
	unclear   outcome = "unknown"
)

// peerClasses are the NATs that others are behind.
var peerClasses = []struct {
	name, text string
	profile    nat.Profile
}{
	{"open", "no NAT, or one that lets everybody in", nat.Profile{
		Mapping: nat.EndpointIndependent, Filtering: nat.EndpointIndependent, KeepsEarly: nat.No, Ports: nat.Ports{Allocation: nat.Preserving},
	}},
	{"port-restricted", "an ordinary NAT, as most homes have", nat.Profile{
		Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No, Ports: nat.Ports{Allocation: nat.Preserving},
	}},
	{"symmetric-sequential", "a hard NAT that counts its ports up", hardProfile(nat.Ports{Allocation: nat.Sequential, Delta: 1, Last: 20000})},
	{"symmetric-random", "a hard NAT that takes them at random", hardProfile(nat.Ports{Allocation: nat.Random})},
	{"carrier-block", "a carrier's hard NAT, with a block of 512 ports", hardProfile(nat.Ports{Allocation: nat.Block, Low: 2048, High: 2559})},
}

func hardProfile(p nat.Ports) nat.Profile {
	return nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, Ports: p}
}

// meetings are what comes of connections by IPv4, for each class.
func meetings(r nat.Report) (out []meeting) {
	if r.Blocked.Value == nat.Yes || !r.Mapping.Known() {
		return nil
	}
	for _, c := range peerClasses {
		m := meeting{Peer: c.name, text: c.text}
		m.Outcome, m.Tactic = meet(r.Profile, c.profile)
		out = append(out, m)
	}
	return out
}

// meet is what the plan of both makes of two NATs.
func meet(self, other nat.Profile) (outcome, punch.Name) {
	side := func(p nat.Profile, at string) punch.Side {
		return punch.Side{Abilities: punch.ByUDP, Profile: p, Observed: []netip.AddrPort{netip.MustParseAddrPort(at)}}
	}
	plan := punch.Plan(side(self, "192.0.2.1:4000"), side(other, "198.51.100.1:4000"))
	ours, theirs := steady(self.Mapping), steady(other.Mapping)
	if self.Mapping == nat.Unknown {
		return unclear, ""
	}
	for _, t := range plan {
		switch t.Name {
		case punch.Plain:
		case punch.Predict:
			if ours || theirs {
				return direct, t.Name
			}
			return mostly, t.Name
		case punch.Birthday:
			return direct, t.Name
		case punch.BlockBirthday:
			if ours || theirs {
				return direct, t.Name
			}
			return sometimes, t.Name
		default:
			return sometimes, t.Name
		}
	}
	lets := func(p nat.Profile) bool {
		return p.Filtering == nat.None || p.Filtering == nat.EndpointIndependent
	}
	near := func(p nat.Profile) bool { return lets(p) || p.Filtering == nat.AddressDependent }
	switch {
	case ours && theirs, lets(self), lets(other), ours && near(self), theirs && near(other):
		return direct, punch.Plain
	case self.Filtering == nat.Unknown:
		return unclear, ""
	}
	return relayed, ""
}

// steady reports whether a mapping is the same for all destinations.
func steady(b nat.Behavior) bool { return b == nat.None || b == nat.EndpointIndependent }

// words is the outcome for people.
func (m meeting) words() string {
	how := map[punch.Name]string{
		punch.Plain:         "at once",
		punch.Predict:       "by predicting ports",
		punch.Birthday:      "after some seconds, by trying many ports",
		punch.BlockBirthday: "after a second or two, by trying the ports of the block",
		punch.Mixed:         "by luck, predicting one side's ports and trying the other's",
	}
	switch m.Outcome {
	case relayed:
		return "over the relay"
	case unclear:
		return "not known"
	default:
	}
	return strings.TrimSuffix(string(m.Outcome)+", "+how[m.Tactic], ", ")
}
