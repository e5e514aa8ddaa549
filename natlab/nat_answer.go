package natlab

import "encoding/binary"

// refuse answers a packet from outside that is not let in, if the box does.
func (t *Translator) refuse(v view, why Reason, out []Sent) ([]Sent, Verdict) {
	refusal := RefuseSilently
	switch v.protocol {
	case ProtocolUDP:
		refusal = t.nat.UDP.Refusal
	case ProtocolTCP:
		refusal = t.nat.TCP.Refusal
	case ProtocolICMP, ProtocolICMPv6:
		if v.icmp == icmpRequest && t.nat.ICMP.Pings && t.isOwn(v.dst.addr) {
			return t.answerPing(v, Outside, out)
		}
		refusal = t.nat.ICMP.Refusal
	}
	n := len(out)
	switch refusal {
	case RefuseWithError:
		out = t.answerError(v, Outside, out)
	case RefuseWithReset:
		out = t.answerReset(v, Outside, out)
	case RefuseLate:
		if v.flags()&(flagSYN|flagACK|flagRST) == flagSYN {
			return t.hold(v, out)
		}
	case RefuseSilently:
	}
	if len(out) > n {
		return out, Verdict{Answer, why}
	}
	return out, Verdict{Drop, why}
}

// answer appends the box's packet to who sent v, from whom that was for.
func (t *Translator) answer(v view, to Side, protocol uint8, body []byte, out []Sent) []Sent {
	var b []byte
	if v.v6 {
		b = append(make([]byte, 40, 40+len(body)), body...)
		b[0], b[6], b[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
		copy(b[8:], v.dst.addr[:])
		copy(b[24:], v.src.addr[:])
	} else {
		b = append(make([]byte, 20, 20+len(body)), body...)
		b[0], b[8], b[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		copy(b[12:], v.dst.addr[12:])
		copy(b[16:], v.src.addr[12:])
		binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
	}
	body = b[len(b)-len(body):]
	sum := uint32(0)
	if protocol != ProtocolICMP {
		sum = uint32(protocol) + uint32(len(body))
		for i := 0; i < 16; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(v.src.addr[i:])) + uint32(binary.BigEndian.Uint16(v.dst.addr[i:]))
		}
		// The 0xffff in mapped addresses adds nothing.
	}
	at := 2
	if protocol == ProtocolTCP {
		at = 16
	}
	binary.BigEndian.PutUint16(body[at:], checksum(body, sum))
	return append(out, Sent{To: to, Data: b, Own: true})
}

// answerError says that the port is unreachable (RFC 792, RFC 4443 §3.1), unless
// that would answer an error, or what may be one, or a later fragment (RFC 1122
// §3.2.2).
func (t *Translator) answerError(v view, to Side, out []Sent) []Sent {
	icmp := v.protocol == ProtocolICMP || v.protocol == ProtocolICMPv6
	if v.offset > 0 || icmp && v.icmp != icmpRequest && v.icmp != icmpReply {
		return out
	}
	protocol, kind, code, most := uint8(ProtocolICMP), byte(3), byte(3), 576-28
	if v.v6 {
		protocol, kind, code, most = ProtocolICMPv6, 1, 4, 1280-48
	}
	body := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, v.b[:min(len(v.b), most)]...)
	return t.answer(v, to, protocol, body, out)
}

// answerReset answers a segment as a closed port does (RFC 9293 §3.10.7.1).
func (t *Translator) answerReset(v view, to Side, out []Sent) []Sent {
	b, flags := v.b[v.at:], v.flags()
	header := int(b[12]>>4) * 4
	if flags&flagRST != 0 || header < headerTCP || header > len(b) {
		return out
	}
	body := make([]byte, headerTCP)
	binary.BigEndian.PutUint16(body, v.dst.port)
	binary.BigEndian.PutUint16(body[2:], v.src.port)
	body[12], body[13] = headerTCP/4<<4, flagRST
	if flags&flagACK != 0 {
		copy(body[4:], b[8:12])
	} else {
		seen := uint32(len(b)-header) + uint32(flags>>1&1) + uint32(flags&1)
		binary.BigEndian.PutUint32(body[8:], binary.BigEndian.Uint32(b[4:])+seen)
		body[13] |= flagACK
	}
	return t.answer(v, to, ProtocolTCP, body, out)
}

// answerPing answers an echo request (RFC 792, RFC 4443 §4.2).
func (t *Translator) answerPing(v view, to Side, out []Sent) ([]Sent, Verdict) {
	const echo, echoReply, echo6, echoReply6 = 8, 0, 128, 129
	protocol, reply := uint8(ProtocolICMP), byte(echoReply)
	switch {
	case v.fragmented() || v.kind != echo && v.kind != echo6:
		return out, Verdict{Drop, ForBox}
	case v.v6:
		protocol, reply = ProtocolICMPv6, echoReply6
	}
	body := append([]byte(nil), v.b[v.at:]...)
	body[0], body[1], body[2], body[3] = reply, 0, 0, 0
	return t.answer(v, to, protocol, body, out), Verdict{Answer, ForBox}
}
