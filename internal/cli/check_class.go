package cli

import (
	"fmt"
	"strings"

	"bodkin/nat"
)

// class is a kind of NAT by the names that people use for it.
type class string

const (
	noNAT             class = "no-nat"
	firewalled        class = "firewall"
	fullCone          class = "full-cone"
	addressRestricted class = "address-restricted"
	portRestricted    class = "port-restricted"
	cone              class = "cone" // whose filter could not be told
	symmetric         class = "symmetric"
	udpBlocked        class = "udp-blocked"
	unknownNAT        class = "unknown"
)

// classOf names what was found, of IPv4.
func classOf(r nat.Report) class {
	dependent := r.Mapping.Value == nat.AddressDependent || r.Mapping.Value == nat.AddressAndPortDependent
	strict := map[nat.Behavior]class{
		nat.None: fullCone, nat.EndpointIndependent: fullCone,
		nat.AddressDependent: addressRestricted, nat.AddressAndPortDependent: portRestricted,
	}
	switch f := r.Filtering.Value; {
	case r.Blocked.Value == nat.Yes:
		return udpBlocked
	case dependent:
		return symmetric
	case r.Mapping.Value == nat.None && (f == nat.AddressAndPortDependent || f == nat.AddressDependent && r.Server.OtherAddress.IsValid()):
		return firewalled
	case r.Mapping.Value == nat.None:
		return noNAT
	case r.Mapping.Value == nat.EndpointIndependent && f == nat.Unknown:
		return cone
	case r.Mapping.Value == nat.EndpointIndependent:
		return strict[f]
	}
	return unknownNAT
}

// summary says in a sentence or two what the network does.
func summary(c class, r nat.Report) string {
	switch c {
	case noNAT:
		return "No NAT: the server sees this machine as it is, and nothing was found that keeps packets out."
	case firewalled:
		return "No NAT, but a firewall: packets come in from where packets went out to, and from nowhere else."
	case fullCone:
		return "An easy NAT (full cone): this machine has one port outside for everybody, and everybody may send to it."
	case addressRestricted:
		text := "An easy NAT (address-restricted cone): one port outside for everybody, and who was sent to may answer from any port."
		if !r.Server.OtherAddress.IsValid() {
			text += " Whether strangers may send too cannot be told by a server with one address."
		}
		return text
	case portRestricted:
		return "An ordinary NAT (port-restricted cone): one port outside for everybody, and who was sent to may answer, from the same port."
	case cone:
		return "A NAT with one port outside for everybody. Whom it lets in cannot be told by this server."
	case symmetric:
		return "A hard NAT (symmetric): another port outside for every destination; " + portWords(r.Ports.Value) + "."
	case udpBlocked:
		return "Nothing comes back over UDP: this network blocks it, or the server does not run."
	default:
	}
	return "A NAT, of which this server cannot tell more: it has one endpoint, and so there is nothing to compare."
}

// portWords is how ports are chosen.
func portWords(p nat.Ports) string {
	switch p.Allocation {
	case nat.Preserving:
		return "it keeps the port of the machine, where that is free"
	case nat.Sequential:
		step := "the next one"
		if p.Delta != 1 {
			step = fmt.Sprintf("%+d from the last one", p.Delta)
		}
		if p.Noise == 0 {
			return "it takes " + step + " each time"
		}
		return fmt.Sprintf("it takes %s each time, and others take %.1f a second", step, float64(p.Noise)/100)
	case nat.Random:
		return "it takes any port at random"
	case nat.Block:
		return fmt.Sprintf("it takes any at random of the %d from %d to %d or so", int(p.High)-int(p.Low)+1, p.Low, p.High)
	default:
		return "how it chooses them is not known"
	}
}

// text is a checkup for people; with all it says also what was seen.
func (c checkup) text(all bool) string {
	var b strings.Builder
	line := func(name, value string, evidence []string) {
		_, _ = fmt.Fprintf(&b, "  %-15s %s\n", name, value)
		if all {
			for _, e := range evidence {
				_, _ = fmt.Fprintf(&b, "  %-15s   %s\n", "", e)
			}
		}
	}
	_, _ = fmt.Fprintf(&b, "%s\n\n", c.Summary)
	r := c.NAT
	if r.Blocked.Known() {
		line("server", c.Server+", "+serverWords(r), r.Blocked.Evidence)
	}
	for _, s := range c.Streams {
		line(strings.ToUpper(s.Via), s.words(), nil)
	}
	if len(r.Public) > 0 {
		line("seen as", seenWords(r), append(r.Levels.Evidence, r.Pooled.Evidence...))
	}
	finding(line, "mapping", r.Mapping)
	if f := r.Filtering; f.Known() {
		line("filtering", filteringWords(r), f.Evidence)
	}
	if r.Ports.Known() && r.Mapping.Value != nat.None {
		line("ports", portWords(r.Ports.Value), r.Ports.Evidence)
	}
	if r.KeepsEarly.Value != nat.NotMeasured && r.Mapping.Value != nat.None {
		finding(line, "early packets", nat.Finding[word]{Value: earlyWords(r.KeepsEarly.Value), Time: r.KeepsEarly.Time, Evidence: r.KeepsEarly.Evidence})
	}
	if r.Hairpin.Value != nat.NotMeasured {
		finding(line, "hairpin", nat.Finding[word]{Value: hairpinWords(r.Hairpin.Value), Time: r.Hairpin.Time, Evidence: r.Hairpin.Evidence})
	}
	if f := r.Lifetime; f.Known() {
		line("mappings live", lifetimeWords(f.Value, r.Fresh.Value), append(f.Evidence, r.Fresh.Evidence...))
	}
	if c.Routers != nil {
		line("port mapping", c.Routers.words(r), nil)
	}
	if v := r.IPv6; v.Works.Known() {
		line("IPv6", ipv6Words(v), append(v.Works.Evidence, v.Filtering.Evidence...))
	}
	if c.ICMP.Ways != "" {
		line("ICMP", c.ICMP.words(), nil)
	}
	if len(c.Peers) > 0 {
		_, _ = fmt.Fprintf(&b, "\nTo peers behind\n")
		for _, p := range c.Peers {
			_, _ = fmt.Fprintf(&b, "  %-48s %s\n", p.text, p.words())
		}
	}
	if len(c.Advice) > 0 {
		_, _ = fmt.Fprintf(&b, "\nWhat would help\n")
		for _, a := range c.Advice {
			_, _ = fmt.Fprintf(&b, "  - %s\n", a)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// word is a finding's value in other words.
type word string

func (w word) String() string { return string(w) }

func finding[T fmt.Stringer](line func(string, string, []string), name string, f nat.Finding[T]) {
	if f.Known() {
		line(name, f.Value.String(), f.Evidence)
	}
}

func serverWords(r nat.Report) string {
	switch s := r.Server; {
	case r.Blocked.Value == nat.Yes:
		return "which does not answer"
	case s.OtherAddress.IsValid():
		return "with two addresses and two ports: it can tell everything"
	case s.OtherPort.IsValid():
		return "with one address and several ports: it can tell most"
	}
	return "which has no second endpoint, or does not tell: it can tell little"
}

func seenWords(r nat.Report) string {
	var seen []string
	for _, a := range r.Public {
		seen = append(seen, a.String())
	}
	text := strings.Join(seen, ", ")
	switch n := r.Levels.Value; {
	case !r.Levels.Known():
	case n == 0:
		text += ", as this machine is"
	case n == 1:
		text += ", through one NAT or more"
	default:
		text += fmt.Sprintf(", through %d NATs or more", n)
	}
	return text
}

func filteringWords(r nat.Report) string {
	if r.Filtering.Value == nat.AddressDependent && !r.Server.OtherAddress.IsValid() {
		return "address-dependent, or less strict"
	}
	return r.Filtering.Value.String()
}

func earlyWords(a nat.Answer) word {
	if a == nat.Yes {
		return "a stranger's packet that comes before ours moves our port: peers keep an order for that"
	}
	return "do no harm"
}

func hairpinWords(a nat.Answer) word {
	if a == nat.Yes {
		return "works: two machines behind this NAT reach each other by their public addresses too"
	}
	return "does not work: two machines behind this NAT meet by their private addresses"
}

func lifetimeWords(used, fresh nat.Span) string {
	if used == (nat.Span{}) && fresh == (nat.Span{}) {
		return "could not be measured by this server"
	}
	return fmt.Sprintf("%v after the last packet, or %v where there was one each way only", used, fresh)
}

func ipv6Words(v nat.IPv6) string {
	if v.Works.Value != nat.Yes {
		return "no way out"
	}
	text := fmt.Sprintf("works; the server sees %v", v.Address)
	if v.Translated.Value == nat.Yes {
		text += ", which is not this machine's own: it is translated"
	}
	switch v.Filtering.Value {
	case nat.None, nat.EndpointIndependent:
		text += "; nothing was found that keeps packets out"
	case nat.AddressDependent, nat.AddressAndPortDependent:
		text += "; a firewall lets answers in only, which punching opens"
	case nat.Unknown:
	}
	return text
}
