// Libp2p is go-libp2p's QUIC as an end of bench/throughput. It is a module of its own,
// so that those who use Bodkin as a library do not get its dependencies.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"bodkin/bench/throughput/end"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/multiformats/go-multiaddr"
)

func main() {
	if err := end.Run(open); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "libp2p:", err)
		os.Exit(2)
	}
}

// open makes a host that has QUIC only, on the port that its NAT is open for. It dials
// from where it listens, too. Resource limits are off: they are none of the matter.
func open(ctx context.Context, cfg end.Config, hello func(string)) (l end.Link, err error) {
	if err := openNAT(cfg.Self, cfg.Peer); err != nil {
		return l, err
	}
	h, err := libp2p.New(
		libp2p.Transport(quic.NewTransport), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ListenAddrStrings(address(cfg.Self)), libp2p.DisableRelay(), libp2p.DisableMetrics(),
	)
	if err != nil {
		return l, err
	}
	if cfg.Dial {
		return dial(ctx, h, cfg)
	}
	streams := map[protocol.ID]chan network.Stream{}
	for _, id := range []protocol.ID{"/bulk", "/echo"} {
		ch := make(chan network.Stream, 1)
		streams[id] = ch
		h.SetStreamHandler(id, func(s network.Stream) { ch <- s })
	}
	hello(h.ID().String())
	return end.Link{Bulk: conn{<-streams["/bulk"]}, Echo: conn{<-streams["/echo"]}}, nil
}

func dial(ctx context.Context, h host.Host, cfg end.Config) (l end.Link, err error) {
	id, err := peer.Decode(cfg.Hello)
	if err != nil {
		return l, err
	}
	to, err := multiaddr.NewMultiaddr(address(cfg.Peer))
	if err != nil {
		return l, err
	}
	if err := h.Connect(ctx, peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{to}}); err != nil {
		return l, err
	}
	bulk, err := h.NewStream(ctx, id, "/bulk")
	if err != nil {
		return l, err
	}
	echo, err := h.NewStream(ctx, id, "/echo")
	return end.Link{Bulk: conn{bulk}, Echo: conn{echo}}, err
}

func address(a netip.AddrPort) string {
	return fmt.Sprintf("/ip4/%v/udp/%d/quic-v1", a.Addr(), a.Port())
}

// conn makes a net.Conn of a stream; nobody asks for the addresses.
type conn struct{ network.Stream }

func (conn) LocalAddr() net.Addr  { return nil }
func (conn) RemoteAddr() net.Addr { return nil }

// openNAT opens this end's NAT for the peer's packets to the port, before somebody
// else binds it: the packet dies at the peer's NAT, and the mapping stays.
func openNAT(self, peer netip.AddrPort) error {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(self))
	if err != nil {
		return err
	}
	_, err = c.WriteToUDPAddrPort([]byte("opener"), peer)
	_ = c.Close()
	return err
}
