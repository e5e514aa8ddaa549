package forward

import (
	"encoding/binary"
	"io"

	"bodkin"
)

// A datagram of a flow travels beside its stream, behind one byte that says what
// follows: contextWhole the datagram (RFC 9298 §5 uses 0 for the same), contextFirst
// and contextSecond its halves, behind a number that both have (2 bytes). What does not
// fit into two is too large to be lost as easily as that: it travels in the stream, as
// a frame. So does everything that is sent before the reply has come.
const (
	contextWhole  byte = 0
	contextFirst  byte = 1
	contextSecond byte = 2
)

const (
	maxWhole = bodkin.MaxDatagram - 1
	maxHalf  = bodkin.MaxDatagram - halfHead
	halfHead = 3
	// maxUDP is the largest payload of a UDP datagram over IPv6; over IPv4 it is 20
	// bytes less.
	maxUDP = 1<<16 - 1 - 8
)

// Frames of a flow's stream: kind (1 byte), length (2, big-endian), body.
const (
	frameDatagram byte = 0
	frameRefused  byte = 1 // nothing listens at the target, as far as can be told; empty
)

const frameHead = 3

func appendFrame(b []byte, kind byte, body []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kind), uint16(len(body)))
	return append(b, body...)
}

// readFrame reads a frame into buf, which has room for maxUDP bytes.
func readFrame(r io.Reader, buf []byte) (kind byte, body []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if head[0] > frameRefused || n > maxUDP || head[0] == frameRefused && n > 0 {
		return 0, nil, errMalformed
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, err
	}
	return head[0], buf[:n], nil
}

// splitter turns datagrams into packets.
type splitter struct {
	number uint16
	buf    []byte
}

// packets are those that a datagram travels in, valid until the next call; none if it
// is too large.
func (s *splitter) packets(b []byte) (first, second []byte) {
	switch {
	case len(b) <= maxWhole:
		s.buf = append(append(s.buf[:0], contextWhole), b...)
		return s.buf, nil
	case len(b) <= 2*maxHalf:
		s.number++
		half := (len(b) + 1) / 2
		s.buf = binary.BigEndian.AppendUint16(append(s.buf[:0], contextFirst), s.number)
		s.buf = append(append(s.buf, b[:half]...), contextSecond)
		s.buf = append(binary.BigEndian.AppendUint16(s.buf, s.number), b[half:]...)
		return s.buf[:half+halfHead], s.buf[half+halfHead:]
	}
	return nil, nil
}

// joiner turns packets into datagrams again. A half waits for its other one until
// another takes its place.
type joiner struct {
	halves [16]struct {
		waits  bool
		number uint16
		kind   byte
		data   []byte
	}
	buf []byte
}

// join takes in a packet and returns a datagram that is whole now, valid until the
// next call.
func (j *joiner) join(b []byte) (datagram []byte, whole bool) {
	if len(b) == 0 {
		return nil, false
	}
	if b[0] == contextWhole {
		return b[1:], true
	}
	if b[0] > contextSecond || len(b) < halfHead {
		return nil, false
	}
	kind, number, data := b[0], binary.BigEndian.Uint16(b[1:]), b[halfHead:]
	h := &j.halves[int(number)%len(j.halves)]
	if !h.waits || h.number != number || h.kind == kind {
		h.waits, h.number, h.kind = true, number, kind
		h.data = append(h.data[:0], data...)
		return nil, false
	}
	h.waits = false
	if kind == contextFirst {
		j.buf = append(append(j.buf[:0], data...), h.data...)
	} else {
		j.buf = append(append(j.buf[:0], h.data...), data...)
	}
	return j.buf, true
}
