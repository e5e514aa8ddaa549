package natlab

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// line is one direction of a link: it says when a packet that enters it now
// leaves it, if at all, and holds it until then. Packets leave in the order in
// which they came, but for those that Link.Reorder picks.
type line struct {
	link Link
	rng  *rand.Rand
	free int64 // when the line can take the next bit
	last int64 // when the last packet leaves

	name string // the link's
	up   bool
	to   receiver

	waiting []held // from head on, by when they leave
	head    int
	place   int // among the busy lines
}

// held is a packet on a line: when it leaves, and which entry it was, so that
// what leaves at one moment leaves in order.
type held struct {
	at    int64
	turn  uint64
	frame *Frame
}

const (
	defaultQueue = 50 * time.Millisecond
	// maxHeld bounds the memory of a fast line with a long delay: 100 MB.
	maxHeld = 1 << 16
	// overtaken is by how much a packet is late at the most that others
	// overtake, on a link without delay.
	overtaken = time.Millisecond
)

// newLine makes a line whose chances depend on the seed and its name alone: not
// on what else there is, nor on the bed.
func newLine(seed uint64, name string, up bool, link Link, to receiver) *line {
	direction := "down "
	if up {
		direction = "up "
	}
	return &line{link: link, rng: chance(seed, direction+name), name: name, up: up, to: to}
}

// chance is the stream of random numbers of something in a topology.
func chance(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// passes is what becomes of a packet on a line that is neither Lost nor Overflowed.
const passes What = 0

// pass is when an IP packet of n bytes that enters at a time leaves, if it does.
func (l *line) pass(at int64, n int) (leaves int64, fate What) {
	if l.link.Loss > 0 && l.rng.Float64() < l.link.Loss {
		return at, Lost
	}
	if l.link.Rate > 0 {
		queue := l.link.Queue
		if queue == 0 {
			queue = defaultQueue
		}
		l.free = max(l.free, at)
		if l.free-at > int64(queue) {
			return at, Overflowed
		}
		l.free += int64(n) * 8 * int64(time.Second) / l.link.Rate
		at = l.free
	}
	at += int64(l.link.Delay)
	if l.link.Jitter > 0 {
		at += l.rng.Int64N(int64(l.link.Jitter))
	}
	if l.link.Reorder > 0 && l.rng.Float64() < l.link.Reorder {
		return max(l.last, at) + l.rng.Int64N(int64(max(l.link.Delay, overtaken))), passes
	}
	l.last = max(l.last, at) // neither jitter nor a shorter delay reorders
	return l.last, passes
}

// duplicates draws whether a packet enters twice.
func (l *line) duplicates() bool {
	return l.link.Duplicate > 0 && l.rng.Float64() < l.link.Duplicate
}

func (l *line) len() int     { return len(l.waiting) - l.head }
func (l *line) first() *held { return &l.waiting[l.head] }

// push holds a packet until its time.
func (l *line) push(h held) {
	if len(l.waiting) == cap(l.waiting) && l.head > len(l.waiting)/2 {
		n := copy(l.waiting, l.waiting[l.head:])
		clear(l.waiting[n:])
		l.waiting, l.head = l.waiting[:n], 0
	}
	l.waiting = append(l.waiting, h)
	for i := len(l.waiting) - 1; i > l.head && l.waiting[i-1].at > h.at; i-- {
		l.waiting[i], l.waiting[i-1] = l.waiting[i-1], h
	}
}

func (l *line) pop() held {
	h := l.waiting[l.head]
	l.waiting[l.head] = held{}
	if l.head++; l.head == len(l.waiting) {
		l.waiting, l.head = l.waiting[:0], 0
	}
	return h
}

// lines is a heap by each line's first packet; no line in it is empty.
type lines []*line

func (q lines) Len() int { return len(q) }

func (q lines) Less(i, j int) bool {
	a, b := q[i].first(), q[j].first()
	return a.at < b.at || a.at == b.at && a.turn < b.turn
}

func (q lines) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *lines) Push(x any) {
	l := x.(*line)
	l.place = len(*q)
	*q = append(*q, l)
}

func (q *lines) Pop() any {
	o := *q
	l := o[len(o)-1]
	o[len(o)-1] = nil
	*q = o[:len(o)-1]
	return l
}
