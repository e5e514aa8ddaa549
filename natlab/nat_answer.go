package natlab

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

// answerError says that the port is unreachable, unless that would answer an
// error, what may be one, or a later fragment (RFC 1122 §3.2.2).
func (t *Translator) answerError(v view, to Side, out []Sent) []Sent {
	unknown := v.protocol == ProtocolICMP && v.icmp == icmpOther // ICMPv6 tells errors by a bit
	p, ok := ParsePacket(v.b)
	if !ok || v.offset > 0 || v.icmp == icmpError || unknown {
		return out
	}
	if b := AppendUnreachable(nil, PortUnreachable, p.To.Addr(), p); b != nil {
		out = append(out, Sent{To: to, Data: b, Own: true})
	}
	return out
}

// answerReset answers a segment as a closed port does.
func (t *Translator) answerReset(v view, to Side, out []Sent) []Sent {
	if p, ok := ParsePacket(v.b); ok {
		if b, ok := refusal(p); ok {
			out = append(out, Sent{To: to, Data: b, Own: true})
		}
	}
	return out
}

// answerPing answers an echo request.
func (t *Translator) answerPing(v view, to Side, out []Sent) ([]Sent, Verdict) {
	if p, ok := ParsePacket(v.b); ok && !v.fragmented() {
		if b, ok := echoReply(p); ok {
			return append(out, Sent{To: to, Data: b, Own: true}), Verdict{Answer, ForBox}
		}
	}
	return out, Verdict{Drop, ForBox}
}
