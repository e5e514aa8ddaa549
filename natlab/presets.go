package natlab

import (
	"slices"
	"time"

	"bodkin/nat"
)

// Preset names a kind of NAT that is met: one box, or several in series.
type Preset string

// Presets.
const (
	Open                Preset = "open"
	Firewall            Preset = "firewall"
	FullCone            Preset = "full-cone"
	AddressRestricted   Preset = "address-restricted"
	PortRestricted      Preset = "port-restricted"
	Linux               Preset = "linux"
	LinuxAccept         Preset = "linux-accept"
	OpenWrt             Preset = "openwrt"
	SymmetricSequential Preset = "symmetric-sequential"
	SymmetricBusy       Preset = "symmetric-busy"
	SymmetricRandom     Preset = "symmetric-random"
	CGNAT               Preset = "cgnat"
	CGNATBlock          Preset = "cgnat-block"
	SameNAT             Preset = "same-nat"
	SameNATHairpin      Preset = "same-nat-hairpin"
	DoubleNAT           Preset = "double-nat"
	UDPBlocked          Preset = "udp-blocked"
	TCPOnly443          Preset = "tcp-only-443"
	ICMPLoose           Preset = "icmp-loose"
	ShortTimeout        Preset = "short-timeout"
	V6Firewall          Preset = "v6-firewall"
)

// kind is what a preset stands for.
type kind struct {
	preset Preset
	boxes  []NAT // from the inside out
	shared bool
	ipv6   bool
	text   string
}

// The boxes that presets are made of.
var (
	// linuxBox is netfilter with `masquerade`, whose INPUT chain drops.
	linuxBox = NAT{
		Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent,
		Conntrack: true, Fragments: FragmentsReassembled, Leaks: true, TCP: TCP{Loose: true},
	}
	// coneBox is a home router as RFC 4787 has it; its filter is to be chosen.
	coneBox = NAT{Mapping: nat.EndpointIndependent, UDP: UDP{Refresh: RefreshBoth}}
	// carrierBox hairpins as RFC 6888 wants it.
	carrierBox = NAT{
		Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent,
		Hairpinning: ExternalSource, UDP: UDP{Refresh: RefreshBoth},
	}
	symmetricBox = NAT{
		Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent,
		Ports: Ports{Allocation: Sequential}, UDP: UDP{Refresh: RefreshBoth},
	}
)

// with is a box with something changed.
func (n NAT) with(change func(*NAT)) NAT {
	change(&n)
	return n
}

func filters(b nat.Behavior) func(*NAT) { return func(n *NAT) { n.Filtering = b } }

// fullyRandom is netfilter with `masquerade fully-random`.
func fullyRandom(n *NAT) { n.Mapping = nat.AddressAndPortDependent }

var kinds = []kind{
	{
		preset: Open, boxes: []NAT{{}},
		text: "A plain router: a server in a data centre, an office with public addresses, IPv6 without a firewall.",
	},
	{
		preset: Firewall, boxes: []NAT{linuxBox.with(func(n *NAT) { n.Mapping = nat.None })},
		text: "Public addresses behind a stateful firewall: universities, cloud security groups, companies with their own network.",
	},
	{
		preset: FullCone, boxes: []NAT{coneBox.with(filters(nat.EndpointIndependent))},
		text: "Whoever knows the mapping may send to it: some home routers and game consoles' favourites, carriers that follow RFC 6888 closely.",
	},
	{
		preset: AddressRestricted, boxes: []NAT{coneBox.with(filters(nat.AddressDependent))},
		text: "Any port of an address that was sent to may reply: older home routers.",
	},
	{
		preset: PortRestricted, boxes: []NAT{coneBox.with(filters(nat.AddressAndPortDependent))},
		text: "Only who was sent to may reply, and the port stays: most home routers that are not Linux.",
	},
	{
		preset: Linux, boxes: []NAT{linuxBox},
		text: "netfilter's masquerade, unsolicited packets dropped: the most common home router, phones that share their connection, Docker.",
	},
	{
		preset: LinuxAccept,
		boxes: []NAT{linuxBox.with(func(n *NAT) {
			n.KeepsEarly, n.ICMP.Pings = true, true
			n.UDP.Refusal, n.TCP.Refusal = RefuseWithError, RefuseWithReset
		})},
		text: "The same with an INPUT chain that accepts: a Linux machine set up as a router by hand, a hypervisor's host. A stranger's early packet moves the mapping.",
	},
	{
		preset: OpenWrt,
		boxes: []NAT{linuxBox.with(func(n *NAT) {
			n.Leaks, n.ICMP.Pings = false, true
			n.UDP.Refusal, n.TCP.Refusal, n.ICMP.Refusal = RefuseWithError, RefuseWithReset, RefuseWithError
		})},
		text: "OpenWrt's firewall as it is delivered: unsolicited packets are answered with a reset or an ICMP error, and pings with a reply.",
	},
	{
		preset: SymmetricSequential, boxes: []NAT{symmetricBox},
		text: "Another port for every destination, one after the other: older business routers and carriers.",
	},
	{
		preset: SymmetricBusy, boxes: []NAT{symmetricBox.with(func(n *NAT) { n.Busy = 20 })},
		text: "The same with many others behind it, who take 20 ports a second: a hotel, a school, a small carrier.",
	},
	{
		preset: SymmetricRandom, boxes: []NAT{linuxBox.with(fullyRandom)},
		text: "Another random port for every destination: pf on the BSDs (pfSense, OPNsense), `masquerade fully-random`, mobile carriers.",
	},
	{
		preset: CGNAT, boxes: []NAT{linuxBox, linuxBox},
		text: "A home router behind a carrier's NAT that keeps ports: cable, fibre and mobile internet without a public IPv4 address.",
	},
	{
		preset: CGNATBlock,
		boxes: []NAT{linuxBox, symmetricBox.with(func(n *NAT) {
			n.Ports = Ports{Allocation: Random, BlockSize: 512}
			n.Hairpinning, n.Limits.Host = ExternalSource, 2000
		})},
		text: "A home router behind a carrier's NAT that gives each customer a block of 512 ports (RFC 7422) and takes another of them for every destination.",
	},
	{
		preset: SameNAT, boxes: []NAT{coneBox.with(filters(nat.AddressAndPortDependent))}, shared: true,
		text: "Both peers behind the same router, which does not hairpin: two machines at home that know only each other's public endpoint.",
	},
	{
		preset: SameNATHairpin, boxes: []NAT{carrierBox}, shared: true,
		text: "Both peers behind the same router, which hairpins as RFC 4787 demands.",
	},
	{
		preset: DoubleNAT, boxes: []NAT{linuxBox, carrierBox}, shared: true,
		text: "Two homes of one carrier, whose NAT hairpins while the homes' do not: neighbours without public addresses.",
	},
	{
		preset: UDPBlocked, boxes: []NAT{linuxBox.with(func(n *NAT) { n.Block.UDP = true })},
		text: "No UDP: company and guest networks that allow what they know.",
	},
	{
		preset: TCPOnly443,
		boxes:  []NAT{linuxBox.with(func(n *NAT) { n.Block = Block{UDP: true, TCP: true, ICMP: true, TCPBut: 443} })},
		text:   "Nothing but TCP to port 443: strict company networks, hotels, some public Wi-Fi.",
	},
	{
		preset: ICMPLoose,
		boxes: []NAT{coneBox.with(func(n *NAT) {
			n.Filtering, n.ICMP.TypeAgnostic = nat.AddressAndPortDependent, true
		})},
		text: "A home router that matches pings by their identifier alone, so that echo requests from both sides meet.",
	},
	{
		preset: ShortTimeout,
		boxes: []NAT{linuxBox.with(func(n *NAT) {
			n.UDP.Unreplied, n.UDP.Replied = 20*time.Second, 20*time.Second
		})},
		text: "Mappings that die after 20 s without a packet: overloaded carriers and cheap routers, against RFC 4787 REQ-5.",
	},
	{
		preset: V6Firewall, boxes: []NAT{linuxBox.with(fullyRandom)}, ipv6: true,
		text: "Native IPv6, filtered and not translated, beside an IPv4 that is hard to cross: DS-Lite and mobile internet.",
	},
}

// Presets are all of them.
func Presets() []Preset {
	out := make([]Preset, len(kinds))
	for i, k := range kinds {
		out[i] = k.preset
	}
	return out
}

// kind is that of Linux for "", and of nothing for an unknown preset.
func (p Preset) kind() kind {
	if p == "" {
		p = Linux
	}
	for _, k := range kinds {
		if k.preset == p {
			return k
		}
	}
	return kind{}
}

// NAT is what the preset's box does; of several, the outermost. An unknown preset
// is a plain router.
func (p Preset) NAT() NAT {
	boxes := p.Boxes()
	if len(boxes) == 0 {
		return NAT{}
	}
	return boxes[len(boxes)-1]
}

// Boxes are what the preset's boxes do, from the inside out.
func (p Preset) Boxes() []NAT { return slices.Clone(p.kind().boxes) }

// Shared says that two sides with this preset are behind the same outermost box.
func (p Preset) Shared() bool { return p.kind().shared }

// IPv6 says that the preset is about IPv6, and needs a topology that has it.
func (p Preset) IPv6() bool { return p.kind().ipv6 }

// Text says in a sentence what the preset is and where it is met.
func (p Preset) Text() string { return p.kind().text }
