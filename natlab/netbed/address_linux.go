package netbed

import (
	"encoding/binary"
	"net/netip"
)

// publicPrefix is the network of the i-th link on the core: the documentation
// ranges (RFC 5737) first, then the benchmark range (RFC 2544).
func publicPrefix(i int) netip.Prefix {
	doc := [][4]byte{{203, 0, 113, 0}, {198, 51, 100, 0}, {192, 0, 2, 0}}
	if i < len(doc) {
		return netip.PrefixFrom(netip.AddrFrom4(doc[i]), 24)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24)
}

// prefix6 is a /64 of the documentation range (RFC 3849).
func prefix6(n int) netip.Prefix {
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint16(a[4:], uint16(n))
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// host is the n-th address of a prefix, with its length.
func host(p netip.Prefix, n uint64) netip.Prefix {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n))
		return netip.PrefixFrom(netip.AddrFrom4(a), p.Bits())
	}
	a := p.Addr().As16()
	binary.BigEndian.PutUint64(a[8:], binary.BigEndian.Uint64(a[8:])+n)
	return netip.PrefixFrom(netip.AddrFrom16(a), p.Bits())
}

// routedPrefix is the network inside the i-th box, if that does not translate:
// the other half of the benchmark range.
func routedPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(i), 0}), 24)
}

// privatePrefix is the network inside the i-th box, if that translates.
func privatePrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i + 1), 0}), 24)
}

// homePrefix6 is the IPv6 network inside the i-th box.
func homePrefix6(i int) netip.Prefix { return prefix6(0xf000 + i) }
