package end

import (
	"net"
	"net/netip"
)

// OpenUDP opens this end's NAT for the peer's packets to the port, before somebody
// else binds it: the packet dies at the peer's NAT, and the mapping stays.
func OpenUDP(self, peer netip.AddrPort) error {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(self))
	if err != nil {
		return err
	}
	_, err = c.WriteToUDPAddrPort([]byte("opener"), peer)
	_ = c.Close()
	return err
}
