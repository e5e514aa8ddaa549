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
	if (p.Protocol == protocolTCP || p.Protocol == protocolUDP) && header >= 20 && len(b) >= header+4 {
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

// Tap sees packets: when, on the link of which box or host, whether towards the
// core, and the packet, whose data is the tap's only until it returns. Packets
// towards the core are seen before it drops any, those from the core before their
// link does. It is called from several goroutines at once, and must be quick.
type Tap func(when time.Time, link string, toCore bool, p Packet)
