package rendezvous

import (
	"net/netip"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// classic answers a Binding request of RFC 3489 as its §8.1 wants it, but for a
// RESPONSE-ADDRESS. It knows IPv4 alone.
func (r *Registry) classic(local int, from netip.AddrPort, q wire.ClassicRequest) {
	if !from.Addr().Is4() {
		r.stats.Malformed++
		return
	}
	if !r.unproved(from) {
		return
	}
	r.stats.Bindings++
	o := r.origin(local)
	via := o.instead(local, q.ChangeIP, q.ChangePort)
	a := wire.ClassicAnswer{ID: q.ID, Mapped: from, Changed: o.other}
	switch {
	case len(q.Unknown) > 0:
		a.Code, a.Unknown = int(stun.CodeUnknownAttribute), q.Unknown
	case via == none:
		a.Code, a.Unknown = int(stun.CodeUnknownAttribute), []stun.AttrType{stun.AttrChangeRequest}
	default:
		a.Source = r.origin(via).known()
		r.send(via, from, a.Append(nil))
		return
	}
	r.send(local, from, a.Append(nil))
}
