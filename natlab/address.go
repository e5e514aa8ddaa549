package natlab

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Place is where a box or host of a topology is: its addresses, on every bed the
// same, and its way out. Of two addresses the first is IPv4, the second IPv6, not
// valid without.
type Place struct {
	Name   string
	Behind string // a box; "" is the core
	// Addr are the addresses on the link outward, with the length of its prefix.
	Addr [2]netip.Prefix
	// More are the further IPv4 addresses of a box that has several, and those
	// that it takes when it is given another one.
	More []netip.Addr
	// Gateway are the addresses of the router outside.
	Gateway [2]netip.Addr
	// LAN are a box's own addresses inside, with the length of the prefix there.
	LAN [2]netip.Prefix
	// Routed are the networks that the outside reaches by a box: those inside it
	// that it does not hide behind its own address.
	Routed []netip.Prefix
}

// Places gives every box and host its addresses, in the order of the topology:
// boxes first.
func (t Topology) Places() []Place {
	p := places{topology: t, boxes: make(map[string]int), next: make(map[string]uint64)}
	for i, b := range t.Boxes {
		p.box(i, b)
	}
	for _, h := range t.Hosts {
		p.attach(Place{Name: h.Name, Behind: h.Behind}, 0)
	}
	return p.all
}

// places is the state of Places.
type places struct {
	topology Topology
	all      []Place
	boxes    map[string]int    // where in all
	next     map[string]uint64 // the next address inside each box
	core     int               // links on the core
}

// box places the i-th box and routes what it does not hide.
func (p *places) box(i int, b Box) {
	at := Place{Name: b.Name, Behind: b.Behind}
	lan := b.LAN.Masked()
	if !lan.IsValid() {
		switch lan = privatePrefix(i); {
		case !b.Does().Translates():
			lan = routedPrefix(i)
		case slices.ContainsFunc(p.topology.Boxes, func(x Box) bool { return x.Behind == b.Name }):
			lan = carrierPrefix(i)
		}
	}
	at.LAN[0] = nth(lan, 1)
	if p.topology.IPv6 {
		at.LAN[1] = nth(homePrefix6(i), 1)
	}
	p.boxes[b.Name], p.next[b.Name] = len(p.all), 2
	p.attach(at, max(b.Addresses, 1)-1+spareAddresses)
	for family, inside := range at.LAN {
		if inside.IsValid() {
			p.route(b.Name, family, inside.Masked())
		}
	}
}

// inside are the networks behind a box, as that sees them.
func inside(box Place, all []Place) (out []netip.Prefix) {
	for _, p := range box.LAN {
		if p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	for _, p := range all {
		if p.Behind == box.Name {
			out = append(out, p.Routed...)
		}
	}
	return out
}

// spareAddresses are kept for boxes that are given another address.
const spareAddresses = 4

// route makes a network inside a box known outside, up to the first box that
// hides it behind its own address.
func (p *places) route(box string, family int, inside netip.Prefix) {
	for box != "" {
		i := p.boxes[box]
		if family == 0 && p.topology.Boxes[i].Does().Translates() {
			return
		}
		p.all[i].Routed = append(p.all[i].Routed, inside)
		box = p.all[i].Behind
	}
}

// attach gives addresses on the core or inside a box.
func (p *places) attach(at Place, more int) {
	var nets [2]netip.Prefix
	first, used := uint64(10), uint64(0)
	if at.Behind == "" {
		nets[0] = p.topology.publicPrefix(p.core)
		if p.topology.IPv6 {
			nets[1] = prefix6(p.core)
		}
		p.core++
	} else {
		nets = p.all[p.boxes[at.Behind]].LAN
		first = p.next[at.Behind]
		used = first + uint64(more) + 1
	}
	for family, n := range nets {
		if n.IsValid() {
			at.Addr[family] = nth(n, first)
			at.Gateway[family] = nth(n, 1).Addr()
		}
	}
	for i := range more {
		at.More = append(at.More, nth(nets[0], first+1+uint64(i)).Addr())
	}
	if at.Behind != "" {
		p.next[at.Behind] = used
	}
	p.all = append(p.all, at)
}

// publicPrefix is the network of the i-th link on the core: the documentation
// ranges (RFC 5737) first, then the benchmark range (RFC 2544), unless the
// topology says otherwise.
func (t Topology) publicPrefix(i int) netip.Prefix {
	if t.Public.IsValid() {
		return netip.PrefixFrom(nth(t.Public, uint64(i)<<8).Addr(), 24)
	}
	doc := [][4]byte{{203, 0, 113, 0}, {198, 51, 100, 0}, {192, 0, 2, 0}}
	if i < len(doc) {
		return netip.PrefixFrom(netip.AddrFrom4(doc[i]), 24)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24)
}

// routedPrefix is the network inside the i-th box, if that does not translate:
// the other half of the benchmark range.
func routedPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(i), 0}), 24)
}

// privatePrefix is the network inside the i-th box, if that translates.
func privatePrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i + 1), 0}), 24)
}

// carrierPrefix is the network inside the i-th box, if other boxes are in it (RFC
// 6598).
func carrierPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(i), 0}), 24)
}

// prefix6 is a /64 of the documentation range (RFC 3849).
func prefix6(n int) netip.Prefix {
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint16(a[4:], uint16(n))
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// homePrefix6 is the IPv6 network inside the i-th box.
func homePrefix6(i int) netip.Prefix { return prefix6(0xf000 + i) }

// nth is the n-th address of a network, with its length.
func nth(p netip.Prefix, n uint64) netip.Prefix {
	if p = p.Masked(); p.Addr().Is4() {
		a := p.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n))
		return netip.PrefixFrom(netip.AddrFrom4(a), p.Bits())
	}
	a := p.Addr().As16()
	binary.BigEndian.PutUint64(a[8:], binary.BigEndian.Uint64(a[8:])+n)
	return netip.PrefixFrom(netip.AddrFrom16(a), p.Bits())
}
