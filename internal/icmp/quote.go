package icmp

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers of what is quoted.
const (
	protocolICMP   = 1
	protocolUDP    = 17
	protocolICMPv6 = 58
)

const (
	ip4Size   = 20
	ip6Size   = 40
	upperSize = 8 // of UDP's header, and of an echo's
)

// Quote is a packet as an error quotes it: UDP from one endpoint to another, or an echo
// request, whose identifier stands for both ports.
type Quote struct {
	Echo     bool
	From, To netip.AddrPort
	Seq      uint16 // of an echo
	Data     []byte
}

// QuoteSize is how much the headers add to the Data of a Quote.
func QuoteSize(v4 bool) int {
	if v4 {
		return ip4Size + upperSize
	}
	return ip6Size + upperSize
}

// Append encodes the packet as it may have arrived, all of it.
func (q Quote) Append(b []byte) []byte {
	start, n := len(b), upperSize+len(q.Data)
	if q.From.Addr().Is4() {
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(ip4Size+n))
		b = append(b, 0, 0, 0x40, 0, 1, q.protocol(), 0, 0) // not to be fragmented, TTL 1
		b = append(append(b, q.From.Addr().AsSlice()...), q.To.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(b[start+10:], checksum(b[start:], 0))
	} else {
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		b = append(b, q.protocol(), 1)
		b = append(append(b, q.From.Addr().AsSlice()...), q.To.Addr().AsSlice()...)
	}
	return q.appendUpper(b, n)
}

func (q Quote) protocol() byte {
	switch {
	case !q.Echo:
		return protocolUDP
	case q.From.Addr().Is4():
		return protocolICMP
	default:
		return protocolICMPv6
	}
}

func (q Quote) appendUpper(b []byte, n int) []byte {
	v4 := q.From.Addr().Is4()
	upper := len(b)
	if q.Echo {
		b = Message{Kind: EchoRequest, ID: q.From.Port(), Seq: q.Seq, Body: q.Data}.Append(b, v4)
		if !v4 {
			binary.BigEndian.PutUint16(b[upper+2:], checksum(b[upper:], q.pseudoSum(n)))
		}
		return b
	}
	b = binary.BigEndian.AppendUint16(b, q.From.Port())
	b = binary.BigEndian.AppendUint16(b, q.To.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0) // RFC 768: none, which IPv6 does not have (RFC 8200 §8.1)
	b = append(b, q.Data...)
	if !v4 {
		sum := checksum(b[upper:], q.pseudoSum(n))
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(b[upper+6:], sum)
	}
	return b
}

// pseudoSum is the sum of IPv6's pseudo-header (RFC 8200 §8.1).
func (q Quote) pseudoSum(n int) uint32 {
	sum := uint32(n) + uint32(q.protocol())
	for _, a := range []netip.Addr{q.From.Addr(), q.To.Addr()} {
		b := a.As16()
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	return sum
}

// ParseQuote decodes the packet that an error quotes. A later fragment, IPv6 with
// extension headers and other protocols are malformed: nobody here sends them. The
// Data is a part of b, and may have been cut short on the way.
func ParseQuote(b []byte) (q Quote, err error) {
	var protocol byte
	var from, to netip.Addr
	switch {
	case len(b) >= ip4Size && b[0]>>4 == 4:
		size := int(b[0]&15) * 4
		if size < ip4Size || len(b) < size || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return Quote{}, ErrMalformed
		}
		protocol = b[9]
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		b = b[size:]
	case len(b) >= ip6Size && b[0]>>4 == 6:
		protocol = b[6]
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		b = b[ip6Size:]
	default:
		return Quote{}, ErrMalformed
	}
	if len(b) < upperSize {
		return Quote{}, ErrMalformed
	}
	q.Data = b[upperSize:]
	switch {
	case protocol == protocolUDP:
		q.From = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b))
		q.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))
	case protocol == protocolICMP && from.Is4(), protocol == protocolICMPv6 && from.Is6():
		m, err := Parse(b, from.Is4())
		if err != nil || m.Kind != EchoRequest {
			return Quote{}, ErrMalformed
		}
		q.Echo, q.Seq = true, m.Seq
		q.From, q.To = netip.AddrPortFrom(from, m.ID), netip.AddrPortFrom(to, m.ID)
	default:
		return Quote{}, ErrMalformed
	}
	return q, nil
}
