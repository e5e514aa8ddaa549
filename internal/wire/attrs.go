package wire

import (
	"encoding/binary"
	"errors"
	"iter"
	"net/netip"

	"github.com/pion/stun/v3"
)

// ErrMalformed is wrapped by every error about bytes that are not a message.
var ErrMalformed = errors.New("malformed message")

// Attrs is a run of STUN attributes (RFC 8489 §14) without a message around it:
// the content of a SEALED, BOX or OFFER.
type Attrs []byte

// Add appends an attribute, padded to four bytes. Everything that a message
// carries is far from the 65,535 bytes that the length can say.
func (a *Attrs) Add(t stun.AttrType, value []byte) {
	*a = binary.BigEndian.AppendUint16(*a, uint16(t))
	*a = binary.BigEndian.AppendUint16(*a, uint16(len(value)))
	*a = append(*a, value...)
	for len(*a)%4 != 0 {
		*a = append(*a, 0)
	}
}

// AddUint32 and AddUint64 append a number.
func (a *Attrs) AddUint32(t stun.AttrType, v uint32) {
	a.Add(t, binary.BigEndian.AppendUint32(nil, v))
}

// AddUint64 appends a number of eight bytes.
func (a *Attrs) AddUint64(t stun.AttrType, v uint64) {
	a.Add(t, binary.BigEndian.AppendUint64(nil, v))
}

// AddChannel appends a channel number.
func (a *Attrs) AddChannel(c Channel) {
	a.Add(AttrChannel, binary.BigEndian.AppendUint16(nil, uint16(c)))
}

// All yields the attributes in order. It ends early at the first one that is
// cut short; Check tells.
func (a Attrs) All() iter.Seq2[stun.AttrType, []byte] {
	return func(yield func(stun.AttrType, []byte) bool) {
		for b := a; len(b) >= 4; {
			n := int(binary.BigEndian.Uint16(b[2:]))
			padded := 4 + (n+3)&^3
			if padded > len(b) || !yield(stun.AttrType(binary.BigEndian.Uint16(b)), b[4:4+n]) {
				return
			}
			b = b[padded:]
		}
	}
}

// Check reports whether the run is whole: every attribute complete, nothing
// left over.
func (a Attrs) Check() error {
	for len(a) >= 4 {
		padded := 4 + (int(binary.BigEndian.Uint16(a[2:]))+3)&^3
		if padded > len(a) {
			return ErrMalformed
		}
		a = a[padded:]
	}
	if len(a) != 0 {
		return ErrMalformed
	}
	return nil
}

// Get is the first attribute of that type.
func (a Attrs) Get(t stun.AttrType) ([]byte, bool) {
	for u, v := range a.All() {
		if u == t {
			return v, true
		}
	}
	return nil, false
}

// Uint32 is a number of four bytes; false where it is absent or of another size.
func (a Attrs) Uint32(t stun.AttrType) (uint32, bool) {
	if v, _ := a.Get(t); len(v) == 4 {
		return binary.BigEndian.Uint32(v), true
	}
	return 0, false
}

// Uint64 is a number of eight bytes; false where it is absent or of another size.
func (a Attrs) Uint64(t stun.AttrType) (uint64, bool) {
	if v, _ := a.Get(t); len(v) == 8 {
		return binary.BigEndian.Uint64(v), true
	}
	return 0, false
}

// Channel is the channel number in the run.
func (a Attrs) Channel() (Channel, bool) {
	if v, _ := a.Get(AttrChannel); len(v) == 2 {
		return Channel(binary.BigEndian.Uint16(v)), true
	}
	return 0, false
}

// AppendEndpoint appends a valid endpoint: its family (4 or 6), port and address,
// 7 or 19 bytes. An IPv4-mapped IPv6 address counts as IPv4.
func AppendEndpoint(b []byte, e netip.AddrPort) []byte {
	addr := e.Addr().Unmap()
	family := byte(6)
	if addr.Is4() {
		family = 4
	}
	b = binary.BigEndian.AppendUint16(append(b, family), e.Port())
	return append(b, addr.AsSlice()...)
}

// CutEndpoint reads one endpoint and returns what follows it.
func CutEndpoint(b []byte) (e netip.AddrPort, rest []byte, err error) {
	if len(b) < 3 {
		return e, nil, ErrMalformed
	}
	var size int
	switch b[0] {
	case 4:
		size = 4
	case 6:
		size = 16
	default:
		return e, nil, ErrMalformed
	}
	if len(b) < 3+size {
		return e, nil, ErrMalformed
	}
	addr, _ := netip.AddrFromSlice(b[3 : 3+size])
	if addr.Is4In6() {
		return e, nil, ErrMalformed
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[1:])), b[3+size:], nil
}

// AppendEndpoints appends endpoints one behind the other.
func AppendEndpoints(b []byte, es ...netip.AddrPort) []byte {
	for _, e := range es {
		b = AppendEndpoint(b, e)
	}
	return b
}

// ParseEndpoints reads a run of endpoints, limit at the most.
func ParseEndpoints(b []byte, limit int) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for len(b) > 0 {
		e, rest, err := CutEndpoint(b)
		if err != nil || len(out) == limit {
			return nil, ErrMalformed
		}
		out, b = append(out, e), rest
	}
	return out, nil
}
