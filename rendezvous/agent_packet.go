package rendezvous

import (
	"net/netip"
	"slices"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// maxNonce bounds a NONCE that we send back (RFC 8489 §14.10 has 763 bytes; ours
// have 27).
const maxNonce = 128

// packet takes a STUN packet from one of the server's endpoints.
func (a *Agent) packet(local uint32, from netip.AddrPort, b []byte) {
	l := a.via(local, from)
	if l == nil {
		a.stats.Strange++
		return
	}
	m, err := wire.Decode(b)
	if err != nil {
		a.stats.Malformed++
		return
	}
	switch e, err := wire.ParseEnvelope(m); {
	case err == nil:
		a.sealed(l, e, m)
	case m.Type.Class == stun.ClassErrorResponse:
		a.plainError(l, m)
	case m.Type == stun.NewType(wire.ChannelError, stun.ClassIndication) && len(m.Attributes) == 0:
		a.nudge(l)
	default:
		a.stats.Malformed++
	}
}

// plainError takes an error that anybody on the way may have written.
func (a *Agent) plainError(l *serverLeg, m *stun.Message) {
	asked := slices.ContainsFunc(a.requests, func(q *agentRequest) bool { return q.id == m.TransactionID })
	if m.TransactionID != l.id && !asked {
		a.stats.Strange++
		return
	}
	var code stun.ErrorCodeAttribute
	if code.GetFrom(m) != nil {
		a.stats.Malformed++
		return
	}
	nonce, err := m.Get(stun.AttrNonce)
	challenge := code.Code == stun.CodeUnauthorized || code.Code == stun.CodeStaleNonce
	switch {
	case challenge && err == nil && len(nonce) <= maxNonce && !asked:
		a.challenged(l, nonce)
	case code.Code == wire.CodeUnknownRegistration:
		a.hint()
	case code.Code == wire.CodeTooMany:
		if a.state == stateProving {
			a.report(ErrServerFull)
		}
	default:
		a.stats.Malformed++
	}
}

// sealed takes what the server alone can have said.
func (a *Agent) sealed(l *serverLeg, e wire.Envelope, m *stun.Message) {
	if m.Type == stun.NewType(wire.Register, stun.ClassSuccessResponse) {
		if a.state == stateProving && l == a.lead && e.ID == l.id && a.box != nil {
			a.registered(l, e, m)
		} else {
			a.stats.Strange++
		}
		return
	}
	if a.primary == nil || e.Handle != a.handle {
		a.stats.Strange++
		return
	}
	content, err := wire.Open(m, e.Sequence, &a.keys.ToNode)
	if err != nil {
		a.stats.Forged++
		return
	}
	if !a.window.Take(e.Sequence) {
		a.stats.Replayed++
		return
	}
	switch m.Type {
	case stun.NewType(wire.Refresh, stun.ClassSuccessResponse):
		a.refreshed(l, e, content)
	case stun.NewType(wire.Introduce, stun.ClassSuccessResponse), stun.NewType(wire.Introduce, stun.ClassErrorResponse):
		a.introduced(e, content)
	case stun.NewType(wire.Introduced, stun.ClassRequest):
		a.wanted(l, e, content)
	case stun.NewType(wire.CloseChannel, stun.ClassSuccessResponse):
		a.answered(e.ID)
	case stun.NewType(wire.Invite, stun.ClassSuccessResponse), stun.NewType(wire.Invite, stun.ClassErrorResponse):
		a.invited(e, content)
	case stun.NewType(wire.Pair, stun.ClassSuccessResponse), stun.NewType(wire.Pair, stun.ClassErrorResponse):
		a.written(e)
	case stun.NewType(wire.Pair, stun.ClassRequest):
		a.letter(l, e, content)
	case stun.NewType(wire.CloseChannel, stun.ClassIndication), stun.NewType(wire.ChannelError, stun.ClassIndication):
		if c, ok := content.Channel(); ok {
			a.channelLost(c)
		}
	case stun.NewType(wire.Notice, stun.ClassIndication):
		if f, _ := content.Uint32(wire.AttrFlags); f&wire.FlagDisplaced != 0 {
			a.displace()
		}
	default:
		a.stats.Malformed++
	}
}

// refreshed takes the answer to a leg's Refresh.
func (a *Agent) refreshed(l *serverLeg, e wire.Envelope, content wire.Attrs) {
	if a.state != stateUp || e.ID != l.id {
		return // of an earlier try, or of the registration before
	}
	r, err := wire.ParseRegistered(content)
	if err != nil {
		a.stats.Malformed++
		return
	}
	a.measure(l)
	a.alive(l)
	a.say(l, r, false)
	a.choose(l)
	if a.dirty {
		a.refresh(a.primary)
	}
}
