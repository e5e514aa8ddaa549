package natlab

import (
	"encoding/binary"
	"net/netip"
)

// endpoint is an address and port as a map key: without pointers, and IPv4 mapped
// into IPv6. The port of an ICMP query is its identifier.
type endpoint struct {
	addr [16]byte
	port uint16
}

func key(a netip.Addr) [16]byte { return a.As16() }

func (e endpoint) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(e.addr).Unmap(), e.port)
}

// any is the endpoint's address, with any port.
func (e endpoint) any() endpoint { return endpoint{addr: e.addr} }

// icmpKind is what an ICMP message is to a NAT (RFC 5508 §2).
type icmpKind uint8

const (
	icmpOther icmpKind = iota // of no query and no error
	icmpRequest
	icmpReply
	icmpError
)

// view is an IP packet that is being translated, with its headers found.
type view struct {
	b        []byte // no longer than the packet says
	v6       bool
	protocol uint8
	at       int // where the upper header begins; -1 in a later fragment
	// The ports are those of UDP and TCP.
	src, dst endpoint

	fragment    uint32 // the identifier, if more or offset
	more        bool
	offset      int // of the fragment, in bytes
	transportAt int // where what is fragmented begins
	fragmentAt  int // where the header of the fragment is, or of IPv4 ends
	chainAt     int // where the byte is that announces that header

	icmp icmpKind
	kind uint8  // the ICMP type
	id   uint16 // of an ICMP query
}

const (
	protocolFragment = 44 // RFC 8200 §4.5
	headerUDP        = 8
	headerTCP        = 20
	headerICMP       = 8
)

// look finds the headers of a packet. One that an ICMP error quotes may be cut
// after 8 bytes of the upper header.
func look(b []byte, quoted bool) (v view, ok bool) {
	if len(b) < 20 {
		return v, false
	}
	switch b[0] >> 4 {
	case 4:
		ok = v.look4(b, quoted)
	case 6:
		ok = v.look6(b, quoted)
	}
	if !ok {
		return v, false
	}
	if v.offset > 0 {
		v.at = -1
		return v, true
	}
	return v, v.lookUpper(quoted)
}

func (v *view) look4(b []byte, quoted bool) bool {
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if quoted {
		total = min(total, len(b))
	}
	if header < 20 || total < header || len(b) < total {
		return false
	}
	v.b, v.protocol, v.at, v.transportAt, v.fragmentAt = b[:total], b[9], header, header, header
	map4(&v.src.addr, b[12:])
	map4(&v.dst.addr, b[16:])
	word := binary.BigEndian.Uint16(b[6:])
	v.more, v.offset = word&0x2000 != 0, int(word&0x1fff)*8
	if v.more || v.offset > 0 {
		v.fragment = uint32(binary.BigEndian.Uint16(b[4:]))
	}
	return true
}

// map4 is an IPv4 address in IPv6 (RFC 4291 §2.5.5.2).
func map4(a *[16]byte, b []byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
}

func (v *view) look6(b []byte, quoted bool) bool {
	if len(b) < 40 {
		return false
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if quoted {
		total = min(total, len(b))
	}
	if len(b) < total {
		return false
	}
	v.b, v.v6, v.protocol, v.at = b[:total], true, b[6], 40
	v.src.addr, v.dst.addr = [16]byte(b[8:]), [16]byte(b[24:])
	// Hop-by-hop options, routing, destination options and one fragment header.
	chain := 6
	for range 8 {
		switch v.protocol {
		case 0, 43, 60:
			if len(v.b) < v.at+8 {
				return false
			}
			chain = v.at
			v.protocol, v.at = v.b[v.at], v.at+8+int(v.b[v.at+1])*8
		case protocolFragment:
			if len(v.b) < v.at+8 || v.fragmented() {
				return false
			}
			word := binary.BigEndian.Uint16(v.b[v.at+2:])
			v.more, v.offset = word&1 != 0, int(word&^7)
			if v.fragmented() {
				v.fragment = binary.BigEndian.Uint32(v.b[v.at+4:])
			}
			v.fragmentAt, v.chainAt = v.at, chain
			chain = v.at
			v.protocol, v.at = v.b[v.at], v.at+8
			v.transportAt = v.at
			if v.offset > 0 {
				return true
			}
		default:
			return v.at <= len(v.b)
		}
	}
	return false
}

func (v *view) fragmented() bool { return v.more || v.offset > 0 }

// lookUpper reads ports, or what ICMP has instead.
func (v *view) lookUpper(quoted bool) bool {
	b := v.b[v.at:]
	least := 0
	switch v.protocol {
	case ProtocolUDP:
		least = headerUDP
	case ProtocolTCP:
		least = headerTCP
	case ProtocolICMP, ProtocolICMPv6:
		least = headerICMP
	}
	if quoted {
		least = min(least, 8)
	}
	if len(b) < least {
		return false
	}
	switch v.protocol {
	case ProtocolUDP, ProtocolTCP:
		v.src.port, v.dst.port = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	case ProtocolICMP, ProtocolICMPv6:
		if (v.protocol == ProtocolICMPv6) != v.v6 {
			return true // nothing that anybody understands
		}
		v.kind = b[0]
		v.icmp = icmpKindOf(v.v6, v.kind)
		if v.icmp == icmpRequest || v.icmp == icmpReply {
			v.id = binary.BigEndian.Uint16(b[4:])
		}
	}
	return true
}

// icmpKindOf sorts ICMP types (RFC 792, RFC 950, RFC 4443).
func icmpKindOf(v6 bool, kind uint8) icmpKind {
	if v6 {
		switch {
		case kind == 128:
			return icmpRequest
		case kind == 129:
			return icmpReply
		case kind < 128:
			return icmpError
		}
		return icmpOther
	}
	switch kind {
	case 8, 13, 15, 17: // echo, timestamp, information, address mask
		return icmpRequest
	case 0, 14, 16, 18:
		return icmpReply
	case 3, 4, 5, 11, 12: // unreachable, quench, redirect, time exceeded, parameter
		return icmpError
	}
	return icmpOther
}

// asked is the type of the request that the query type belongs to.
func asked(v6 bool, kind uint8) uint8 {
	switch {
	case v6:
		return 128
	case kind == 0:
		return 8
	case kind == 14 || kind == 16 || kind == 18:
		return kind - 1
	}
	return kind
}

// flags are the TCP flags.
func (v *view) flags() uint8 { return v.b[v.at+13] }

const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	_
	flagACK
)

// from and to give the packet another source or destination, IPv4 only, and mend
// its checksums (RFC 1624). The port of an ICMP query is its identifier.
func (v *view) from(e endpoint) {
	v.rewrite(12, 0, e)
	v.src = e
}

func (v *view) to(e endpoint) {
	v.rewrite(16, 2, e)
	v.dst = e
}

func (v *view) rewrite(addressAt, portAt int, e endpoint) {
	delta := replace(v.b[addressAt:], binary.BigEndian.Uint16(e.addr[12:])) +
		replace(v.b[addressAt+2:], binary.BigEndian.Uint16(e.addr[14:]))
	mend(v.b[10:], delta)
	if v.at < 0 {
		return
	}
	b := v.b[v.at:]
	switch v.protocol {
	case ProtocolUDP:
		delta += replace(b[portAt:], e.port)
		if binary.BigEndian.Uint16(b[6:]) == 0 {
			return // there was none (RFC 768)
		}
		mend(b[6:], delta)
		if binary.BigEndian.Uint16(b[6:]) == 0 {
			binary.BigEndian.PutUint16(b[6:], 0xffff)
		}
	case ProtocolTCP:
		delta += replace(b[portAt:], e.port)
		if len(b) >= 18 { // a quoted packet is cut
			mend(b[16:], delta)
		}
	case ProtocolICMP:
		if v.icmp == icmpRequest || v.icmp == icmpReply {
			mend(b[2:], replace(b[4:], e.port))
			v.id = e.port
		}
	}
}

// replace writes a word, and returns what that adds to a checksum's complement.
func replace(b []byte, word uint16) uint32 {
	old := binary.BigEndian.Uint16(b)
	binary.BigEndian.PutUint16(b, word)
	return uint32(^old) + uint32(word)
}

// mend mends a checksum: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3).
func mend(b []byte, delta uint32) {
	sum := uint32(^binary.BigEndian.Uint16(b)) + delta
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b, ^uint16(sum))
}
