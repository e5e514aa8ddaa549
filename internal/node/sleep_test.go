package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/path"
)

// sleep puts the machine to sleep for some time, in which its NAT forgets the
// mappings: the next packet leaves from another port.
func (h *home) sleep(d time.Duration) {
	h.asleep = true
	h.w.run(d)
	h.asleep = false
	h.public = netip.AddrPortFrom(h.public.Addr(), h.public.Port()+1)
	h.opened = map[netip.AddrPort]bool{}
}

// A machine that was asleep is reached directly again within two seconds and an
// introduction, whichever side it is, for as long as sessions live; after that one
// that waits for a peer to come back asks twice a minute.
func TestMachineWakesUp(t *testing.T) {
	t.Parallel()
	for _, slept := range []time.Duration{20 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 9 * time.Minute, time.Hour} {
		for _, dialler := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v/dialler %v", slept, dialler), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 1)
				a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
				a.dial(b)
				w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
				b.retain(a)
				w.run(time.Minute)
				sleeper, within := b, 2*time.Second+limit
				if dialler {
					sleeper = a
				} else if slept > 10*time.Minute {
					within = 30*time.Second + limit
				}
				sleeper.sleep(slept)
				woke := w.now
				sleeper.step(Input{Op: Doubt})
				w.until(within, func() bool { return a.direct(b) && b.direct(a) })
				t.Logf("direct %v after waking", w.now.Sub(woke))
			})
		}
	}
}

// A peer that has gone is asked for often only while sessions wait for it.
func TestGonePeerIsAskedForLessOftenInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
	w.run(time.Minute)
	b.asleep = true
	failed := func(d time.Duration) int {
		before := len(a.happened(path.Failed, b))
		w.run(d)
		return len(a.happened(path.Failed, b)) - before
	}
	if n := failed(12 * time.Minute); n < 200 || n > 330 {
		t.Errorf("asked %d times while sessions wait", n)
	}
	if n := failed(time.Hour); n > 130 {
		t.Errorf("asked %d times in an hour after that", n)
	}
}
