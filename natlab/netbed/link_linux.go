package netbed

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// indexes numbers one end of each pair. Left alone the kernel numbers both ends
// from 2, each in its namespace; where the two are equal it takes a pair for a
// device without a peer and lets its news wait for up to a second
// (linkwatch_urgent_event).
var indexes atomic.Int32

const firstIndex = 1 << 16

// veth makes a pair of interfaces, one in each namespace.
func veth(a *ns, nameA string, macA net.HardwareAddr, b *ns, nameB string, macB net.HardwareAddr) error {
	err := a.links.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA, Index: firstIndex + int(indexes.Add(1)), HardwareAddr: macA, MTU: 1500, TxQLen: 1000},
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

const (
	carrierPoll = 200 * time.Microsecond
	carrierTime = 10 * time.Second
)

// awaitCarrier returns when the kernel has noticed that the interfaces are up,
// which it does in the background: until then they lose packets, a bridge does not
// forward, and nothing comes from or to an IPv6 address.
func awaitCarrier(n *ns) error {
	deadline := time.Now().Add(carrierTime)
	for {
		waiting, err := withoutCarrier(n)
		if err == nil && waiting == "" {
			waiting, err = withoutRoute(n)
		}
		switch {
		case err != nil || waiting == "":
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("link %s did not come up in %v", waiting, carrierTime)
		}
		time.Sleep(carrierPoll)
	}
}

// withoutCarrier is a link that is not up yet. To be asked for one link by its
// number makes newer kernels look at once; bridges would wait for up to a second.
func withoutCarrier(n *ns) (string, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return "", fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		if l, err = n.links.LinkByIndex(l.Attrs().Index); err != nil {
			return "", fmt.Errorf("list links: %w", err)
		}
		a := l.Attrs()
		inIt := func(x netlink.Link) bool { return x.Attrs().MasterIndex == a.Index }
		// A bridge with nothing in it never comes up.
		if a.OperState != netlink.OperUp && (l.Type() != "bridge" || slices.ContainsFunc(links, inIt)) {
			return a.Name, nil
		}
	}
	return "", nil
}

// withoutRoute is an IPv6 address that the kernel does not take for its own yet.
func withoutRoute(n *ns) (string, error) {
	addrs, err := n.links.AddrList(nil, unix.AF_INET6)
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	ours := func(a netlink.Addr) bool { return a.Scope == unix.RT_SCOPE_UNIVERSE }
	if !slices.ContainsFunc(addrs, ours) {
		return "", nil
	}
	routes, err := n.links.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, a := range addrs {
		here := func(r netlink.Route) bool { return r.Type == unix.RTN_LOCAL && r.Dst != nil && r.Dst.IP.Equal(a.IP) }
		if ours(a) && !slices.ContainsFunc(routes, here) {
			return a.IP.String(), nil
		}
	}
	return "", nil
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
