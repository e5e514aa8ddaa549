package rendezvous

import (
	"encoding/binary"
	"net/netip"
)

// place is an endpoint in 18 bytes, IPv4 as mapped into IPv6: a netip.AddrPort
// takes 32, and a server keeps several for each node. The zero place is none.
type place [18]byte

func placeOf(e netip.AddrPort) (p place) {
	a := e.Addr().As16()
	copy(p[:], a[:])
	binary.BigEndian.PutUint16(p[16:], e.Port())
	return p
}

func (p place) valid() bool { return p != place{} }

// endpoint is the place as others write it.
func (p place) endpoint() netip.AddrPort {
	a := netip.AddrFrom16([16]byte(p[:16])).Unmap()
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p[16:]))
}

// firstStream is the number of the first connection, firstICMP that of the first socket
// for ICMP: those for UDP have lower ones. A leg keeps it in 16 bits.
const (
	firstICMP   = 1<<10 - 2
	firstStream = 1 << 10
	maxStreams  = 1<<16 - firstStream
)

// isStream reports whether a local is a connection.
func isStream(local int) bool { return local >= firstStream }

// isICMP reports whether a local is a socket for ICMP.
func isICMP(local int) bool { return local >= firstICMP && local < firstStream }

// way is the index of a leg: UDP over IPv4, over IPv6, connections, TCP or TLS, over
// IPv4 and over IPv6, and ICMP echo.
func way(local int, from netip.AddrPort) (w uint8) {
	if !from.Addr().Is4() {
		w++
	}
	switch {
	case isStream(local):
		w += udpWays
	case isICMP(local):
		w += icmpWays
	}
	return w
}

// udpWays of all ways are UDP's, the first ones, and from icmpWays on they are ICMP's.
const (
	udpWays  = 2
	icmpWays = 4
	ways     = 6
)
