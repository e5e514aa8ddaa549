package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/pion/stun/v3"
)

// AttrIntegrity is MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6): pion/stun has its
// number, but nothing that computes it.
const AttrIntegrity = stun.AttrMessageIntegritySHA256

const integritySize = 4 + sha256.Size

// Integrity adds and checks a MESSAGE-INTEGRITY-SHA256 under a 32-byte key, as
// the last attribute of its message.
type Integrity [32]byte

// AddTo implements [stun.Setter].
func (k *Integrity) AddTo(m *stun.Message) error {
	m.WriteHeader()
	mac := k.sum(m.Raw)
	m.Add(AttrIntegrity, mac[:])
	return nil
}

// Check implements [stun.Checker]: the attribute is there, whole, last and right.
func (k *Integrity) Check(m *stun.Message) error {
	body := len(m.Raw) - integritySize
	if body < 20 ||
		stun.AttrType(binary.BigEndian.Uint16(m.Raw[body:])) != AttrIntegrity ||
		binary.BigEndian.Uint16(m.Raw[body+2:]) != sha256.Size {
		return ErrMalformed
	}
	want := k.sum(m.Raw[:body])
	if !hmac.Equal(want[:], m.Raw[body+4:]) {
		return stun.ErrIntegrityMismatch
	}
	return nil
}

// sum is the HMAC over the message so far, "adjusting the length field in the
// header to include the attribute itself" (RFC 8489 §14.6).
func (k *Integrity) sum(raw []byte) (mac [sha256.Size]byte) {
	var header [20]byte
	copy(header[:], raw)
	binary.BigEndian.PutUint16(header[2:], uint16(len(raw)-20+integritySize))
	h := hmac.New(sha256.New, k[:])
	h.Write(header[:])
	h.Write(raw[20:])
	h.Sum(mac[:0])
	return mac
}

// Decode reads a STUN message from one packet: header, cookie and attributes
// well-formed, nothing behind it. The message keeps no reference to b.
func Decode(b []byte) (*stun.Message, error) {
	m := new(stun.Message)
	if err := DecodeTo(m, b); err != nil {
		return nil, err
	}
	return m, nil
}

// DecodeTo is Decode into the memory of a message that nobody needs any more.
func DecodeTo(m *stun.Message, b []byte) error {
	// pion/stun reads a type past its two zero bits (RFC 8489 §5), and so would
	// take one message for another.
	if Classify(b, false) != ClassSTUN || len(b) > maxSize(b) || int(binary.BigEndian.Uint16(b[2:])) != len(b)-20 {
		return ErrMalformed
	}
	m.Raw = append(m.Raw[:0], b...)
	if m.Decode() != nil {
		return ErrMalformed
	}
	return nil
}

// IsBindingRequest reports whether a packet begins like a Binding request.
func IsBindingRequest(b []byte) bool {
	return len(b) >= 2 && binary.BigEndian.Uint16(b) == stun.BindingRequest.Value()
}

// maxSize is how long a message that begins like b may be.
func maxSize(b []byte) int {
	if binary.BigEndian.Uint16(b)&^0x0110 == uint16(stun.MethodBinding) {
		return MaxPadded
	}
	return MaxMessage
}
