package sock

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// System is the network of the machine that we run on.
type System struct{}

// ListenPacket implements [Network].
func (System) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	var c net.ListenConfig
	return c.ListenPacket(ctx, network, local.String())
}

// Listen implements [StreamNetwork].
func (System) Listen(ctx context.Context, network string, local netip.AddrPort) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, network, local.String())
}

// ListenTCP implements [StreamNetwork].
func (System) ListenTCP(ctx context.Context, network string, local netip.AddrPort) (net.Listener, error) {
	return ListenTCP(ctx, network, local)
}

// DialTCP implements [StreamNetwork].
func (System) DialTCP(ctx context.Context, network string, local, remote netip.AddrPort, ttl uint8) (net.Conn, error) {
	return DialTCP(ctx, network, local, remote, ttl)
}

// Prefixes implements [Network].
func (System) Prefixes() ([]netip.Prefix, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var out []netip.Prefix
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away meanwhile
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				ip, _ := netip.AddrFromSlice(n.IP)
				ones, _ := n.Mask.Size()
				if ip = ip.Unmap(); !ip.IsLinkLocalUnicast() {
					out = append(out, netip.PrefixFrom(ip, ones))
				}
			}
		}
	}
	return out, nil
}

// Do implements [ICMPNetwork].
func (System) Do(f func() error) error { return f() }
