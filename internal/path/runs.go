package path

import (
	"net"

	"bodkin/internal/sock"
)

// runs is packets that wait to be read, in the pieces in which they came: what the
// kernel joined is taken apart as QUIC reads it, and a large piece is not copied
// before.
type runs struct {
	queue   []run
	head    int // the first one
	packets int
	free    [][]byte // for copies
}

// maxFree is how many buffers for copies are kept for the next ones.
const maxFree = 64

// run is packets of one source, all of one size but the last.
type run struct {
	left    []byte
	segment int
	from    *net.UDPAddr
	whole   []byte // what left is the end of
	kept    bool   // it is a buffer of the socket's, else one of ours
}

func count(b []byte, segment int) int { return (len(b) + segment - 1) / segment }

// put appends packets.
func (q *runs) put(b []byte, segment int, from *net.UDPAddr, keep bool) {
	r := run{left: b, segment: segment, from: from, whole: b, kept: keep}
	if !keep {
		r.whole = append(q.buffer(), b...)
		r.left = r.whole
	}
	if q.head > 0 && len(q.queue) == cap(q.queue) {
		q.queue, q.head = q.queue[:copy(q.queue, q.queue[q.head:])], 0
	}
	q.queue = append(q.queue, r)
	q.packets += count(b, segment)
}

// buffer is an empty one for a copy.
func (q *runs) buffer() []byte {
	n := len(q.free)
	if n == 0 {
		return make([]byte, 0, maxPacket)
	}
	b := q.free[n-1]
	q.free = q.free[:n-1]
	return b[:0]
}

// take copies the first packet to b; there must be one.
func (q *runs) take(b []byte) (int, *net.UDPAddr) {
	r := &q.queue[q.head]
	from, size := r.from, min(r.segment, len(r.left))
	n := copy(b, r.left[:size])
	r.left = r.left[size:]
	q.packets--
	if len(r.left) == 0 {
		q.drop()
	}
	return n, from
}

// drop gives the first run's memory back.
func (q *runs) drop() {
	r := &q.queue[q.head]
	if r.kept {
		sock.Release(r.whole)
	} else if len(q.free) < maxFree {
		q.free = append(q.free, r.whole)
	}
	*r = run{}
	if q.head++; q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
	}
}

func (q *runs) clear() {
	for q.head < len(q.queue) {
		q.drop()
	}
	*q = runs{}
}
