package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/pion/stun/v3"
)

// STUN as RFC 3489 had it, before the magic cookie: some clients still speak it,
// and RFC 5389 §12.2 says how they are answered.

// Attributes that RFC 8489 has given up (RFC 3489 §11.2).
const (
	attrSourceAddress  stun.AttrType = 0x0004
	attrChangedAddress stun.AttrType = 0x0005
)

// ClassicRequest is a Binding request of RFC 3489.
type ClassicRequest struct {
	ID                   [16]byte // where the magic cookie is now, it has four bytes more
	ChangeIP, ChangePort bool
	Unknown              []stun.AttrType // attributes that have to be understood, and are not
}

// ParseClassic reads a Binding request without a magic cookie; all else is false.
// A RESPONSE-ADDRESS, with which anybody could send answers to anybody, counts as
// not understood.
func ParseClassic(b []byte) (ClassicRequest, bool) {
	if len(b) < 20 || len(b) > MaxMessage || !IsBindingRequest(b) ||
		binary.BigEndian.Uint32(b[4:]) == magicCookie || int(binary.BigEndian.Uint16(b[2:])) != len(b)-20 {
		return ClassicRequest{}, false
	}
	q := ClassicRequest{ID: [16]byte(b[4:20])}
	a := Attrs(b[20:])
	if a.Check() != nil {
		return ClassicRequest{}, false
	}
	for t, v := range a.All() {
		switch {
		case t == stun.AttrChangeRequest && len(v) == 4:
			q.ChangeIP, q.ChangePort = v[3]&changeIP != 0, v[3]&changePort != 0
		case t == stun.AttrUsername, t == stun.AttrMessageIntegrity:
			// No credentials are needed here.
		case t.Required():
			q.Unknown = append(q.Unknown, t)
		}
	}
	return q, true
}

// ClassicAnswer is the answer to it (RFC 3489 §8.1).
type ClassicAnswer struct {
	ID      [16]byte
	Mapped  netip.AddrPort
	Source  netip.AddrPort // where the answer comes from; zero: not said
	Changed netip.AddrPort // the server's other address and port; zero: none

	Code    int             // of an error: its ERROR-CODE
	Unknown []stun.AttrType // of a 420
}

// Append builds the answer.
func (a ClassicAnswer) Append(b []byte) []byte {
	start := len(b)
	t := stun.BindingSuccess
	if a.Code != 0 {
		t = stun.BindingError
	}
	b = binary.BigEndian.AppendUint16(b, t.Value())
	b = append(binary.BigEndian.AppendUint16(b, 0), a.ID[:]...)
	if a.Code != 0 {
		b = appendAttr(b, stun.AttrErrorCode, []byte{0, 0, byte(a.Code / 100), byte(a.Code % 100)})
		var v []byte
		for _, u := range a.Unknown {
			v = binary.BigEndian.AppendUint16(v, uint16(u))
		}
		if len(v)%4 != 0 { // "one of the attributes MUST be repeated" (RFC 3489 §11.2.10)
			v = append(v, v[len(v)-2:]...)
		}
		if len(v) != 0 {
			b = appendAttr(b, stun.AttrUnknownAttributes, v)
		}
		return finish(b, start, false)
	}
	b = appendAddress(b, stun.AttrMappedAddress, a.Mapped, nil)
	if a.Source.IsValid() {
		b = appendAddress(b, attrSourceAddress, a.Source, nil)
	}
	if a.Changed.IsValid() {
		b = appendAddress(b, attrChangedAddress, a.Changed, nil)
	}
	return finish(b, start, false)
}
