package netbed

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Packet is what a filter or a tap sees of an IP packet in the core.
type Packet struct {
	From, To netip.AddrPort // the ports are 0 where the protocol has none
	Protocol uint8          // 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6
	TTL      uint8
	Data     []byte // the whole IP packet
}

// parse reads the headers; false if it is no IP packet.
func parse(b []byte) (p Packet, ok bool) {
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
	if (p.Protocol == 6 || p.Protocol == 17) && header >= 20 && len(b) >= header+4 {
		from, to = binary.BigEndian.Uint16(b[header:]), binary.BigEndian.Uint16(b[header+2:])
	}
	p.From, p.To, p.Data = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to), b
	return p, true
}

// age takes one off the TTL and mends the checksum (RFC 1624); false if it is
// used up.
func age(b []byte) bool {
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

// timeExceeded is the ICMP message that says so (RFC 792, RFC 4443 §3.3), from
// the router's address.
func timeExceeded(router netip.Addr, p Packet) []byte {
	quoted := p.Data
	if router.Is4() {
		quoted = quoted[:min(len(quoted), 28)]
		b := make([]byte, 20+8, 20+8+len(quoted))
		b[0], b[8], b[9] = 0x45, 64, 1
		binary.BigEndian.PutUint16(b[2:], uint16(28+len(quoted)))
		copy(b[12:], router.AsSlice())
		copy(b[16:], p.From.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
		b[20] = 11
		b = append(b, quoted...)
		binary.BigEndian.PutUint16(b[22:], checksum(b[20:], 0))
		return b
	}
	quoted = quoted[:min(len(quoted), 1232)]
	b := make([]byte, 40+8, 40+8+len(quoted))
	b[0], b[6], b[7] = 0x60, 58, 64
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(quoted)))
	copy(b[8:], router.AsSlice())
	copy(b[24:], p.From.Addr().AsSlice())
	b[40] = 3
	b = append(b, quoted...)
	// The pseudo-header (RFC 8200 §8.1): addresses, length, next header.
	pseudo := uint32(8+len(quoted)) + 58
	for i := 8; i < 40; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[42:], checksum(b[40:], pseudo))
	return b
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

// Tap sees packets: when, on the link of which box or host, whether towards the
// core, and the packet.
type Tap func(when time.Time, link string, toCore bool, p Packet)
