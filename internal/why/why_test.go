package why

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// Every pair of NATs and every fault are in the lab's test, in internal/matrix. Here
// are the ones that the lab does not have.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	easy := nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No, Hairpin: nat.No}
	hard := nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent}
	side := func(p nat.Profile, observed ...string) punch.Side {
		s := punch.Side{Abilities: punch.ByUDP, Profile: p, Candidates: []punch.Candidate{{Kind: punch.Host, Transport: punch.UDP, Endpoint: netip.MustParseAddrPort("192.168.1.2:1")}}}
		for _, o := range observed {
			s.Observed = append(s.Observed, netip.MustParseAddrPort(o))
		}
		return s
	}
	relayed := func(a, b punch.Side, r punch.Report) Facts {
		if r.Outcomes == nil {
			r.Outcomes = []punch.Outcome{{Tactic: punch.Plain, Result: punch.FoundNone}}
		}
		return Facts{Route: punch.Relay, Introduced: true, Self: a, Other: b, Report: r}
	}
	outcomes := func(first, second punch.Result) punch.Report {
		return punch.Report{Outcomes: []punch.Outcome{{Tactic: punch.Plain, Result: first}, {Tactic: punch.Birthday, Result: second}}}
	}
	byPing := func(a, b string, ours, theirs punch.Abilities, r punch.Report) Facts {
		r.Outcomes = []punch.Outcome{{Tactic: punch.Echo, Result: punch.FoundNone}}
		f := relayed(side(easy, a), side(easy, b), r)
		f.Self.Abilities, f.Other.Abilities = ours, theirs
		return f
	}
	byTCPAlone := func(ours, theirs nat.Profile, blocked bool) Facts {
		f := relayed(side(ours, "203.0.113.1:1"), side(theirs, "198.51.100.1:2"), punch.Report{})
		for _, s := range []*punch.Side{&f.Self, &f.Other} {
			s.Abilities, s.ObservedTCP, s.TCP = punch.ByTCP, s.Observed, s.Profile
		}
		if blocked {
			f.Self.Abilities, f.Other.Abilities = punch.ByTCP|punch.ByUDP, punch.ByTCP|punch.ByUDP
			f.Other.Observed, f.Other.Profile = nil, nat.Profile{}
		}
		return f
	}
	a4, b4, b6 := "203.0.113.1:1", "198.51.100.1:2", "[2001:db8::1]:3"
	wrong := fmt.Errorf("server: %w", rendezvous.ErrWrongServer)
	for name, c := range map[string]struct {
		facts Facts
		way   Way
		blame []Blame // nil: pending
		says  string
	}{
		"nothing yet":        {Facts{}, None, nil, "no introduction yet"},
		"wrong server":       {Facts{Server: wrong}, None, []Blame{{Server, Key}}, "does not have the key"},
		"full server":        {Facts{Server: rendezvous.ErrServerFull}, None, []Blame{{Server, Policy}}, "no more registrations"},
		"no such name":       {Facts{Server: fmt.Errorf("look up: %w", &net.DNSError{Err: "no such host"})}, None, []Blame{{Ours, Name}}, "no such host"},
		"server lost, relay": {Facts{Server: rendezvous.ErrNoServer, Route: punch.Relay, Introduced: true}, None, []Blame{{Ours, UDP}, {Server, Offline}}, "no answer"},
		"server lost, hole":  {Facts{Server: rendezvous.ErrNoServer, Route: punch.UDP, Introduced: true}, Direct, []Blame{}, "a hole"},
		"too many":           {Facts{Failed: rendezvous.ErrTooMany}, None, []Blame{{Server, Policy}}, "no more introductions"},
		"own ID":             {Facts{Failed: errors.New("that is this node's own ID")}, None, []Blame{{Ours, Policy}}, "own ID"},
		"asked again, and failed, with a relay that works": {
			func() Facts {
				f := relayed(side(hard, a4), side(hard, b4), punch.Report{})
				f.Failed = rendezvous.ErrNotReachable
				return f
			}(), Relayed, []Blame{{Both, Mapping}}, "both NATs",
		},
		"first introduction under way": {Facts{Route: punch.Relay}, Relayed, nil, "under way"},
		"attempt under way":            {relayed(side(hard, a4), side(easy, b4), outcomes(punch.FoundNone, punch.Running)), Relayed, nil, "under way"},
		"birthday found nothing":       {relayed(side(hard, a4), side(easy, b4), outcomes(punch.FoundNone, punch.FoundNone)), Relayed, []Blame{{Ours, Mapping}}, "birthday found nothing this time"},
		"birthday rests":               {relayed(side(easy, a4), side(hard, b4), outcomes(punch.FoundNone, punch.Postponed)), Relayed, []Blame{{Theirs, Mapping}}, "birthday has found nothing before and rests"},
		"hole died":                    {relayed(side(easy, a4), side(easy, b4), punch.Report{Confirmed: 1}), Relayed, []Blame{{Between, Filtering}}, "has died"},
		"nothing is measured":          {relayed(side(nat.Profile{}, a4), side(nat.Profile{}, b4), punch.Report{}), Relayed, []Blame{{Both, Unmeasured}}, "either NAT"},
		"ours is not measured":         {relayed(side(nat.Profile{}, a4), side(easy, b4), punch.Report{}), Relayed, []Blame{{Ours, Unmeasured}}, "our NAT"},
		"theirs is not measured":       {relayed(side(hard, a4), side(nat.Profile{}, b4), punch.Report{}), Relayed, []Blame{{Theirs, Unmeasured}}, "the peer's NAT"},
		"one carrier's address":        {relayed(side(hard, a4), side(hard, a4), punch.Report{}), Relayed, []Blame{{Both, Hairpin}}, "same public address"},
		"IPv6 alone in common":         {relayed(side(easy, b6), side(easy, b4, b6), punch.Report{}), Relayed, []Blame{{Between, Filtering}}, "a firewall on the way"},
		"a port is mapped, before another NAT": {
			func() Facts {
				b := side(hard, b4)
				b.Candidates = append(b.Candidates, punch.Candidate{Kind: punch.Mapped, Transport: punch.UDP, Endpoint: netip.MustParseAddrPort("10.0.0.1:9")})
				return relayed(side(easy, a4), b, outcomes(punch.FoundNone, punch.FoundNone))
			}(), Relayed, []Blame{{Theirs, Mapping}}, "another NAT is probably in front",
		},
		"TCP alone, nothing meets": {byTCPAlone(easy, easy, false), Relayed, []Blame{{Between, Filtering}}, "did not meet"},
		"TCP alone, ours is hard":  {byTCPAlone(hard, easy, false), Relayed, []Blame{{Ours, Mapping}}, "our NAT takes another port of TCP"},
		"TCP alone, both are hard": {byTCPAlone(hard, hard, false), Relayed, []Blame{{Both, Mapping}}, "both NATs"},
		"their UDP is blocked":     {byTCPAlone(easy, hard, true), Relayed, []Blame{{Theirs, Mapping}, {Theirs, UDP}}, "no UDP out"},
		"no UDP here":              {relayed(side(nat.Profile{}), side(easy, b4), punch.Report{Echoed: 1}), Relayed, []Blame{{Ours, UDP}, {Between, Filtering}}, "our UDP"},
		"no UDP there":             {relayed(side(easy, a4), side(nat.Profile{}), punch.Report{}), Relayed, []Blame{{Theirs, UDP}, {Between, Filtering}}, "the peer's UDP"},
		"no UDP at all":            {relayed(side(nat.Profile{}), side(nat.Profile{}), punch.Report{}), Relayed, []Blame{{Both, UDP}, {Between, Filtering}}, "either side's UDP"},
		"pings alone":              {byPing(a4, b4, punch.ByEcho, punch.ByEcho, punch.Report{}), Relayed, []Blame{{Both, Policy}}, "neither may answer"},
		"a router echoes": {
			byPing(a4, b4, punch.ByEcho, punch.ByEcho|punch.ByError, punch.Report{Echoed: 3}),
			Relayed,
			[]Blame{{Both, Filtering}, {Ours, Policy}},
			"answered by the router",
		},
		"pings come to nothing": {
			byPing(a4, b4, punch.ByEcho|punch.ByError, punch.ByEcho, punch.Report{}),
			Relayed,
			[]Blame{{Both, Filtering}, {Theirs, Policy}},
			"the replies to their own",
		},
		"ICMP is dropped": {
			byPing(a4, b4, punch.ByEcho|punch.ByError, punch.ByEcho|punch.ByError, punch.Report{}),
			Relayed,
			[]Blame{{Between, Filtering}, {Both, Filtering}},
			"neither pings nor ICMP errors",
		},
		"ICMP with a NAT that is hard": {func() Facts {
			f := byPing(a4, b4, punch.ByEcho|punch.ByError, punch.ByEcho|punch.ByError, punch.Report{})
			f.Self.Profile = hard
			return f
		}(), Relayed, []Blame{{Both, Mapping}}, "one port for all"},
		"both hard, and IPv6": {relayed(side(hard, a4, b6), side(hard, b4, b6), punch.Report{}), Relayed, []Blame{{Both, Mapping}, {Between, Filtering}}, "by IPv6"},
	} {
		v := Explain(c.facts)
		if v.Way != c.way || v.Pending != (c.blame == nil) || !slices.Equal(v.Blame, c.blame) || !strings.Contains(v.Reason, c.says) {
			t.Errorf("%s: %+v", name, v)
		}
		if len(v.Blame) > 0 && len(v.Help) == 0 && name != "own ID" {
			t.Errorf("%s: no help", name)
		}
		for _, text := range append(v.Help, v.Reason) {
			if strings.HasSuffix(text, ".") || text == "" {
				t.Errorf("%s: %q", name, text)
			}
		}
	}
}

func TestDirectSaysWhatItCameOf(t *testing.T) {
	t.Parallel()
	for _, name := range []punch.Name{punch.Plain, punch.Predict, punch.Birthday, punch.BlockBirthday, punch.Mixed, punch.PlainTCP, punch.PredictTCP, punch.BirthdayTCP, punch.Echo, punch.Errors, "another"} {
		v := Explain(Facts{Route: punch.UDP, Report: punch.Report{
			First: 1234500 * time.Nanosecond, Outcomes: []punch.Outcome{{Tactic: name, Result: punch.Won}},
		}})
		if v.Way != Direct || !v.Certain || !strings.Contains(v.Reason, "opened 1.2 ms after the introduction: ") {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
