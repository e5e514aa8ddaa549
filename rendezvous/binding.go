package rendezvous

import (
	"net/netip"
	"slices"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// maxPadding bounds the PADDING of an answer; it is never longer than its
// request's.
const maxPadding = 1500

// answersAtOnce is how much memory for answers is made at a time.
const answersAtOnce = 16 << 10

// plain handles a Binding request: of RFC 8489, or of RFC 3489.
func (r *Registry) plain(local int, from netip.AddrPort, b []byte) {
	if q, ok := wire.ParseClassic(b); ok {
		r.classic(local, from, q)
	} else if wire.DecodeTo(&r.request, b) == nil {
		r.binding(local, from, &r.request)
	} else {
		r.stats.Malformed++
	}
}

// binding answers a plain Binding request, for anyone (RFC 8489 §6.3.1), with what
// RFC 5780 §6.1 adds. This is the one answer to an unproved source that may be
// longer than its request: by the 12 or 24 bytes of an address, by four addresses
// where the server has two, and by 16 bytes if it is an error. So the answers are
// limited in rate for each prefix.
func (r *Registry) binding(local int, from netip.AddrPort, m *stun.Message) {
	if !r.unproved(from) {
		return
	}
	fingerprint := m.Contains(stun.AttrFingerprint)
	if fingerprint && stun.Fingerprint.Check(m) != nil {
		r.stats.Malformed++ // another protocol's packet, if we believe it (§6.3)
		return
	}
	r.stats.Bindings++
	a := wire.BindingAnswer{ID: m.TransactionID, Fingerprint: fingerprint}
	q, err := wire.ParseBindingRequest(m)
	unknown := unknownRequired(m, knownOverUDP)
	o := r.origin(local)
	via := o.instead(local, q.ChangeIP, q.ChangePort)
	switch {
	case err != nil:
		a.Code = int(stun.CodeBadRequest)
	case len(unknown) > 0:
		a.Code, a.Unknown = int(stun.CodeUnknownAttribute), unknown
	case via == none:
		a.Code, a.Unknown = int(stun.CodeUnknownAttribute), []stun.AttrType{stun.AttrChangeRequest}
	default:
		r.endpoints(&a, q, o, via, from)
		if q.ResponsePort != 0 {
			from = netip.AddrPortFrom(from.Addr(), q.ResponsePort)
		}
		local = via
	}
	if cap(r.answers)-len(r.answers) < wire.MaxPadded {
		r.answers = make([]byte, 0, answersAtOnce)
	}
	n := len(r.answers)
	r.answers = a.Append(r.answers)
	if isICMP(local) && len(r.answers)-n > len(m.Raw) {
		r.answers = r.answers[:n] // who speaks ICMP is ours, and can make its request longer
		r.stats.Limited++
		return
	}
	r.send(local, from, r.answers[n:len(r.answers):len(r.answers)])
}

// unproved takes an answer from the limit of those who have proved nothing.
func (r *Registry) unproved(from netip.AddrPort) bool {
	ok := r.prefixes.take(r.now, from.Addr(), r.limits.Bindings)
	if !ok {
		r.stats.Limited++
	}
	return ok
}

func (r *Registry) origin(local int) *origin {
	if local < len(r.origins) {
		return &r.origins[local]
	}
	return &unknownOrigin
}

var unknownOrigin = origin{port: none, addr: none, both: none}

// endpoints fills in the addresses and ports of an answer that leaves from the
// socket via. A server with two addresses tells them to everybody, as RFC 5780
// §6.1 wants it; another one keeps its answers short.
func (r *Registry) endpoints(a *wire.BindingAnswer, q wire.BindingRequest, o *origin, via int, from netip.AddrPort) {
	a.Mapped, a.Other, a.Plain = from, o.other, o.other.IsValid()
	if a.Plain || q.ChangePort {
		a.Origin = r.origin(via).known()
	}
	if q.OtherPorts {
		a.OtherPorts = o.ports[:min(len(o.ports), wire.MaxOtherPorts)]
	}
	a.Padding = min(q.Padding, maxPadding)
}

// unknownRequired are the comprehension-required attributes of a Binding request
// that we do not know, for a 420 (RFC 8489 §6.3.1).
func unknownRequired(m *stun.Message, known []stun.AttrType) (unknown []stun.AttrType) {
	for _, a := range m.Attributes {
		if a.Type.Required() && !slices.Contains(known, a.Type) && !slices.Contains(unknown, a.Type) {
			unknown = append(unknown, a.Type)
		}
	}
	return unknown
}

// What a Binding request may carry; credentials mean nothing to us.
var (
	knownOverTCP = []stun.AttrType{
		stun.AttrUsername, stun.AttrMessageIntegrity, wire.AttrIntegrity, stun.AttrRealm, stun.AttrNonce, wire.AttrPadding,
	}
	knownOverUDP = append(slices.Clip(knownOverTCP), stun.AttrChangeRequest, stun.AttrResponsePort)
)
