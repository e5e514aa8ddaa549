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
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpEcho         = 8
	icmpTimeExceeded = 11

	icmpv6Unreachable  = 1
	icmpv6TimeExceeded = 3
	icmpv6Echo         = 128
	icmpv6EchoReply    = 129
)

// Unreachable is why a packet does not arrive (RFC 792; RFC 1812 §5.2.7.1).
type Unreachable uint8

// The reasons, and the ICMPv6 codes that stand for the same (RFC 4443 §3.1).
const (
	NetUnreachable  Unreachable = 0  // no route to destination
	HostUnreachable Unreachable = 1  // address unreachable
	PortUnreachable Unreachable = 3  // port unreachable
	Prohibited      Unreachable = 13 // administratively prohibited
)

func (u Unreachable) codeV6() byte {
	switch u {
	case HostUnreachable:
		return 3
	case PortUnreachable:
		return 4
	case Prohibited:
		return 1
	case NetUnreachable:
	}
	return 0
}

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
		case icmpUnreachable, 4, 5, icmpTimeExceeded, 12:
			return false
		}
		return true
	}
	// ICMPv6 errors are the types below 128 (RFC 4443 §2.1).
	return p.Protocol != ProtocolICMPv6 || len(p.Data) > 40 && p.Data[40] >= 128
}

// AppendTimeExceeded appends to b the ICMP message that says that the packet's TTL was
// used up (RFC 792, RFC 4443 §3.3), from the router's address. To a packet that is
// not Answerable there is none: b is returned as it is.
func AppendTimeExceeded(b []byte, router netip.Addr, p Packet) []byte {
	if router.Is4() {
		return appendError(b, router, p, icmpTimeExceeded, 0)
	}
	return appendError(b, router, p, icmpv6TimeExceeded, 0)
}

// AppendUnreachable appends to b the ICMP message that says that the packet did
// not arrive, from the address of who refuses it. To a packet that is not
// Answerable there is none: b is returned as it is.
func AppendUnreachable(b []byte, why Unreachable, from netip.Addr, p Packet) []byte {
	if from.Is4() {
		return appendError(b, from, p, icmpUnreachable, byte(why))
	}
	return appendError(b, from, p, icmpv6Unreachable, why.codeV6())
}

// appendError appends an ICMP error about a packet. It quotes as much as routers
// do: up to 576 bytes in all for IPv4 (RFC 1812 §4.3.2.3), 1280 for IPv6.
func appendError(b []byte, from netip.Addr, p Packet, kind, code byte) []byte {
	if !p.Answerable() {
		return b
	}
	most := 576 - 28
	if from.Is6() {
		most = 1280 - 48
	}
	message := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, p.Data[:min(len(p.Data), most)]...)
	return AppendICMP(b, from, p.From.Addr(), defaultTTL, message)
}

// echoReply turns an echo request into its reply (RFC 792, RFC 4443 §4.2); false
// if it is none.
func echoReply(p Packet) ([]byte, bool) {
	_, body, ok := p.transport()
	request, reply := byte(icmpEcho), byte(icmpEchoReply)
	if p.Protocol == ProtocolICMPv6 {
		request, reply = icmpv6Echo, icmpv6EchoReply
	}
	if !ok || p.Protocol != ProtocolICMP && p.Protocol != ProtocolICMPv6 || len(body) < 8 || body[0] != request {
		return nil, false
	}
	message := append([]byte(nil), body...)
	message[0] = reply
	return AppendICMP(nil, p.To.Addr(), p.From.Addr(), defaultTTL, message), true
}
