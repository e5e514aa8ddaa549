package netbed

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"

	"bodkin/natlab"

	"golang.org/x/sys/unix"
)

// scheduler holds packets until it is their time. One thread of its own waits in
// ppoll: Go's timers are late by up to a millisecond on an idle machine.
type scheduler struct {
	// arrive takes a packet that has come to the core and goes on to a spoke.
	arrive func(at time.Time, to *spoke, frame *[]byte)
	mu     sync.Mutex
	queue  packets
	serial uint64
	wakeFD int
	done   chan struct{}
	closed bool
}

// held is a packet on its way: out of a port or, first, through what follows,
// which takes the frame over at that time.
type held struct {
	at     time.Time
	serial uint64
	frame  *[]byte
	out    *port
	then   *spoke
}

type packets []held

func (q packets) Len() int { return len(q) }
func (q packets) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].serial < q[j].serial
}
func (q packets) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *packets) Push(x any)   { *q = append(*q, x.(held)) }
func (q *packets) Pop() any {
	o := *q
	h := o[len(o)-1]
	o[len(o)-1] = held{}
	*q = o[:len(o)-1]
	return h
}

var frames = sync.Pool{New: func() any { b := make([]byte, 0, maxFrame); return &b }}

func newScheduler(arrive func(time.Time, *spoke, *[]byte)) (*scheduler, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	s := &scheduler{arrive: arrive, wakeFD: fd, done: make(chan struct{})}
	go s.run()
	return s, nil
}

// copyOf is a copy of a frame to hold.
func copyOf(frame []byte) *[]byte {
	b := frames.Get().(*[]byte)
	*b = append((*b)[:0], frame...)
	return b
}

// put holds a packet until its time.
func (s *scheduler) put(h held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.serial++
	h.serial = s.serial
	first := len(s.queue) == 0 || h.at.Before(s.queue[0].at)
	heap.Push(&s.queue, h)
	if first {
		s.wake()
	}
}

func (s *scheduler) wake() { _, _ = unix.Write(s.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// run sends each packet at its time.
func (s *scheduler) run() {
	defer close(s.done)
	var due []held
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return
		}
		now := time.Now()
		for len(s.queue) > 0 && !s.queue[0].at.After(now) {
			due = append(due, heap.Pop(&s.queue).(held))
		}
		wait := time.Hour
		if len(s.queue) > 0 {
			wait = s.queue[0].at.Sub(now)
		}
		s.mu.Unlock()
		for i, h := range due {
			due[i] = held{}
			if h.then != nil {
				s.arrive(h.at, h.then, h.frame)
				continue
			}
			h.out.write(*h.frame)
			frames.Put(h.frame)
		}
		if len(due) == 0 {
			s.sleep(wait)
		}
		due = due[:0]
	}
}

func (s *scheduler) sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	fds := []unix.PollFd{{Fd: int32(s.wakeFD), Events: unix.POLLIN}}
	if n, _ := unix.Ppoll(fds, &ts, nil); n > 0 {
		var b [8]byte
		_, _ = unix.Read(s.wakeFD, b[:])
	}
}

func (s *scheduler) close() {
	s.mu.Lock()
	s.closed = true
	s.wake()
	s.mu.Unlock()
	<-s.done
	_ = unix.Close(s.wakeFD)
}

// line is one direction of a link: it says when a packet that enters it now
// leaves it, if at all.
type line struct {
	mu   sync.Mutex
	link natlab.Link
	rng  *rand.Rand
	free time.Time // when the line can take the next bit
	last time.Time // when the last packet leaves
}

const defaultQueue = 50 * time.Millisecond

func (l *line) set(link natlab.Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = link
}

// pass is when a packet of n bytes that enters at the time at leaves; false if
// it is lost.
func (l *line) pass(at time.Time, n int) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.link.Loss > 0 && l.rng.Float64() < l.link.Loss {
		return at, false
	}
	if l.link.Rate > 0 {
		queue := l.link.Queue
		if queue == 0 {
			queue = defaultQueue
		}
		if l.free.Before(at) {
			l.free = at
		}
		if l.free.Sub(at) > queue {
			return at, false
		}
		l.free = l.free.Add(time.Duration(int64(n) * 8 * int64(time.Second) / l.link.Rate))
		at = l.free
	}
	at = at.Add(l.link.Delay)
	if l.link.Jitter > 0 {
		at = at.Add(time.Duration(l.rng.Int64N(int64(l.link.Jitter))))
	}
	if at.Before(l.last) {
		at = l.last // jitter does not reorder
	}
	l.last = at
	return at, true
}
