package netbed

import (
	"math/rand/v2"
	"time"

	"bodkin/natlab"
)

// line is one direction of a link: it says when a packet that enters it now
// leaves it, if at all, and holds it until then. It is the scheduler's, under
// its lock. Packets leave in the order in which they came.
type line struct {
	link natlab.Link
	rng  *rand.Rand
	free int64 // when the line can take the next bit
	last int64 // when the last packet leaves

	waiting []held // from head on
	head    int
}

const (
	defaultQueue = 50 * time.Millisecond
	// maxHeld bounds the memory of a fast line with a long delay: 100 MB.
	maxHeld = 1 << 16
)

// pass is when an IP packet of n bytes that enters at a time leaves; false if it
// is lost.
func (l *line) pass(at int64, n int) (int64, bool) {
	if l.link.Loss > 0 && l.rng.Float64() < l.link.Loss {
		return at, false
	}
	if l.link.Rate > 0 {
		queue := l.link.Queue
		if queue == 0 {
			queue = defaultQueue
		}
		l.free = max(l.free, at)
		if l.free-at > int64(queue) {
			return at, false
		}
		l.free += int64(n) * 8 * int64(time.Second) / l.link.Rate
		at = l.free
	}
	at += int64(l.link.Delay)
	if l.link.Jitter > 0 {
		at += l.rng.Int64N(int64(l.link.Jitter))
	}
	l.last = max(l.last, at) // neither jitter nor a shorter delay reorders
	return l.last, true
}

func (l *line) len() int     { return len(l.waiting) - l.head }
func (l *line) first() *held { return &l.waiting[l.head] }

func (l *line) push(h held) {
	if len(l.waiting) == cap(l.waiting) && l.head > len(l.waiting)/2 {
		n := copy(l.waiting, l.waiting[l.head:])
		clear(l.waiting[n:])
		l.waiting, l.head = l.waiting[:n], 0
	}
	l.waiting = append(l.waiting, h)
}

func (l *line) pop() held {
	h := l.waiting[l.head]
	l.waiting[l.head] = held{}
	if l.head++; l.head == len(l.waiting) {
		l.waiting, l.head = l.waiting[:0], 0
	}
	return h
}

// lines is a heap by the time of each line's first packet; no line is empty.
type lines []*line

func (q lines) Len() int           { return len(q) }
func (q lines) Less(i, j int) bool { return q[i].first().at < q[j].first().at }
func (q lines) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *lines) Push(x any)        { *q = append(*q, x.(*line)) }
func (q *lines) Pop() any {
	o := *q
	l := o[len(o)-1]
	o[len(o)-1] = nil
	*q = o[:len(o)-1]
	return l
}
