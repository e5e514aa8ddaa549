package portmap

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Gateways are the default gateways of this machine, those of each interface and
// address family, with our addresses there that a router could be asked about. A
// route that leads to no router, as a VPN's, has none.
func Gateways() ([]Gateway, error) {
	hops, err := defaultRoutes()
	if err != nil {
		return nil, fmt.Errorf("default gateways: %w", err)
	}
	var out []Gateway
	for _, h := range hops {
		i, err := net.InterfaceByName(h.device)
		if err != nil || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue // it went away meanwhile
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, p := range ours(h.router, prefixes(addrs)) {
			g := Gateway{Interface: h.device, Addr: h.router, Local: p}
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out, nil
}

// hop is a default route: by which router on which interface.
type hop struct {
	device string
	router netip.Addr
}

// maxLocal6 bounds the IPv6 addresses of an interface that are asked about: with
// temporary ones (RFC 8981) there may be a dozen.
const maxLocal6 = 4

// ours are the addresses of an interface for which its router can be asked: the
// IPv4 one on the router's link, or the IPv6 ones that the world could reach.
func ours(router netip.Addr, addrs []netip.Prefix) (out []netip.Prefix) {
	for _, p := range addrs {
		a := p.Addr()
		switch {
		case a.Is4() != router.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast():
		case a.Is4():
			// One of them: the router maps for all the same.
			if len(out) == 0 || p.Contains(router) && !out[0].Contains(router) {
				out = []netip.Prefix{p}
			}
		case !private(a) && len(out) < maxLocal6:
			out = append(out, p)
		}
	}
	return out
}

func prefixes(addrs []net.Addr) (out []netip.Prefix) {
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		ones, _ := n.Mask.Size()
		out = append(out, netip.PrefixFrom(ip.Unmap(), ones))
	}
	return out
}

// zoned is an IPv6 address as one can send to it: link-local ones with the name
// of their interface.
func zoned(a netip.Addr, device string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(device)
	}
	return a
}
