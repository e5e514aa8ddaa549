package netbed

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"bodkin/natlab"

	"github.com/vishvananda/netlink"
)

// builder turns a topology into namespaces, links and addresses.
type builder struct {
	lab      *Lab
	topology natlab.Topology
	bed      Bed
	places   []natlab.Place
	coreNS   *ns
	macs     uint32
	ends     int // of links in the core
	sites    map[string]*site
}

// site is a box or a host in a namespace of its own.
type site struct {
	place natlab.Place
	ns    *ns
	mac   net.HardwareAddr // a box's, inside
	lans  int              // links inside
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
	b.sites, b.places = make(map[string]*site), b.topology.Places()
	for i, box := range b.topology.Boxes {
		x := &Box{lab: b.lab, name: box.Name}
		if b.bed == Kernel {
			if x.site, err = b.box(box, b.places[i]); err != nil {
				return fmt.Errorf("lab: box %s: %w", box.Name, err)
			}
		}
		b.lab.boxes[box.Name] = x
	}
	for i, h := range b.topology.Hosts {
		s, err := b.site(b.places[len(b.topology.Boxes)+i], h.Link)
		if err != nil {
			return fmt.Errorf("lab: host %s: %w", h.Name, err)
		}
		b.lab.hosts[h.Name] = &Host{site: s}
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

// site makes a namespace with a link outward.
func (b *builder) site(place natlab.Place, link natlab.Link) (*site, error) {
	n, err := b.namespace()
	if err != nil {
		return nil, err
	}
	s := &site{place: place, ns: n, mac: b.mac()}
	if outer := b.sites[place.Behind]; outer != nil {
		err = b.attachBox(s, outer, link)
	} else {
		err = b.attachCore(s)
	}
	return s, err
}

// box builds a router: its link outward, a bridge inside, and its rules.
func (b *builder) box(box natlab.Box, place natlab.Place) (*site, error) {
	s, err := b.site(place, box.Link)
	if err != nil {
		return nil, err
	}
	b.sites[box.Name] = s
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan", HardwareAddr: s.mac}}
	if err := s.ns.links.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if err := up(s.ns, "lan", place.LAN); err != nil {
		return nil, err
	}
	if err := s.ns.sysctl("ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	if b.topology.IPv6 {
		if err := s.ns.sysctl("ipv6/conf/all/forwarding", "1"); err != nil {
			return nil, err
		}
	}
	if outer := b.sites[place.Behind]; outer != nil {
		for _, to := range place.Routed {
			if err := addRoute(outer.ns, "lan", to, place.Addr[family(to.Addr())].Addr()); err != nil {
				return nil, err
			}
		}
	}
	return s, rules(s.ns, box.Does())
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// attachBox links a site to the bridge of the box outside of it: by the kernel
// alone, or through a pipe of the fabric.
func (b *builder) attachBox(s, outer *site, link natlab.Link) error {
	mac, inner := b.mac(), fmt.Sprintf("lan%d", outer.lans)
	outer.lans++
	if link.IsWire() {
		b.lab.wires[s.place.Name] = true
		if err := veth(s.ns, "wan", mac, outer.ns, inner, b.mac()); err != nil {
			return err
		}
	} else if err := b.pipe(s, outer, mac, inner); err != nil {
		return err
	}
	if err := enslave(outer.ns, inner); err != nil {
		return err
	}
	if err := b.address(s, outer.mac); err != nil {
		return err
	}
	for _, a := range s.place.Addr {
		if a.IsValid() {
			if err := addNeighbour(outer.ns, "lan", a.Addr(), mac); err != nil {
				return err
			}
		}
	}
	return nil
}

// attachCore leads a site's link into the fabric.
func (b *builder) attachCore(s *site) error {
	mac, coreMAC, name := b.mac(), b.mac(), b.end()
	if err := veth(s.ns, "wan", mac, b.coreNS, name, coreMAC); err != nil {
		return err
	}
	if err := b.address(s, coreMAC); err != nil {
		return err
	}
	// On the model bed the fabric is the switch of a home, too.
	for _, mate := range b.places {
		if mate.Behind != "" && mate.Behind == s.place.Behind && mate.Name != s.place.Name {
			if err := b.neighbours(s, mate, coreMAC); err != nil {
				return err
			}
		}
	}
	if err := plain(s.ns, "wan"); err != nil {
		return err
	}
	header := new([frameHeader]byte)
	copy(header[:], mac)
	copy(header[6:], coreMAC)
	return b.open(b.lab.core.fabric.Port(s.place.Name), name, header)
}

// neighbours makes the addresses of another site known on the link of s.
func (b *builder) neighbours(s *site, mate natlab.Place, mac net.HardwareAddr) error {
	all := append([]netip.Addr{mate.Addr[0].Addr(), mate.Addr[1].Addr()}, mate.More...)
	for _, a := range all {
		if a.IsValid() {
			if err := addNeighbour(s.ns, "wan", a, mac); err != nil {
				return err
			}
		}
	}
	return nil
}

// address gives a site its addresses on the link outward, and the way out.
func (b *builder) address(s *site, gateway net.HardwareAddr) error {
	if err := up(s.ns, "wan", s.place.Addr); err != nil {
		return err
	}
	for _, g := range s.place.Gateway {
		if !g.IsValid() {
			continue
		}
		if err := addNeighbour(s.ns, "wan", g, gateway); err != nil {
			return err
		}
		if err := addRoute(s.ns, "wan", netip.Prefix{}, g); err != nil {
			return err
		}
	}
	return nil
}

// pipe leads a link inside a home through the fabric.
func (b *builder) pipe(s, outer *site, mac net.HardwareAddr, inner string) error {
	near, far := b.end(), b.end()
	if err := veth(s.ns, "wan", mac, b.coreNS, near, b.mac()); err != nil {
		return err
	}
	if err := veth(outer.ns, inner, b.mac(), b.coreNS, far, b.mac()); err != nil {
		return err
	}
	f := b.lab.core.fabric
	if err := b.open(f.Port(s.place.Name), near, nil); err != nil {
		return err
	}
	if err := b.open(f.FarPort(s.place.Name), far, nil); err != nil {
		return err
	}
	if err := plain(s.ns, "wan"); err != nil {
		return err
	}
	// What the box sends inside passes its bridge first.
	return plain(outer.ns, inner)
}

// end names the next end of a link in the core.
func (b *builder) end() string {
	b.ends++
	return fmt.Sprintf("c%d", b.ends)
}

// open brings up an end of a link in the core and attaches it.
func (b *builder) open(at natlab.Port, name string, header *[frameHeader]byte) error {
	// The core's own kernel must not answer on its links.
	// A kernel without IPv6 has nothing to turn off.
	_ = b.coreNS.sysctl("ipv6/conf/"+name+"/disable_ipv6", "1")
	if err := up(b.coreNS, name, [2]netip.Prefix{}); err != nil {
		return err
	}
	p, err := openPort(b.coreNS, name)
	if err != nil {
		return err
	}
	p.header = header
	b.lab.core.attach(at, p)
	return nil
}
