package portmap

import (
	"errors"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

func defaultRoutes() ([]hop, error) {
	first, err := adapters()
	if err != nil {
		return nil, err
	}
	var out []hop
	for a := first; a != nil; a = a.Next {
		index := a.IfIndex
		if index == 0 {
			index = a.Ipv6IfIndex
		}
		i, err := net.InterfaceByIndex(int(index))
		if err != nil {
			continue
		}
		for g := a.FirstGatewayAddress; g != nil; g = g.Next {
			ip, ok := netip.AddrFromSlice(g.Address.IP())
			if ip = ip.Unmap(); ok && !ip.IsUnspecified() {
				out = append(out, hop{i.Name, zoned(ip, i.Name)})
			}
		}
	}
	return out, nil
}

// adapters asks for all network adapters; the list's memory is the Go heap's.
func adapters() (*windows.IpAdapterAddresses, error) {
	size := uint32(16 << 10) // what the system recommends to begin with
	for range 4 {
		b := make([]byte, size)
		first := (*windows.IpAdapterAddresses)(unsafe.Pointer(&b[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, windows.GAA_FLAG_INCLUDE_GATEWAYS, 0, first, &size)
		if err == nil {
			return first, nil
		}
		if !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) {
			return nil, err
		}
	}
	return nil, windows.ERROR_BUFFER_OVERFLOW
}
