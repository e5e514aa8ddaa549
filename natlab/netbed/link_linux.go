package netbed

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// veth makes a pair of interfaces, one in each namespace.
func veth(a *ns, nameA string, macA net.HardwareAddr, b *ns, nameB string, macB net.HardwareAddr) error {
	err := a.links.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA, HardwareAddr: macA, MTU: 1500, TxQLen: 1000},
		PeerName:  nameB, PeerHardwareAddr: macB, PeerNamespace: netlink.NsFd(int(b.handle)),
	})
	if err != nil {
		return fmt.Errorf("veth %s-%s: %w", nameA, nameB, err)
	}
	return nil
}

func enslave(n *ns, name string) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	bridge, err := n.links.LinkByName("lan")
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := n.links.LinkSetMaster(l, bridge); err != nil {
		return fmt.Errorf("link %s to bridge: %w", name, err)
	}
	return n.links.LinkSetUp(l)
}

// up gives an interface its addresses and brings it up.
func up(n *ns, name string, addrs [2]netip.Prefix) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		// No duplicate address detection: it would take a second.
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
		if err := n.links.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("address %v on %s: %w", a, name, err)
		}
	}
	if err := n.links.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addNeighbour makes ARP and neighbour discovery unnecessary.
func addNeighbour(n *ns, name string, a netip.Addr, mac net.HardwareAddr) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	err = n.links.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("neighbour %v on %s: %w", a, name, err)
	}
	return nil
}

// addRoute leads a prefix, or with none everything, by a gateway.
func addRoute(n *ns, name string, to netip.Prefix, gateway netip.Addr) error {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice()}
	if to.IsValid() {
		r.Dst = ipNet(to)
	}
	if err := n.links.RouteAdd(r); err != nil {
		return fmt.Errorf("route to %v by %v: %w", to, gateway, err)
	}
	return nil
}
