//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package portmap

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/route"
)

func defaultRoutes() ([]hop, error) {
	rib, err := route.FetchRIB(syscall.AF_UNSPEC, route.RIBTypeRoute, 0)
	if err != nil {
		return nil, err
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, rib)
	if err != nil {
		return nil, err
	}
	var out []hop
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		if !ok || r.Flags&(syscall.RTF_UP|syscall.RTF_GATEWAY) != syscall.RTF_UP|syscall.RTF_GATEWAY || !everywhere(r.Addrs) {
			continue
		}
		i, err := net.InterfaceByIndex(r.Index)
		if err != nil {
			continue
		}
		if a := address(r.Addrs[syscall.RTAX_GATEWAY]); a.IsValid() && !a.IsUnspecified() {
			out = append(out, hop{i.Name, zoned(a, i.Name)})
		}
	}
	return out, nil
}

// everywhere reports whether a route's destination is everything.
func everywhere(a []route.Addr) bool {
	if len(a) <= syscall.RTAX_NETMASK || !address(a[syscall.RTAX_DST]).IsUnspecified() {
		return false
	}
	mask := a[syscall.RTAX_NETMASK]
	return mask == nil || address(mask).IsUnspecified()
}

func address(a route.Addr) netip.Addr {
	switch a := a.(type) {
	case *route.Inet4Addr:
		return netip.AddrFrom4(a.IP)
	case *route.Inet6Addr:
		return netip.AddrFrom16(a.IP)
	}
	return netip.Addr{}
}
