package netbed

import (
	"container/heap"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"bodkin/natlab"

	"golang.org/x/sys/unix"
)

// scheduler holds packets until it is their time. One thread of its own waits in
// ppoll: Go's timers are late by up to a millisecond on an idle machine. Times
// are in nanoseconds since the scheduler began.
type scheduler struct {
	// arrive takes a packet that has come to the core and goes on to a spoke.
	arrive func(at int64, to *spoke, f *frame)
	base   time.Time
	wakeFD int
	done   chan struct{}
	// overflowed counts packets that found a line with maxHeld in it.
	overflowed atomic.Uint64

	mu sync.Mutex
	// busy is a heap of the lines that hold packets, by their first one's time.
	busy lines
	// asleep is until when the thread sleeps, 0 while it does not.
	asleep int64
	closed bool
}

// frame is an Ethernet frame on its way.
type frame struct {
	n    int
	data [maxFrame]byte
}

func (f *frame) bytes() []byte { return f.data[:f.n] }

var frames = sync.Pool{New: func() any { return new(frame) }}

// copyOf is a copy of a frame to hold.
func copyOf(b []byte) *frame {
	f := frames.Get().(*frame)
	f.n = copy(f.data[:], b)
	return f
}

// held is a packet on its way: out of a port or, first, through what follows,
// which takes the frame over at that time.
type held struct {
	at    int64
	frame *frame
	out   *port
	then  *spoke
}

func newScheduler(arrive func(int64, *spoke, *frame)) (*scheduler, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	s := &scheduler{arrive: arrive, base: time.Now(), wakeFD: fd, done: make(chan struct{})}
	go s.run()
	return s, nil
}

func (s *scheduler) now() int64 { return int64(time.Since(s.base)) }

// enter sends a packet down a line at a time; the line may lose it.
func (s *scheduler) enter(at int64, l *line, h held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ok bool
	if h.at, ok = l.pass(at, h.frame.n-frameHeader); !ok || s.closed {
		frames.Put(h.frame)
		return
	}
	if l.len() >= maxHeld {
		s.overflowed.Add(1)
		frames.Put(h.frame)
		return
	}
	if l.push(h); l.len() == 1 {
		heap.Push(&s.busy, l)
	}
	if h.at < s.asleep {
		s.asleep = 0
		s.wake()
	}
}

// set changes what lines do to packets that enter them from now on.
func (s *scheduler) set(link natlab.Link, all ...*line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range all {
		l.link = link
	}
}

// run sends each packet at its time.
func (s *scheduler) run() {
	defer close(s.done)
	// The thread's own settings end with it, hence no unlock.
	runtime.LockOSThread()
	// Wake at the time, not up to 50 µs later to save power. And before others:
	// nobody but root may, and it is no more than a help.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)
	var due []held
	for {
		var wait int64
		var open bool
		if due, wait, open = s.take(due[:0]); !open {
			return
		}
		if len(due) == 0 {
			s.sleep(wait)
		}
		for i := range due {
			s.deliver(due[i])
			due[i] = held{}
		}
	}
}

// atOnce bounds what is taken at a time, so that what falls due meanwhile on
// another line is not late.
const atOnce = 32

// take appends what is due, or says how long nothing will be.
func (s *scheduler) take(due []held) (_ []held, wait int64, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep = 0
	now := s.now()
	for len(s.busy) > 0 && len(due) < atOnce {
		l := s.busy[0]
		if l.first().at > now {
			break
		}
		due = append(due, l.pop())
		if l.len() == 0 {
			heap.Pop(&s.busy)
		} else {
			heap.Fix(&s.busy, 0)
		}
	}
	if len(due) == 0 {
		s.asleep = math.MaxInt64
		wait = int64(time.Hour)
		if len(s.busy) > 0 {
			s.asleep = s.busy[0].first().at
			wait = s.asleep - now
		}
	}
	return due, wait, !s.closed
}

func (s *scheduler) deliver(h held) {
	if h.then != nil {
		s.arrive(h.at, h.then, h.frame)
		return
	}
	h.out.write(h.frame.bytes())
	frames.Put(h.frame)
}

func (s *scheduler) sleep(d int64) {
	ts := unix.NsecToTimespec(d)
	fds := [1]unix.PollFd{{Fd: int32(s.wakeFD), Events: unix.POLLIN}}
	if n, _ := unix.Ppoll(fds[:], &ts, nil); n > 0 {
		var b [8]byte
		_, _ = unix.Read(s.wakeFD, b[:])
	}
}

func (s *scheduler) wake() { _, _ = unix.Write(s.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// close ends the thread; packets on their way are lost.
func (s *scheduler) close() {
	s.mu.Lock()
	s.closed = true
	s.wake()
	s.mu.Unlock()
	<-s.done
	_ = unix.Close(s.wakeFD)
}
