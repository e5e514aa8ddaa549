package natlab

import (
	"encoding/binary"

	"bodkin/nat"
)

// quotedAt is where the packet begins that an ICMP error quotes.
func (v *view) quotedAt() int { return v.at + headerICMP }

// icmpError passes an ICMP error on, if what it quotes belongs to a session (RFC
// 5508 REQ-4, REQ-5). It neither refreshes nor ends one (REQ-6).
func (t *Translator) icmpError(from Side, v view, out []Sent) ([]Sent, Verdict) {
	q, ok := look(v.b[min(v.quotedAt(), len(v.b)):], true)
	switch {
	case !ok || q.v6 != v.v6 || q.at < 0 || q.icmp == icmpError:
		return out, Verdict{Drop, UnknownFlow}
	case !v.v6 && checksum(v.b[v.at:], 0) != 0:
		return out, Verdict{Drop, BadChecksum}
	case from == Outside:
		return t.errorIn(v, q, out)
	case t.isOwn(v.dst.addr):
		return t.errorBack(v, q, out)
	}
	return t.errorOut(v, q, out)
}

// errorIn is about a packet that went out.
func (t *Translator) errorIn(v, q view, out []Sent) ([]Sent, Verdict) {
	in, verdict := t.errorFor(v, &q)
	if verdict.Action == Drop {
		return out, verdict
	}
	if verdict.Action == Translate {
		q.from(in)
		v.to(in)
		v.sumICMP()
	}
	return append(out, Sent{To: Inside, Data: v.b}), verdict
}

// errorFor is who inside sent the packet that an error from outside quotes.
func (t *Translator) errorFor(v view, q *view) (endpoint, Verdict) {
	switch {
	case t.nat.ICMP.Errors == ErrorsNone:
		return endpoint{}, Verdict{Drop, ErrorsOff}
	case t.nat.ICMP.Errors == ErrorsFromPeer && v.src.addr != q.dst.addr:
		return endpoint{}, Verdict{Drop, FromStranger}
	}
	src, dst := t.ends(*q, Inside)
	behavior, filtering := t.behavior(*q)
	m, _, _ := t.find(t.asReply(*q), filtering, dst, src)
	switch {
	case m == nil || v.dst.addr != q.src.addr:
		return endpoint{}, Verdict{Drop, UnknownFlow}
	case behavior <= nat.None:
		return m.key.in, Verdict{}
	}
	return m.key.in, Verdict{Action: Translate}
}

// asReply makes a quoted query what would answer it: an error does.
func (t *Translator) asReply(q view) view {
	if q.icmp == icmpRequest {
		q.icmp = icmpReply
	}
	return q
}

// errorOut is about a packet that came in.
func (t *Translator) errorOut(v, q view, out []Sent) ([]Sent, Verdict) {
	mapped, translates, ok := t.errorAbout(&q)
	switch {
	case !ok && t.nat.Leaks:
		return append(out, Sent{To: Outside, Data: v.b}), Verdict{Forward, Leaked}
	case !ok:
		return out, Verdict{Drop, UnknownFlow}
	case !translates:
		return append(out, Sent{To: Outside, Data: v.b}), Verdict{}
	}
	q.to(mapped)
	v.from(mapped)
	v.sumICMP()
	return append(out, Sent{To: Outside, Data: v.b}), Verdict{Action: Translate}
}

// errorAbout is what the host inside is mapped to that received the quoted packet.
func (t *Translator) errorAbout(q *view) (mapped endpoint, translates, ok bool) {
	remote, in := t.ends(*q, Outside)
	behavior, _ := t.behavior(*q)
	k := mapKey{protocol: q.protocol, in: in}
	switch behavior {
	case nat.AddressDependent:
		k.remote = remote.any()
	case nat.AddressAndPortDependent:
		k.remote = remote
	default: // whoever it is
	}
	m := t.mapper.byInside[k]
	if m == nil {
		return mapped, false, false
	}
	return m.out, behavior > nat.None, true
}

// errorBack is about a packet that was hairpinned (RFC 5508 REQ-7).
func (t *Translator) errorBack(v, q view, out []Sent) ([]Sent, Verdict) {
	if t.nat.Hairpinning == NoHairpinning || !t.nat.Translates() {
		return out, Verdict{Drop, NoHairpin}
	}
	mapped, _, ok := t.errorAbout(&q)
	if !ok {
		return out, Verdict{Drop, UnknownFlow}
	}
	seen := q
	seen.dst = mapped
	seen.src = q.src
	src, dst := seen.src, mapped
	_, filtering := t.behavior(q)
	m, _, _ := t.find(t.asReply(q), filtering, dst, src)
	if m == nil || v.dst.addr != q.src.addr {
		return out, Verdict{Drop, UnknownFlow}
	}
	in := m.key.in
	q.to(mapped)
	q.from(in)
	v.from(mapped)
	v.to(in)
	v.sumICMP()
	return append(out, Sent{To: Inside, Data: v.b}), Verdict{Action: Hairpin}
}

// sumICMP renews the checksum of an IPv4 ICMP message.
func (v *view) sumICMP() {
	b := v.b[v.at:]
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint16(b[2:], checksum(b, 0))
}

// hairpin is what becomes of a packet from inside to an address of the box
// outside (RFC 4787 §6).
func (t *Translator) hairpin(v view, out []Sent) ([]Sent, Verdict) {
	switch {
	case v.icmp == icmpRequest && t.nat.ICMP.Pings:
		return t.answerPing(v, Inside, out)
	case t.nat.Hairpinning == NoHairpinning:
		return out, Verdict{Drop, NoHairpin}
	case v.protocol != ProtocolUDP && v.protocol != ProtocolTCP || v.v6 || !t.nat.Translates():
		return out, Verdict{Drop, ForBox}
	}
	dst := v.dst
	mapped, verdict := t.open(v, v.src, dst)
	if verdict.Action == Drop {
		return out, verdict
	}
	in, verdict := t.admit(v, mapped, dst)
	if verdict.Action == Drop {
		return out, verdict
	}
	if t.nat.Hairpinning == ExternalSource {
		v.from(mapped)
	}
	v.to(in)
	return append(out, Sent{To: Inside, Data: v.b}), Verdict{Action: Hairpin}
}
