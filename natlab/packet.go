package natlab

import (
	"encoding/binary"
	"net/netip"
)

// Packet is an IP packet with its headers read.
type Packet struct {
	From, To netip.AddrPort // the ports are 0 where the protocol has none
	Protocol uint8          // 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6
	TTL      uint8
	Data     []byte // the whole IP packet
}

// ParsePacket reads the headers of an IP packet, of which Data keeps the bytes;
// false if it is none.
func ParsePacket(b []byte) (p Packet, ok bool) {
	if len(b) < 20 {
		return p, false
	}
	var header int
	var src, dst netip.Addr
	switch b[0] >> 4 {
	case 4:
		header = int(b[0]&15) * 4
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		p.Protocol, p.TTL = b[9], b[8]
		if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			header = len(b) // a later fragment has no ports
		}
	case 6:
		if len(b) < 40 {
			return p, false
		}
		header = 40
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		p.Protocol, p.TTL = b[6], b[7]
	default:
		return p, false
	}
	var from, to uint16
	if (p.Protocol == ProtocolTCP || p.Protocol == ProtocolUDP) && header >= 20 && len(b) >= header+4 {
		from, to = binary.BigEndian.Uint16(b[header:]), binary.BigEndian.Uint16(b[header+2:])
	}
	p.From, p.To, p.Data = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to), b
	return p, true
}

// Age does what a router does to an IP packet: it takes one off the TTL and mends
// the checksum (RFC 1624). False means that the TTL is used up.
func Age(b []byte) bool {
	if b[0]>>4 == 6 {
		if b[7] <= 1 {
			return false
		}
		b[7]--
		return true
	}
	if b[8] <= 1 {
		return false
	}
	b[8]--
	sum := uint32(binary.BigEndian.Uint16(b[10:])) + 0x0100
	binary.BigEndian.PutUint16(b[10:], uint16(sum+sum>>16))
	return true
}
