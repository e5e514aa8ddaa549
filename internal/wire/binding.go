package wire

import (
	"net/netip"

	"github.com/pion/stun/v3"
)

func xorMapped(e netip.AddrPort) *stun.XORMappedAddress {
	return &stun.XORMappedAddress{IP: e.Addr().Unmap().AsSlice(), Port: int(e.Port())}
}

// mapped is the XOR-MAPPED-ADDRESS of a message. pion/stun fills up an address
// that is cut short; here it counts as none.
func mapped(m *stun.Message) (netip.AddrPort, bool) {
	var x stun.XORMappedAddress
	if x.GetFrom(m) != nil {
		return netip.AddrPort{}, false
	}
	v, err := m.Get(stun.AttrXORMappedAddress)
	a, ok := netip.AddrFromSlice(x.IP)
	if err != nil || !ok || len(v) != 4+len(x.IP) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(x.Port)), true
}

// AppendBindingRequest builds a plain Binding request (RFC 8489 §3), 20 bytes.
func AppendBindingRequest(b []byte, id TransactionID) []byte {
	return append(b, newMessage(stun.BindingRequest, id).Raw...)
}

// AppendBindingAnswer answers a plain Binding request that came from the
// endpoint mapped.
func AppendBindingAnswer(b []byte, id TransactionID, mapped netip.AddrPort) []byte {
	m := newMessage(stun.BindingSuccess, id)
	_ = xorMapped(mapped).AddTo(m)
	return append(b, m.Raw...)
}

// MappedAddress is the XOR-MAPPED-ADDRESS of an answer to a Binding request.
func MappedAddress(m *stun.Message) (netip.AddrPort, bool) {
	if m.Type != stun.BindingSuccess {
		return netip.AddrPort{}, false
	}
	return mapped(m)
}

// AppendError answers a request with an error that nothing authenticates: whoever
// gets it takes it as a hint. A NONCE goes with 401 and 438 (RFC 8489 §9.2.4), the
// unknown attributes with 420 (§14.13).
func AppendError(b []byte, request *stun.Message, code int, nonce []byte, unknown ...stun.AttrType) []byte {
	m := newMessage(stun.NewType(request.Type.Method, stun.ClassErrorResponse), request.TransactionID)
	_ = stun.ErrorCodeAttribute{Code: stun.ErrorCode(code)}.AddTo(m)
	if len(nonce) != 0 {
		m.Add(stun.AttrNonce, nonce)
	}
	if len(unknown) != 0 {
		_ = stun.UnknownAttributes(unknown).AddTo(m)
	}
	return append(b, m.Raw...)
}

// AddFingerprint adds a FINGERPRINT (RFC 8489 §14.7) to a message that has none.
func AddFingerprint(message []byte) []byte {
	m := &stun.Message{Raw: message}
	if m.Decode() != nil {
		return message
	}
	_ = stun.Fingerprint.AddTo(m)
	return m.Raw
}
