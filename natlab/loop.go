package natlab

import (
	"container/heap"
	"time"
)

// Loop is an event loop in virtual time: nothing takes time but waiting. It has
// one thread, its caller's, and so the same program does the same every time. It
// is not safe for concurrent use. The zero Loop begins at the zero time.
type Loop struct {
	now    time.Time
	timers timers
	turn   uint64
}

// NewLoop makes a loop that begins at a time.
func NewLoop(start time.Time) *Loop { return &Loop{now: start} }

// Now is the virtual time.
func (l *Loop) Now() time.Time { return l.now }

// Timer is something that a Loop will do.
type Timer struct {
	loop  *Loop
	at    time.Time
	turn  uint64
	do    func()
	place int // among the loop's timers; -1 if not waiting
}

// NewTimer makes a timer for which nothing is planned yet: see Reset.
func (l *Loop) NewTimer(do func()) *Timer { return &Timer{loop: l, do: do, place: -1} }

// At does something at a time, or at once where that is over: after what is
// planned for the same time already, and never within the call.
func (l *Loop) At(t time.Time, do func()) *Timer {
	x := l.NewTimer(do)
	x.Reset(t)
	return x
}

// After does something later.
func (l *Loop) After(d time.Duration, do func()) *Timer { return l.At(l.now.Add(d), do) }

// Reset plans the timer for another time, or once more.
func (t *Timer) Reset(at time.Time) {
	t.Stop()
	if at.Before(t.loop.now) {
		at = t.loop.now
	}
	t.loop.turn++
	t.at, t.turn = at, t.loop.turn
	heap.Push(&t.loop.timers, t)
}

// Stop forgets what was planned. It reports whether something was.
func (t *Timer) Stop() bool {
	if t.place < 0 {
		return false
	}
	heap.Remove(&t.loop.timers, t.place)
	return true
}

// Next does the next thing; false if nothing is planned.
func (l *Loop) Next() bool {
	if len(l.timers) == 0 {
		return false
	}
	t := heap.Pop(&l.timers).(*Timer)
	l.now = t.at
	t.do()
	return true
}

// Run goes on until done says so, asked after each step, or for that long. It
// reports whether done did; with a nil done it goes on for that long.
func (l *Loop) Run(d time.Duration, done func() bool) bool {
	end := l.now.Add(d)
	for {
		if done != nil && done() {
			return true
		}
		if len(l.timers) == 0 || l.timers[0].at.After(end) {
			l.now = end
			return false
		}
		l.Next()
	}
}

// timers is a heap by time; what is planned for one time is done in turn.
type timers []*Timer

func (q timers) Len() int { return len(q) }

func (q timers) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].turn < q[j].turn
}

func (q timers) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *timers) Push(x any) {
	t := x.(*Timer)
	t.place = len(*q)
	*q = append(*q, t)
}

func (q *timers) Pop() any {
	o := *q
	t := o[len(o)-1]
	o[len(o)-1], t.place = nil, -1
	*q = o[:len(o)-1]
	return t
}
