package natlab

import (
	"encoding/binary"
	"net/netip"
)

// defaultTTL is what most systems begin with.
const defaultTTL = 64

// AppendUDP appends a UDP packet to b.
func AppendUDP(b []byte, from, to netip.AddrPort, ttl uint8, data []byte) []byte {
	b, body := appendIP(b, from.Addr(), to.Addr(), ttl, ProtocolUDP, 8+len(data))
	binary.BigEndian.PutUint16(body[0:], from.Port())
	binary.BigEndian.PutUint16(body[2:], to.Port())
	binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
	copy(body[8:], data)
	sum := checksum(body, pseudoSum(from.Addr(), to.Addr(), ProtocolUDP, len(body)))
	if sum == 0 {
		sum = 0xffff // 0 says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(body[6:], sum)
	return b
}

// AppendICMP appends an ICMP or ICMPv6 packet to b: message is its type, code,
// two bytes for the checksum, which need not be right, and the rest.
func AppendICMP(b []byte, from, to netip.Addr, ttl uint8, message []byte) []byte {
	protocol, sum := byte(ProtocolICMP), uint32(0)
	if from.Is6() {
		protocol, sum = ProtocolICMPv6, pseudoSum(from, to, ProtocolICMPv6, len(message))
	}
	b, body := appendIP(b, from, to, ttl, protocol, len(message))
	copy(body, message)
	body[2], body[3] = 0, 0
	binary.BigEndian.PutUint16(body[2:], checksum(body, sum))
	return b
}

// TCPFlags are the control bits of a TCP segment (RFC 9293 §3.1).
type TCPFlags uint8

// The control bits.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Segment is a TCP segment without options.
type Segment struct {
	Seq, Ack uint32
	Flags    TCPFlags
	Data     []byte
}

// AppendTCP appends a TCP packet to b.
func AppendTCP(b []byte, from, to netip.AddrPort, ttl uint8, s Segment) []byte {
	b, body := appendIP(b, from.Addr(), to.Addr(), ttl, ProtocolTCP, 20+len(s.Data))
	binary.BigEndian.PutUint16(body[0:], from.Port())
	binary.BigEndian.PutUint16(body[2:], to.Port())
	binary.BigEndian.PutUint32(body[4:], s.Seq)
	binary.BigEndian.PutUint32(body[8:], s.Ack)
	body[12], body[13] = 5<<4, byte(s.Flags)
	if s.Flags&RST == 0 {
		binary.BigEndian.PutUint16(body[14:], 0xffff) // the window
	}
	copy(body[20:], s.Data)
	binary.BigEndian.PutUint16(body[16:], checksum(body, pseudoSum(from.Addr(), to.Addr(), ProtocolTCP, len(body))))
	return b
}

// Segment reads the TCP segment in a packet; false if there is none.
func (p Packet) Segment() (s Segment, ok bool) {
	protocol, body, ok := p.transport()
	if !ok || protocol != ProtocolTCP || len(body) < 20 || len(body) < int(body[12]>>4)*4 {
		return s, false
	}
	return Segment{
		Seq: binary.BigEndian.Uint32(body[4:]), Ack: binary.BigEndian.Uint32(body[8:]),
		Flags: TCPFlags(body[13] & 0x1f), Data: body[max(20, int(body[12]>>4)*4):],
	}, true
}

// Datagram is the content of a UDP packet; false if it is none.
func (p Packet) Datagram() ([]byte, bool) {
	protocol, body, ok := p.transport()
	if !ok || protocol != ProtocolUDP || len(body) < 8 {
		return nil, false
	}
	if n := int(binary.BigEndian.Uint16(body[4:])); n >= 8 && n <= len(body) {
		return body[8:n], true
	}
	return nil, false
}

// transport is what a packet carries: one that is whole, and of a known family.
func (p Packet) transport() (protocol uint8, body []byte, ok bool) {
	b := p.Data
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < 20 || total < header || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return 0, nil, false
		}
		return b[9], b[header:total], true
	case len(b) >= 40 && b[0]>>4 == 6:
		total := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return 0, nil, false
		}
		return b[6], b[40:total], true
	}
	return 0, nil, false
}

// intact reports whether the checksums of a packet are right; of a fragment only
// that of its header can be told.
func (p Packet) intact() bool {
	if p.isFragment() {
		return checksum(p.Data[:min(len(p.Data), int(p.Data[0]&15)*4)], 0) == 0
	}
	protocol, body, ok := p.transport()
	if !ok || p.Data[0]>>4 == 4 && checksum(p.Data[:int(p.Data[0]&15)*4], 0) != 0 {
		return false
	}
	sum := pseudoSum(p.From.Addr(), p.To.Addr(), protocol, len(body))
	switch {
	case protocol == ProtocolICMP:
		sum = 0
	case protocol == ProtocolUDP && len(body) >= 8 && body[6] == 0 && body[7] == 0:
		return p.From.Addr().Is4()
	case protocol != ProtocolUDP && protocol != ProtocolTCP && protocol != ProtocolICMPv6:
		return true
	}
	return checksum(body, sum) == 0
}

// isFragment reports whether it is a part of an IPv4 packet.
func (p Packet) isFragment() bool {
	return p.Data[0]>>4 == 4 && binary.BigEndian.Uint16(p.Data[6:])&0x3fff != 0
}

// appendIP appends an IP header and room for n bytes behind it.
func appendIP(b []byte, from, to netip.Addr, ttl, protocol uint8, n int) (all, body []byte) {
	at := len(b)
	if from.Is4() {
		b = append(b, make([]byte, 20+n)...)
		ip := b[at:]
		ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, ttl, protocol // not to be fragmented
		binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
		src, dst := from.As4(), to.As4()
		copy(ip[12:], src[:])
		copy(ip[16:], dst[:])
		binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20], 0))
		return b, ip[20:]
	}
	b = append(b, make([]byte, 40+n)...)
	ip := b[at:]
	ip[0], ip[6], ip[7] = 0x60, protocol, ttl
	binary.BigEndian.PutUint16(ip[4:], uint16(n))
	src, dst := from.As16(), to.As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
	return b, ip[40:]
}

// pseudoSum is the sum that a transport checksum begins with: addresses, length
// and protocol (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1).
func pseudoSum(from, to netip.Addr, protocol uint8, n int) uint32 {
	sum := uint32(n) + uint32(protocol)
	for _, a := range [2]netip.Addr{from, to} {
		if a.Is4() {
			b := a.As4()
			sum += uint32(binary.BigEndian.Uint16(b[0:])) + uint32(binary.BigEndian.Uint16(b[2:]))
			continue
		}
		b := a.As16()
		for i := 0; i < 16; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
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
