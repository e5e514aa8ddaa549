package netbed

import (
	"runtime"
	"time"

	"bodkin/natlab"

	"golang.org/x/sys/unix"
)

// run steps the fabric whenever something is due in it. One thread of its own
// waits in ppoll: Go's timers are late by up to a millisecond on an idle machine.
func (c *core) run() {
	defer close(c.done)
	// The thread's own settings end with it, hence no unlock.
	runtime.LockOSThread()
	// Wake at the time, not up to 50 µs later to save power. And before others:
	// nobody but root may, and it is no more than a help.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)
	var due []natlab.Delivery
	for {
		var wait time.Duration
		var open bool
		if due, wait, open = c.take(due[:0]); !open {
			return
		}
		if wait > 0 {
			c.sleep(wait)
		}
		for i, d := range due {
			c.ends[d.Port].send(d.Frame.Bytes())
			d.Frame.Release()
			due[i] = natlab.Delivery{}
		}
	}
}

// idle is how long the thread sleeps where nothing is under way.
const idle = time.Hour

// take appends what leaves the fabric now, or says how long nothing will.
func (c *core) take(due []natlab.Delivery) (_ []natlab.Delivery, wait time.Duration, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	due, c.wakes = c.fabric.Step(now, due)
	c.asleep = len(due) == 0
	if c.asleep {
		wait = idle
		if !c.wakes.IsZero() {
			// What became due this very moment is taken in the next round.
			wait = max(c.wakes.Sub(now), 0)
		}
	}
	return due, wait, !c.closed
}

// planned wakes the thread if it sleeps for longer than the fabric can wait.
// Under the lock.
func (c *core) planned() {
	next := c.fabric.Next()
	if c.asleep && !next.IsZero() && (c.wakes.IsZero() || next.Before(c.wakes)) {
		c.asleep = false
		c.wake()
	}
}

func (c *core) sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	fds := [1]unix.PollFd{{Fd: int32(c.wakeFD), Events: unix.POLLIN}}
	if n, _ := unix.Ppoll(fds[:], &ts, nil); n > 0 {
		var b [8]byte
		_, _ = unix.Read(c.wakeFD, b[:])
	}
}

func (c *core) wake() { _, _ = unix.Write(c.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }
