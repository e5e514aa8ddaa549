package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/pion/stun/v3"
)

// BindingRequest is a plain Binding request (RFC 8489 §3), with what RFC 5780 §7
// adds to find out how a NAT behaves.
type BindingRequest struct {
	ID           TransactionID
	ChangeIP     bool   // CHANGE-REQUEST: answer from the other address
	ChangePort   bool   // CHANGE-REQUEST: answer from the other port
	ResponsePort uint16 // RESPONSE-PORT: answer to this port; 0: to the one that it comes from
	Padding      int    // PADDING, in bytes: the answer is to be as long; not with ResponsePort
	OtherPorts   bool   // OTHER-PORTS: which other ports do you have?
	Fingerprint  bool
}

// MaxOtherPorts is how many ports an OTHER-PORTS names: so many fit in its
// question, and the answer is no longer.
const MaxOtherPorts = 6

const (
	changeIP   = 4 // flags of CHANGE-REQUEST (RFC 5780 §7.2)
	changePort = 2
)

// Append builds the request: 20 bytes where nothing is asked beside the endpoint.
func (r BindingRequest) Append(b []byte) []byte {
	start := len(b)
	b = appendHeader(b, stun.BindingRequest, r.ID)
	if r.ChangeIP || r.ChangePort {
		b = appendAttr(b, stun.AttrChangeRequest, []byte{0, 0, 0, flag(r.ChangeIP, changeIP) | flag(r.ChangePort, changePort)})
	}
	if r.ResponsePort != 0 {
		b = appendAttr(b, stun.AttrResponsePort, []byte{byte(r.ResponsePort >> 8), byte(r.ResponsePort), 0, 0})
	}
	if r.OtherPorts {
		b = appendAttr(b, AttrOtherPorts, make([]byte, 2*MaxOtherPorts))
	}
	if r.Padding > 0 {
		b = appendAttr(b, AttrPadding, make([]byte, r.Padding))
	}
	return finish(b, start, r.Fingerprint)
}

func flag(is bool, v byte) byte {
	if is {
		return v
	}
	return 0
}

// ParseBindingRequest reads a Binding request. Other attributes are skipped; the
// first of a kind counts. What RFC 5780 §6.1 answers with a 400 is ErrMalformed.
func ParseBindingRequest(m *stun.Message) (BindingRequest, error) {
	r := BindingRequest{ID: m.TransactionID}
	if m.Type != stun.BindingRequest {
		return r, ErrMalformed
	}
	padded := false
	if v, err := m.Get(stun.AttrChangeRequest); err == nil {
		if len(v) != 4 {
			return r, fmt.Errorf("%w: CHANGE-REQUEST", ErrMalformed)
		}
		r.ChangeIP, r.ChangePort = v[3]&changeIP != 0, v[3]&changePort != 0
	}
	if v, err := m.Get(AttrPadding); err == nil {
		r.Padding, padded = len(v), true
	}
	if v, err := m.Get(stun.AttrResponsePort); err == nil {
		// "a 16-bit unsigned integer … followed by 2 bytes of padding" (RFC 5780
		// §7.5): some count those.
		if len(v) == 2 || len(v) == 4 {
			r.ResponsePort = binary.BigEndian.Uint16(v)
		}
		if r.ResponsePort == 0 || padded {
			return r, fmt.Errorf("%w: RESPONSE-PORT", ErrMalformed)
		}
	}
	v, err := m.Get(AttrOtherPorts)
	r.OtherPorts = err == nil && len(v) == 2*MaxOtherPorts
	r.Fingerprint = m.Contains(stun.AttrFingerprint)
	return r, nil
}

// BindingAnswer is the answer to a plain Binding request: an endpoint, or why there
// is none.
type BindingAnswer struct {
	ID     TransactionID
	Mapped netip.AddrPort // where the request came from
	// Plain has Mapped in a MAPPED-ADDRESS too, as RFC 5780 §6.1 wants it; there
	// are routers that change addresses in packets that they do not understand.
	Plain       bool
	Origin      netip.AddrPort // RESPONSE-ORIGIN: where the answer comes from; zero: not said
	Other       netip.AddrPort // OTHER-ADDRESS: the server's other address and port; zero: none
	OtherPorts  []uint16       // OTHER-PORTS: further ports of the address that was asked
	Padding     int            // PADDING, in bytes
	Fingerprint bool

	Code    int             // of an error response: its ERROR-CODE; everything above is zero then
	Unknown []stun.AttrType // of a 420
}

// Append builds the answer.
func (a BindingAnswer) Append(b []byte) []byte {
	start := len(b)
	if a.Code != 0 {
		b = appendHeader(b, stun.BindingError, a.ID)
		b = appendAttr(b, stun.AttrErrorCode, []byte{0, 0, byte(a.Code / 100), byte(a.Code % 100)})
		if len(a.Unknown) > 0 {
			var v []byte
			for _, u := range a.Unknown {
				v = binary.BigEndian.AppendUint16(v, uint16(u))
			}
			b = appendAttr(b, stun.AttrUnknownAttributes, v)
		}
		return finish(b, start, a.Fingerprint)
	}
	b = appendHeader(b, stun.BindingSuccess, a.ID)
	b = appendAddress(b, stun.AttrXORMappedAddress, a.Mapped, &a.ID)
	if a.Plain {
		b = appendAddress(b, stun.AttrMappedAddress, a.Mapped, nil)
	}
	if a.Origin.IsValid() {
		b = appendAddress(b, stun.AttrResponseOrigin, a.Origin, nil)
	}
	if a.Other.IsValid() {
		b = appendAddress(b, stun.AttrOtherAddress, a.Other, nil)
	}
	if len(a.OtherPorts) > 0 {
		var v []byte
		for _, p := range a.OtherPorts[:min(len(a.OtherPorts), MaxOtherPorts)] {
			v = binary.BigEndian.AppendUint16(v, p)
		}
		b = appendAttr(b, AttrOtherPorts, v)
	}
	if a.Padding > 0 {
		b = appendAttr(b, AttrPadding, make([]byte, a.Padding))
	}
	return finish(b, start, a.Fingerprint)
}

// ParseBindingAnswer reads a success or error response to a Binding request. An
// old server's MAPPED-ADDRESS counts where there is no XOR-MAPPED-ADDRESS.
// Attributes that are optional and no good are left out.
func ParseBindingAnswer(m *stun.Message) (BindingAnswer, error) {
	a := BindingAnswer{ID: m.TransactionID, Fingerprint: m.Contains(stun.AttrFingerprint)}
	switch m.Type {
	case stun.BindingSuccess:
	case stun.BindingError:
		return a, a.parseError(m)
	default:
		return a, ErrMalformed
	}
	xored, isXored := mapped(m)
	plain, isPlain := plainAddress(m, stun.AttrMappedAddress)
	switch a.Mapped, a.Plain = xored, isPlain; {
	case !isXored && !isPlain:
		return a, fmt.Errorf("%w: no mapped address", ErrMalformed)
	case !isXored:
		a.Mapped = plain
	}
	a.Origin, _ = plainAddress(m, stun.AttrResponseOrigin)
	a.Other, _ = plainAddress(m, stun.AttrOtherAddress)
	if v, err := m.Get(AttrOtherPorts); err == nil && len(v)%2 == 0 && len(v) <= 2*MaxOtherPorts {
		for ; len(v) > 0; v = v[2:] {
			a.OtherPorts = append(a.OtherPorts, binary.BigEndian.Uint16(v))
		}
	}
	if v, err := m.Get(AttrPadding); err == nil {
		a.Padding = len(v)
	}
	return a, nil
}

func (a *BindingAnswer) parseError(m *stun.Message) error {
	v, err := m.Get(stun.AttrErrorCode)
	if err != nil || len(v) < 4 || v[2] < 3 || v[2] > 6 || v[3] > 99 {
		return fmt.Errorf("%w: ERROR-CODE", ErrMalformed) // RFC 8489 §14.8
	}
	a.Code = 100*int(v[2]) + int(v[3])
	var unknown stun.UnknownAttributes
	if unknown.GetFrom(m) == nil && len(unknown) > 0 {
		a.Unknown = unknown
	}
	return nil
}

func plainAddress(m *stun.Message, t stun.AttrType) (netip.AddrPort, bool) {
	v, err := m.Get(t)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return parseAddress(v, nil)
}

// AppendError answers a request with an error that nothing authenticates: whoever
// gets it takes it as a hint. A NONCE goes with 401 and 438 (RFC 8489 §9.2.4).
func AppendError(b []byte, request *stun.Message, code int, nonce []byte) []byte {
	start := len(b)
	b = appendHeader(b, stun.NewType(request.Type.Method, stun.ClassErrorResponse), request.TransactionID)
	b = appendAttr(b, stun.AttrErrorCode, []byte{0, 0, byte(code / 100), byte(code % 100)})
	if len(nonce) != 0 {
		b = appendAttr(b, stun.AttrNonce, nonce)
	}
	return finish(b, start, false)
}

// appendHeader begins a message (RFC 8489 §5); finish writes its length.
func appendHeader(b []byte, t stun.MessageType, id TransactionID) []byte {
	b = binary.BigEndian.AppendUint16(b, t.Value())
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, magicCookie)
	return append(b, id[:]...)
}

func appendAttr(b []byte, t stun.AttrType, v []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	b = append(b, v...)
	return append(b, make([]byte, -len(v)&3)...)
}

// finish writes the length of the message that began at start, and adds a
// FINGERPRINT (RFC 8489 §14.7) if it is wanted.
func finish(b []byte, start int, fingerprint bool) []byte {
	size := len(b) - start - 20
	if fingerprint {
		size += 8
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(size))
	if !fingerprint {
		return b
	}
	crc := stun.FingerprintValue(b[start:])
	return appendAttr(b, stun.AttrFingerprint, binary.BigEndian.AppendUint32(nil, crc))
}
