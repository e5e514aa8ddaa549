package forward

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// packetSocket is a UDP port for clients.
type packetSocket interface {
	// read takes a datagram, and says to which of our addresses it came, where there
	// is a choice.
	read(b []byte) (n int, from client, err error)
	// write answers, from the address that the client knows.
	write(b []byte, to client) error
	Close() error
}

// client is who sends to a UDP port: one that sends to two of our addresses is two.
type client struct {
	netip.AddrPort
	to netip.Addr
}

// udpPort is a socket. On one that is bound to every address of the machine, answers
// would leave from whichever the system likes best, which need not be the one that the
// client has sent to; then it would not take them.
type udpPort struct {
	*net.UDPConn
	every bool // and the system tells where datagrams came to
	oob   []byte
}

func newUDPPort(c *net.UDPConn) *udpPort {
	_ = c.SetReadBuffer(udpBuffer) // as much as the system gives
	_ = c.SetWriteBuffer(udpBuffer)
	p := &udpPort{UDPConn: c}
	at := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !at.IsUnspecified() {
		return p
	}
	var err error
	if at.Is4() {
		err = ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
	}
	p.every, p.oob = err == nil, make([]byte, 128)
	return p
}

func (p *udpPort) read(b []byte) (n int, from client, err error) {
	if !p.every {
		n, from.AddrPort, err = p.ReadFromUDPAddrPort(b)
		return n, from, err
	}
	n, k, _, at, err := p.ReadMsgUDPAddrPort(b, p.oob)
	return n, client{at, cameTo(p.oob[:k])}, err
}

// cameTo finds our address in a control message. A socket of IPv6 tells those of IPv4
// mapped.
func cameTo(oob []byte) netip.Addr {
	var v4 ipv4.ControlMessage
	if v4.Parse(oob) == nil && v4.Dst != nil {
		a, _ := netip.AddrFromSlice(v4.Dst)
		return a.Unmap()
	}
	var v6 ipv6.ControlMessage
	if v6.Parse(oob) == nil && v6.Dst != nil {
		a, _ := netip.AddrFromSlice(v6.Dst)
		return a.Unmap()
	}
	return netip.Addr{}
}

func (p *udpPort) write(b []byte, to client) error {
	var oob []byte
	switch {
	case !to.to.IsValid():
	case to.to.Is4():
		oob = (&ipv4.ControlMessage{Src: to.to.AsSlice()}).Marshal()
	default:
		oob = (&ipv6.ControlMessage{Src: to.to.AsSlice()}).Marshal()
	}
	_, _, err := p.WriteMsgUDPAddrPort(b, oob, to.AddrPort)
	return err
}
