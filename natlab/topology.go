package natlab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Topology is a network: boxes and hosts, each behind a box or on the public
// core. The core is a router in between; it costs a TTL of one.
type Topology struct {
	// Seed decides which packets are lost and how long each is delayed.
	Seed uint64
	// IPv6 gives everything global IPv6 addresses beside IPv4: boxes filter
	// IPv6 and do not translate it.
	IPv6 bool
	// Public is the IPv4 network of which each link on the core has a /24. The
	// ranges for documentation and benchmarks (RFC 5737, RFC 2544) if it is not
	// valid, which some programs refuse to take for public.
	Public netip.Prefix
	Boxes  []Box
	Hosts  []Host
}

// Box is a router with a NAT or a firewall. Its link leads outward, to the box
// that it is behind or to the core.
type Box struct {
	Name   string
	Behind string // a box; "" is the core
	Preset Preset // of one box; Linux if empty
	// NAT is what the box does if it is not zero and there is no Preset.
	NAT  NAT
	Link Link
	// LAN is the IPv4 network inside; the box has its first address. One is
	// chosen if it is not valid. Two homes may use the same.
	LAN netip.Prefix
	// Addresses is how many public IPv4 addresses the box has; 1 if 0.
	Addresses int
}

// Does is what the box does.
func (b Box) Does() NAT {
	switch {
	case b.Preset != "":
		return b.Preset.NAT()
	case b.NAT != NAT{}:
		return b.NAT
	}
	return Linux.NAT()
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
	// Duplicate is the share of packets that come twice, Reorder of those that
	// are late by up to Delay, or a millisecond if that is more, while others
	// overtake them.
	Duplicate float64 `json:"duplicate"`
	Reorder   float64 `json:"reorder"`
	Rate      int64   `json:"rate"` // bit/s of IP packets; 0: no limit
	// Queue is how long a packet may wait for its turn at Rate, 50 ms if 0; one
	// that would wait longer is dropped.
	Queue time.Duration `json:"queue"`
}

// IsWire reports whether the link does nothing to packets.
func (l Link) IsWire() bool {
	return l.Delay == 0 && l.Jitter == 0 && l.Loss == 0 && l.Rate == 0 && l.Duplicate == 0 && l.Reorder == 0
}

// Check finds what no link can be.
func (l Link) Check() error {
	switch {
	case l.Delay < 0 || l.Jitter < 0 || l.Queue < 0:
		return fmt.Errorf("link: delay %v, jitter %v and queue %v must not be negative", l.Delay, l.Jitter, l.Queue)
	case !share(l.Loss) || !share(l.Duplicate) || !share(l.Reorder):
		return fmt.Errorf("link: loss %v, duplicate %v and reorder %v are shares, from 0 to 1", l.Loss, l.Duplicate, l.Reorder)
	case l.Rate < 0:
		return fmt.Errorf("link: rate %d bit/s must not be negative; 0 is no limit", l.Rate)
	}
	return nil
}

func share(x float64) bool { return x >= 0 && x <= 1 }

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
// "b", each in a home behind a box, "home-a" and "home-b". Where a preset is of
// two boxes the outer ones are "carrier-a" and "carrier-b". Two sides of a preset
// that is shared are behind one outermost box, "shared".
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
		IPv6: o.IPv6 || o.PresetA.IPv6() || o.PresetB.IPv6(),
	}
	shared := o.PresetA == o.PresetB && o.PresetA.Shared()
	t.home("a", o.PresetA, shared, access(first(o.DelayA, 20*time.Millisecond)), Link{Delay: o.InsideA}, o.SameLAN)
	t.home("b", o.PresetB, shared, access(first(o.DelayB, 30*time.Millisecond)), Link{Delay: o.InsideB}, o.SameLAN)
	server := Host{Name: "server", Link: Link{Delay: first(o.DelayS, 10*time.Millisecond), Rate: o.RateS}}
	t.Hosts = append([]Host{server}, t.Hosts...)
	return t
}

// home adds a host and the boxes that it is behind. The innermost box has the
// access link; the others are next to the core.
func (t *Topology) home(name string, p Preset, shared bool, access, inside Link, sameLAN bool) {
	boxes := p.Boxes()
	behind := ""
	for i, box := range slices.Backward(boxes) {
		b := Box{Name: "carrier-" + name, Behind: behind, NAT: box}
		if len(boxes) == 1 {
			b.NAT, b.Preset = NAT{}, p
		}
		if i == 0 {
			b.Name, b.Link = "home-"+name, access
			if sameLAN {
				b.LAN = netip.MustParsePrefix("192.168.1.0/24")
			}
		}
		if i == len(boxes)-1 && shared {
			b.Name = sharedBox
		}
		if !slices.ContainsFunc(t.Boxes, func(x Box) bool { return x.Name == b.Name }) {
			t.Boxes = append(t.Boxes, b)
		}
		behind = b.Name
	}
	t.Hosts = append(t.Hosts, Host{Name: name, Behind: behind, Link: inside})
}

// sharedBox is the box that both homes are behind.
const sharedBox = "shared"

// Check finds what cannot be built.
func (t Topology) Check() error {
	if n := len(t.Boxes) + len(t.Hosts); n > maxNodes {
		return fmt.Errorf("topology: %d boxes and hosts, more than %d", n, maxNodes)
	}
	if p := t.Public; p.IsValid() && (!p.Addr().Is4() || p.Bits() > 16) {
		return fmt.Errorf("topology: Public %v is not an IPv4 network of /16 or larger", p)
	}
	boxes := make(map[string]Box)
	for _, b := range t.Boxes {
		if err := t.checkBox(b, boxes); err != nil {
			return fmt.Errorf("topology: box %q: %w", b.Name, err)
		}
		boxes[b.Name] = b
	}
	hosts := make(map[string]bool)
	for _, h := range t.Hosts {
		_, isBox := boxes[h.Name]
		_, isBehind := boxes[h.Behind]
		err := h.Link.Check()
		switch {
		case h.Name == "" || h.Name == coreName || isBox || hosts[h.Name]:
			err = errName
		case h.Behind != "" && !isBehind:
			err = fmt.Errorf("it is behind %q, which is no box", h.Behind)
		}
		if err != nil {
			return fmt.Errorf("topology: host %q: %w", h.Name, err)
		}
		hosts[h.Name] = true
	}
	return nil
}

const (
	// maxNodes is how many networks the addressing has room for.
	maxNodes = 200
	// maxAddresses is how many of a network's addresses one box may have.
	maxAddresses = 64
	// coreName is how the network in the middle is called.
	coreName = "core"
)

var errName = errors.New("the name is taken or empty; give each box and host its own")

// checkBox checks a box against those named before it.
func (t Topology) checkBox(b Box, before map[string]Box) error {
	outer, behind := before[b.Behind]
	if _, taken := before[b.Name]; taken || b.Name == "" || b.Name == coreName {
		return errName
	}
	switch {
	case b.Behind != "" && !behind:
		return fmt.Errorf("it is behind %q, which is no box named before it", b.Behind)
	case b.Preset != "" && !slices.Contains(Presets(), b.Preset):
		return fmt.Errorf("no preset %q; there are %v", b.Preset, Presets())
	case len(b.Preset.Boxes()) > 1:
		return fmt.Errorf("preset %q is %d boxes; make each a Box with its NAT, of Preset.Boxes", b.Preset, len(b.Preset.Boxes()))
	case b.Preset != "" && b.NAT != NAT{}:
		return errors.New("it has a Preset and a NAT; leave one away")
	case b.LAN.IsValid() && (!b.LAN.Addr().Is4() || b.LAN.Bits() > 24):
		return fmt.Errorf("its LAN %v is not an IPv4 network of /24 or larger", b.LAN)
	case b.Addresses < 0 || b.Addresses > maxAddresses:
		return fmt.Errorf("%d addresses are not between 1 and %d", b.Addresses, maxAddresses)
	case b.LAN.IsValid() && outer.LAN.IsValid() && b.LAN.Overlaps(outer.LAN):
		return fmt.Errorf("its LAN %v is also outside of it, behind %q; choose another", b.LAN, b.Behind)
	}
	if err := b.NAT.Check(); err != nil {
		return err
	}
	return b.Link.Check()
}
