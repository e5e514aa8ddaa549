package netbed

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"bodkin/natlab"

	"github.com/vishvananda/netlink"
)

// builder turns a topology into namespaces, links and addresses.
type builder struct {
	lab      *Lab
	topology natlab.Topology
	coreNS   *ns
	macs     uint32
	spokes   int
	lans     int
}

// site is a box or a host while it is built.
type site struct {
	name string
	ns   *ns
	wan  [2]netip.Prefix // our addresses on the link outward, IPv4 and IPv6
	lan  [2]netip.Prefix // a box's addresses inside
	mac  net.HardwareAddr
	next uint64 // the next address inside
	lans int
	// translates says that a box hides its IPv4 network.
	translates bool
	// outer is the box outside, or nil; spoke the link to the core.
	outer *site
	spoke *spoke
}

func (b *builder) mac() net.HardwareAddr {
	b.macs++
	m := net.HardwareAddr{0x02, 0xb0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(m[2:], b.macs)
	return m
}

func (b *builder) build() error {
	var err error
	if b.coreNS, err = b.namespace(); err != nil {
		return err
	}
	boxes := make(map[string]*site)
	for _, box := range b.topology.Boxes {
		s, err := b.box(box, boxes[box.Behind])
		if err != nil {
			return fmt.Errorf("lab: box %s: %w", box.Name, err)
		}
		boxes[box.Name] = s
		b.lab.boxes[box.Name] = &Box{name: box.Name, site: s}
	}
	for _, h := range b.topology.Hosts {
		n, err := b.namespace()
		if err == nil {
			s := &site{name: h.Name, ns: n}
			err = b.attach(s, boxes[h.Behind], h.Link)
			b.lab.hosts[h.Name] = &Host{name: h.Name, site: s}
		}
		if err != nil {
			return fmt.Errorf("lab: host %s: %w", h.Name, err)
		}
	}
	for _, n := range b.lab.spaces {
		if err := awaitCarrier(n); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

func (b *builder) namespace() (*ns, error) {
	n, err := newNS()
	if err != nil {
		return nil, err
	}
	b.lab.spaces = append(b.lab.spaces, n)
	return n, nil
}

// box builds a router: its link outward, a bridge inside, and its rules.
func (b *builder) box(box natlab.Box, outer *site) (*site, error) {
	n, err := b.namespace()
	if err != nil {
		return nil, err
	}
	s := &site{name: box.Name, ns: n, mac: b.mac(), next: 2, translates: box.Does().Translates()}
	if err := b.attach(s, outer, box.Link); err != nil {
		return nil, err
	}
	lan := box.LAN.Masked()
	if !lan.IsValid() {
		if lan = privatePrefix(b.lans); !s.translates {
			lan = routedPrefix(b.lans)
		}
	}
	s.lan[0] = host(lan, 1)
	if b.topology.IPv6 {
		s.lan[1] = host(homePrefix6(b.lans), 1)
	}
	b.lans++
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan", HardwareAddr: s.mac}}
	if err := n.links.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if err := up(n, "lan", s.lan); err != nil {
		return nil, err
	}
	if err := n.sysctl("ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	if b.topology.IPv6 {
		if err := n.sysctl("ipv6/conf/all/forwarding", "1"); err != nil {
			return nil, err
		}
	}
	for family := range s.lan {
		if err := b.routeInside(s, family); err != nil {
			return nil, err
		}
	}
	return s, rules(n, box.Does())
}

// routeInside makes everything outside know the way to a box's network, up to
// the first box that hides it behind its own address.
func (b *builder) routeInside(s *site, family int) error {
	inside := s.lan[family].Masked()
	if !inside.IsValid() {
		return nil
	}
	const ipv4 = 0
	for at := s; family != ipv4 || !at.translates; at = at.outer {
		if at.outer == nil {
			b.lab.core.lead(at.spoke, inside)
			return nil
		}
		if err := addRoute(at.outer.ns, "lan", inside, at.wan[family].Addr()); err != nil {
			return err
		}
	}
	return nil
}

// attach links a site to the box outside of it, or to the core.
func (b *builder) attach(s *site, outer *site, link natlab.Link) error {
	s.outer = outer
	if outer == nil {
		return b.attachCore(s, link)
	}
	mac := b.mac()
	inner := fmt.Sprintf("lan%d", outer.lans)
	outer.lans++
	if link.IsWire() {
		if err := veth(s.ns, "wan", mac, outer.ns, inner, b.mac()); err != nil {
			return err
		}
	} else if err := b.wire(s, outer, mac, inner, link); err != nil {
		return err
	}
	if err := enslave(outer.ns, inner); err != nil {
		return err
	}
	var gateway [2]netip.Addr
	for i, lan := range outer.lan {
		if lan.IsValid() {
			s.wan[i] = host(lan, outer.next-1)
			gateway[i] = lan.Addr()
		}
	}
	outer.next++
	if err := up(s.ns, "wan", s.wan); err != nil {
		return err
	}
	for i, g := range gateway {
		if !g.IsValid() {
			continue
		}
		if err := addNeighbour(s.ns, "wan", g, outer.mac); err != nil {
			return err
		}
		if err := addNeighbour(outer.ns, "lan", s.wan[i].Addr(), mac); err != nil {
			return err
		}
		if err := addRoute(s.ns, "wan", netip.Prefix{}, g); err != nil {
			return err
		}
	}
	return nil
}

// attachCore links a site to the core.
func (b *builder) attachCore(s *site, link natlab.Link) error {
	i := b.spokes
	b.spokes++
	mac, coreMAC, name := b.mac(), b.mac(), fmt.Sprintf("c%d", i)
	if err := veth(s.ns, "wan", mac, b.coreNS, name, coreMAC); err != nil {
		return err
	}
	nets := [2]netip.Prefix{publicPrefix(i)}
	if b.topology.IPv6 {
		nets[1] = prefix6(i)
	}
	sp := b.spoke(s.name, link)
	for f, p := range nets {
		if p.IsValid() {
			s.wan[f] = host(p, 10)
			sp.gateway[f] = host(p, 1).Addr()
		}
	}
	if err := up(s.ns, "wan", s.wan); err != nil {
		return err
	}
	for _, g := range sp.gateway {
		if !g.IsValid() {
			continue
		}
		if err := addNeighbour(s.ns, "wan", g, coreMAC); err != nil {
			return err
		}
		if err := addRoute(s.ns, "wan", netip.Prefix{}, g); err != nil {
			return err
		}
	}
	if err := b.corePort(name, &sp.port); err != nil {
		return err
	}
	if err := plain(s.ns, "wan"); err != nil {
		return err
	}
	copy(sp.port.header[:], mac)
	copy(sp.port.header[6:], coreMAC)
	s.spoke = sp
	var valid []netip.Prefix
	for _, p := range nets {
		if p.IsValid() {
			valid = append(valid, p)
		}
	}
	b.lab.core.add(sp, valid...)
	return nil
}

// wire leads a link inside a home through the core's scheduler.
func (b *builder) wire(s, outer *site, mac net.HardwareAddr, inner string, link natlab.Link) error {
	i := b.spokes
	b.spokes++
	near, far := fmt.Sprintf("w%dn", i), fmt.Sprintf("w%df", i)
	if err := veth(s.ns, "wan", mac, b.coreNS, near, b.mac()); err != nil {
		return err
	}
	if err := veth(outer.ns, inner, b.mac(), b.coreNS, far, b.mac()); err != nil {
		return err
	}
	sp := b.spoke(s.name, link)
	if err := b.corePort(near, &sp.port); err != nil {
		return err
	}
	if err := b.corePort(far, &sp.through); err != nil {
		return err
	}
	if err := plain(s.ns, "wan"); err != nil {
		return err
	}
	// What the box sends inside passes its bridge first.
	if err := plain(outer.ns, inner); err != nil {
		return err
	}
	b.lab.core.addWire(sp)
	return nil
}

func (b *builder) spoke(name string, link natlab.Link) *spoke {
	seed := b.topology.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	n := uint64(b.spokes)
	sp := &spoke{
		name: name,
		up:   &line{link: link, rng: rand.New(rand.NewPCG(seed, 2*n))},
		down: &line{link: link, rng: rand.New(rand.NewPCG(seed, 2*n+1))},
	}
	b.lab.spokes[name] = sp
	return sp
}

// corePort brings up an end of a link in the core and opens it.
func (b *builder) corePort(name string, p **port) error {
	// The core's own kernel must not answer on its links.
	// A kernel without IPv6 has nothing to turn off.
	_ = b.coreNS.sysctl("ipv6/conf/"+name+"/disable_ipv6", "1")
	if err := up(b.coreNS, name, [2]netip.Prefix{}); err != nil {
		return err
	}
	var err error
	*p, err = openPort(b.coreNS, name)
	return err
}
