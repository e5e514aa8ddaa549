package natlab

import (
	"fmt"
	"net/netip"
	"time"
)

// Topology is a network: boxes and hosts, each behind a box or on the public
// core. The core is a router in between; it costs a TTL of one.
type Topology struct {
	// Seed decides which packets are lost and how long each is delayed.
	Seed uint64
	// IPv6 gives everything global IPv6 addresses beside IPv4: boxes filter
	// IPv6 and do not translate it.
	IPv6  bool
	Boxes []Box
	Hosts []Host
}

// Preset names what a box does.
type Preset string

// Presets. All of them are Linux, the most common home router.
const (
	// Linux translates (masquerade: endpoint-independent mapping as long as no
	// two hosts want one port, address and port-dependent filtering) and drops
	// what nobody inside asked for.
	Linux Preset = "linux"
	// LinuxAccept is Linux whose INPUT chain accepts: a stranger's packet leaves
	// state behind and moves the inside host's mapping.
	LinuxAccept Preset = "linux-accept"
	// OpenWrt answers what nobody asked for with a TCP reset or an ICMP error.
	OpenWrt Preset = "openwrt"
	// Random translates to a random port for every destination: a symmetric NAT.
	Random Preset = "random"
	// Firewall filters and does not translate.
	Firewall Preset = "firewall"
)

// Presets are all of them.
func Presets() []Preset { return []Preset{Linux, LinuxAccept, OpenWrt, Random, Firewall} }

// Box is a router with a NAT or a firewall. Its link leads outward, to the box
// that it is behind or to the core.
type Box struct {
	Name   string
	Behind string // a box; "" is the core
	Preset Preset // Linux if empty
	Link   Link
	// LAN is the network inside; the box has its first address. One is chosen
	// if it is not valid. Two homes may use the same.
	LAN netip.Prefix
}

// Host is a machine. Its link leads to its box or to the core.
type Host struct {
	Name   string
	Behind string // a box; "" is the core
	Link   Link
}

// Link is what happens to packets on the way, in each direction alike. The zero
// Link is a wire.
type Link struct {
	Delay  time.Duration `json:"delay"`  // one way
	Jitter time.Duration `json:"jitter"` // up to that much more, in order
	Loss   float64       `json:"loss"`   // of 1, each packet for itself
	Rate   int64         `json:"rate"`   // bit/s; 0: no limit
	// Queue is how long a packet may wait for its turn at Rate; 50 ms if 0.
	Queue time.Duration `json:"queue"`
}

// IsWire reports whether the link does nothing to packets.
func (l Link) IsWire() bool {
	return l.Delay == 0 && l.Jitter == 0 && l.Loss == 0 && l.Rate == 0
}

// Options are what TwoHomes varies; the zero Options are the defaults.
type Options struct {
	DelayA, DelayB, DelayS time.Duration // one way; 20, 30 and 10 ms if 0
	InsideA, InsideB       time.Duration // one way, inside the home, before its NAT
	Loss                   float64       // on both homes' access links, each way
	Jitter                 time.Duration // on both homes' access links
	PresetA, PresetB       Preset
	Rate, RateS            int64 // bit/s of the homes' and the server's access links
	IPv6                   bool
	SameLAN                bool // both homes use the same private network
	Seed                   uint64
}

// TwoHomes is the lab of the main job: a server on the core, and hosts "a" and
// "b", each in a home behind a box, "home-a" and "home-b".
func TwoHomes(o Options) Topology {
	first := func(d, otherwise time.Duration) time.Duration {
		if d == 0 {
			return otherwise
		}
		return d
	}
	access := func(d time.Duration) Link {
		return Link{Delay: d, Jitter: o.Jitter, Loss: o.Loss, Rate: o.Rate}
	}
	t := Topology{
		Seed: o.Seed,
		IPv6: o.IPv6,
		Boxes: []Box{
			{Name: "home-a", Preset: o.PresetA, Link: access(first(o.DelayA, 20*time.Millisecond))},
			{Name: "home-b", Preset: o.PresetB, Link: access(first(o.DelayB, 30*time.Millisecond))},
		},
		Hosts: []Host{
			{Name: "server", Link: Link{Delay: first(o.DelayS, 10*time.Millisecond), Rate: o.RateS}},
			{Name: "a", Behind: "home-a", Link: Link{Delay: o.InsideA}},
			{Name: "b", Behind: "home-b", Link: Link{Delay: o.InsideB}},
		},
	}
	if o.SameLAN {
		lan := netip.MustParsePrefix("192.168.1.0/24")
		t.Boxes[0].LAN, t.Boxes[1].LAN = lan, lan
	}
	return t
}

// Check finds what cannot be built.
func (t Topology) Check() error {
	seen := map[string]bool{"": true, "core": true}
	for _, b := range t.Boxes {
		if seen[b.Name] {
			return fmt.Errorf("topology: box %q: the name is taken or empty", b.Name)
		}
		if !seen[b.Behind] || b.Behind == "core" {
			return fmt.Errorf("topology: box %q is behind %q, which is no box named before it", b.Name, b.Behind)
		}
		if b.LAN.IsValid() && (!b.LAN.Addr().Is4() || b.LAN.Bits() > 24) {
			return fmt.Errorf("topology: box %q: LAN %v is not an IPv4 network of /24 or larger", b.Name, b.LAN)
		}
		seen[b.Name] = true
	}
	boxes := len(seen)
	for i, h := range t.Hosts {
		if seen[h.Name] {
			return fmt.Errorf("topology: host %q: the name is taken or empty", h.Name)
		}
		if h.Behind != "" && !isBox(t.Boxes, h.Behind) {
			return fmt.Errorf("topology: host %q is behind %q, which is no box", h.Name, h.Behind)
		}
		seen[h.Name] = true
		if i+boxes > maxNodes {
			return fmt.Errorf("topology: more than %d boxes and hosts", maxNodes)
		}
	}
	return nil
}

// maxNodes is how many networks the addressing has room for.
const maxNodes = 200

func isBox(boxes []Box, name string) bool {
	for _, b := range boxes {
		if b.Name == name {
			return true
		}
	}
	return false
}
