package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/pion/stun/v3"
)

// Families of STUN's addresses (RFC 8489 §14.1).
const (
	family4 = 0x01
	family6 = 0x02
)

// appendAddress appends an attribute of MAPPED-ADDRESS's form (RFC 8489 §14.1),
// XORed as §14.2 says if id is given.
func appendAddress(b []byte, t stun.AttrType, e netip.AddrPort, id *TransactionID) []byte {
	addr := e.Addr().Unmap()
	size, family := 4, uint16(family4)
	if !addr.Is4() {
		size, family = 16, family6
	}
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	b = binary.BigEndian.AppendUint16(b, uint16(4+size))
	b = binary.BigEndian.AppendUint16(b, family)
	b = binary.BigEndian.AppendUint16(b, e.Port())
	if a := addr.As16(); size == 4 {
		b = append(b, a[12:]...)
	} else {
		b = append(b, a[:]...)
	}
	if id != nil {
		xorAddress(b[len(b)-2-size:], id)
	}
	return b
}

// xorAddress turns port and address into the XORed ones, and back.
func xorAddress(v []byte, id *TransactionID) {
	var mask [4 + len(id)]byte
	binary.BigEndian.PutUint32(mask[:], magicCookie)
	copy(mask[4:], id[:])
	v[0], v[1] = v[0]^mask[0], v[1]^mask[1]
	for i := range v[2:] {
		v[2+i] ^= mask[i]
	}
}

// parseAddress reads an address of MAPPED-ADDRESS's form; false where it is cut
// short, too long or of another family.
func parseAddress(v []byte, id *TransactionID) (netip.AddrPort, bool) {
	if len(v) < 4 {
		return netip.AddrPort{}, false
	}
	size := map[byte]int{family4: 4, family6: 16}[v[1]]
	if size == 0 || len(v) != 4+size {
		return netip.AddrPort{}, false
	}
	var own [2 + 16]byte
	w := own[:2+copy(own[2:], v[4:])]
	copy(w, v[2:4])
	if id != nil {
		xorAddress(w, id)
	}
	a, _ := netip.AddrFromSlice(w[2:])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(w)), true
}

// mapped is the XOR-MAPPED-ADDRESS of a message.
func mapped(m *stun.Message) (netip.AddrPort, bool) {
	v, err := m.Get(stun.AttrXORMappedAddress)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return parseAddress(v, &m.TransactionID)
}
