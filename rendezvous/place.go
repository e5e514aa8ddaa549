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

// family is the index of an endpoint's address family among the legs of a
// registration.
func family(a netip.AddrPort) uint8 {
	if a.Addr().Is4() {
		return 0
	}
	return 1
}
