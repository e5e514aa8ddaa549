package conform

import (
	"bytes"
	"encoding/binary"
	"slices"

	"bodkin/natlab"
)

// measureFragments sends a datagram in two pieces, in order and the other way
// round (RFC 4787 §11).
func (s *suite) measureFragments(m *Rest) {
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	if !s.reaches(s.in[0], p, endpoint(s.out[0], q), s.out[0]) {
		return
	}
	whole := func(backwards bool) bool {
		marks := [2][]byte{s.token(), s.token()}
		data := slices.Concat(marks[0], make([]byte, 40), marks[1])
		ip := natlab.AppendUDP(nil, endpoint(s.in[0], p), endpoint(s.out[0], q), 64, data)
		pieces := cut(ip, uint16(s.mark), 32)
		if backwards {
			slices.Reverse(pieces)
		}
		n := len(s.out[0].Arrived())
		for _, b := range pieces {
			check(s.in[0].SendIP(b))
		}
		s.settle()
		for _, mark := range marks {
			if _, ok := arrival(s.out[0], n, func(a Arrival) bool { return bytes.Contains(a.Data, mark) || bytes.Contains(a.Payload, mark) }); !ok {
				return false
			}
		}
		// A host's own system may make one of two pieces; then these have come, too.
		_, inPieces := arrival(s.out[0], n, func(a Arrival) bool { return bytes.Contains(a.Data, marks[0]) })
		m.Rejoined = !inPieces
		return true
	}
	m.Fragments = Dropped
	if whole(false) {
		m.Fragments = InOrder
		if whole(true) {
			m.Fragments = AnyOrder
		}
	}
}

// cut makes two fragments of an IPv4 packet, the first with n bytes.
func cut(ip []byte, id uint16, n int) [][]byte {
	const header = 20
	piece := func(from, to int, word uint16) []byte {
		b := slices.Concat(ip[:header], ip[header+from:header+to])
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], id)
		binary.BigEndian.PutUint16(b[6:], word)
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], checksum(b[:header]))
		return b
	}
	const more = 0x2000
	return [][]byte{piece(0, n, more), piece(n, len(ip)-header, uint16(n/8))}
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
