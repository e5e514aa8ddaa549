//go:build !windows && !js && !wasip1 && !plan9

package sock

import (
	"context"
	"net"

	"golang.org/x/net/bpf"
	xicmp "golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// listenRaw opens a socket for what a filter lets in of ICMP. Where the system cannot
// filter, we do.
func listenRaw(ctx context.Context, v4 bool, filter []bpf.Instruction) (net.PacketConn, error) {
	network, all := "ip4:icmp", "0.0.0.0"
	if !v4 {
		network, all = "ip6:ipv6-icmp", "::"
	}
	var config net.ListenConfig
	c, err := config.ListenPacket(ctx, network, all)
	if err != nil {
		return nil, err
	}
	program, err := bpf.Assemble(filter)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	if v4 {
		_ = ipv4.NewPacketConn(c).SetBPF(program)
	} else {
		_ = ipv6.NewPacketConn(c).SetBPF(program)
	}
	return c, nil
}

// listenPing opens a socket for our own echo requests and their replies, which takes no
// privilege: on Linux if our group is in net.ipv4.ping_group_range.
func listenPing(v4 bool) (net.PacketConn, error) {
	if v4 {
		return xicmp.ListenPacket("udp4", "0.0.0.0")
	}
	return xicmp.ListenPacket("udp6", "::")
}
