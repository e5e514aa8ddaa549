package wire

import (
	"net"
	"net/netip"

	"github.com/pion/stun/v3"
)

func xorMapped(e netip.AddrPort) *stun.XORMappedAddress {
	return &stun.XORMappedAddress{IP: e.Addr().Unmap().AsSlice(), Port: int(e.Port())}
}

func addrPort(ip net.IP, port int) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), uint16(port))
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
	var x stun.XORMappedAddress
	if m.Type != stun.BindingSuccess || x.GetFrom(m) != nil {
		return netip.AddrPort{}, false
	}
	return addrPort(x.IP, x.Port), true
}
