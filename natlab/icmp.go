package natlab

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers of IP (RFC 790, RFC 8200).
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
)

// The ICMP types that matter here (RFC 792, RFC 4443).
const (
	icmpTimeExceeded   = 11
	icmpv6TimeExceeded = 3
)

// Answerable reports whether a router may answer the packet with an ICMP error:
// not one about an error, nor about a later fragment (RFC 1122 §3.2.2, RFC 4443
// §2.4).
func (p Packet) Answerable() bool {
	if p.From.Addr().Is4() {
		header := int(p.Data[0]&15) * 4
		if binary.BigEndian.Uint16(p.Data[6:])&0x1fff != 0 {
			return false
		}
		if p.Protocol != ProtocolICMP {
			return true
		}
		if len(p.Data) <= header {
			return false
		}
		switch p.Data[header] {
		case 3, 4, 5, icmpTimeExceeded, 12:
			return false
		}
		return true
	}
	// ICMPv6 errors are the types below 128 (RFC 4443 §2.1).
	return p.Protocol != ProtocolICMPv6 || len(p.Data) > 40 && p.Data[40] >= 128
}

// AppendTimeExceeded appends to b the ICMP message that says that the packet's TTL was
// used up (RFC 792, RFC 4443 §3.3), from the router's address. It quotes as much
// as routers do: up to 576 bytes in all for IPv4 (RFC 1812 §4.3.2.3), 1280 for
// IPv6.
func AppendTimeExceeded(b []byte, router netip.Addr, p Packet) []byte {
	at := len(b)
	if router.Is4() {
		quoted := p.Data[:min(len(p.Data), 576-28)]
		b = append(append(b, make([]byte, 28)...), quoted...)
		ip, icmp := b[at:at+20], b[at+20:]
		ip[0], ip[8], ip[9] = 0x45, 64, ProtocolICMP
		binary.BigEndian.PutUint16(ip[2:], uint16(28+len(quoted)))
		copy(ip[12:], router.AsSlice())
		copy(ip[16:], p.From.Addr().AsSlice())
		binary.BigEndian.PutUint16(ip[10:], checksum(ip, 0))
		icmp[0] = icmpTimeExceeded
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, 0))
		return b
	}
	quoted := p.Data[:min(len(p.Data), 1280-48)]
	b = append(append(b, make([]byte, 48)...), quoted...)
	ip, icmp := b[at:at+40], b[at+40:]
	ip[0], ip[6], ip[7] = 0x60, ProtocolICMPv6, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(icmp)))
	copy(ip[8:], router.AsSlice())
	copy(ip[24:], p.From.Addr().AsSlice())
	icmp[0] = icmpv6TimeExceeded
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, pseudoHeader(ip, len(icmp))))
	return b
}

// pseudoHeader is the sum that an IPv6 upper-layer checksum begins with: the
// addresses, the length and ICMPv6 as the next header (RFC 8200 §8.1).
func pseudoHeader(ip []byte, length int) uint32 {
	sum := uint32(length) + ProtocolICMPv6
	for i := 8; i < 40; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	return sum
}

// checksum is the Internet checksum (RFC 1071) of b, with sum to begin with.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
