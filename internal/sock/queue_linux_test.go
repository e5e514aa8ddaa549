package sock

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// gated lets calls through one at a time, and tells their sizes. It sends from a
// socket of its own, which the time that Close gives does not bind.
type gated struct {
	*net.UDPConn
	entered chan int
	pass    chan struct{}
	err     error // instead of sending in a burst
}

func (g *gated) WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (int, int, error) {
	g.entered <- len(b)
	<-g.pass
	if g.err != nil && len(oob) > 0 {
		return 0, 0, g.err
	}
	return g.UDPConn.WriteMsgUDPAddrPort(b, oob, to)
}

// queueing are a sender whose calls are gated, and what its peer receives.
func queueing(t *testing.T) (a *Socket, out *gated, b *Socket, atB <-chan packet) {
	t.Helper()
	a, b = open(t, System{}, "udp4"), open(t, System{}, "udp4")
	if !a.gso {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	out = &gated{UDPConn: open(t, System{}, "udp4").udp, entered: make(chan int), pass: make(chan struct{})}
	a.out = out
	return a, out, b, reading(t, b)
}

func TestWhatWaitsLeavesTogether(t *testing.T) {
	t.Parallel()
	a, out, b, atB := queueing(t)
	first, wantFirst := segments(16*1228, 1228)
	a.Queue(b.Local(), first, 1228)
	if n := <-out.entered; n != len(first) {
		t.Fatalf("the first call has %d bytes", n)
	}
	// While it is on its way: bursts of the same size, and a shorter tail.
	full, wantFull := segments(16*1228, 1228)
	tail, wantTail := segments(1228+700, 1228)
	small := []byte("a small one")
	a.Queue(b.Local(), full, 1228)
	a.Queue(b.Local(), full, 1228)
	a.Queue(b.Local(), tail, 1228)
	a.Queue(b.Local(), small, 0)
	out.pass <- struct{}{}
	if n := <-out.entered; n != 2*len(full)+len(tail) {
		t.Errorf("the second call has %d bytes, want %d", n, 2*len(full)+len(tail))
	}
	out.pass <- struct{}{}
	if n := <-out.entered; n != len(small) {
		t.Errorf("the third call has %d bytes, want %d", n, len(small))
	}
	out.pass <- struct{}{}
	want := append(append(append(append(wantFirst, wantFull...), wantFull...), wantTail...), small)
	for i, w := range want {
		if got := <-atB; !bytes.Equal(got.data, w) {
			t.Fatalf("packet %d has %d bytes, want %d", i, len(got.data), len(w))
		}
	}
}

func TestBurstTakes(t *testing.T) {
	t.Parallel()
	to, other := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
	for name, c := range map[string]struct {
		burst      burst
		to         netip.AddrPort
		n, segment int
		want       bool
	}{
		"the same size":              {burst{to, make([]byte, 2000), 1000}, to, 3000, 1000, true},
		"a shorter tail":             {burst{to, make([]byte, 2000), 1000}, to, 1500, 1000, true},
		"one that is shorter":        {burst{to, make([]byte, 2000), 1000}, to, 500, 500, true},
		"some that are shorter":      {burst{to, make([]byte, 2000), 1000}, to, 900, 500, false},
		"larger ones":                {burst{to, make([]byte, 2000), 1000}, to, 1001, 1001, false},
		"another endpoint":           {burst{to, make([]byte, 2000), 1000}, other, 1000, 1000, false},
		"after a shorter one":        {burst{to, make([]byte, 2500), 1000}, to, 1000, 1000, false},
		"more than a packet carries": {burst{to, make([]byte, 64_000), 1000}, to, 2000, 1000, false},
		"more than the kernel cuts":  {burst{to, make([]byte, 64*40), 40}, to, 40, 40, false},
	} {
		if got := c.burst.takes(c.to, c.n, c.segment); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whoever queues more than may wait is held up until some of it has left.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	a, out, b, atB := queueing(t)
	const packets = 3 * maxWaiting
	var queued sync.WaitGroup
	queued.Go(func() {
		for i := range packets {
			a.Queue(b.Local(), bytes.Repeat([]byte{byte(i)}, 10+i), 0) // none joins the one before
		}
	})
	for i := range packets {
		if n := <-out.entered; n != 10+i {
			t.Fatalf("call %d has %d bytes", i, n)
		}
		a.queue.mu.Lock()
		if n := len(a.queue.waiting); n > maxWaiting {
			t.Errorf("%d wait", n)
		}
		a.queue.mu.Unlock()
		out.pass <- struct{}{}
		if got := <-atB; len(got.data) != 10+i || got.data[0] != byte(i) {
			t.Errorf("packet %d is %d bytes of %d", i, len(got.data), got.data[0])
		}
	}
	queued.Wait()
}

func TestCloseLetsTheQueueLeave(t *testing.T) {
	t.Parallel()
	a, out, b, atB := queueing(t)
	for i := range maxWaiting {
		a.Queue(b.Local(), make([]byte, 100+i), 0)
	}
	closed := make(chan error)
	go func() { closed <- a.Close() }()
	for i := range maxWaiting {
		<-out.entered
		out.pass <- struct{}{}
		if got := <-atB; len(got.data) != 100+i {
			t.Errorf("packet %d has %d bytes", i, len(got.data))
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	a.Queue(b.Local(), make([]byte, 3000), 1000)
	if d := a.Dropped.Load(); d != 3 {
		t.Errorf("%d dropped after the end, want 3", d)
	}
}

func TestQueuedBurstThatIsRefusedLeavesOneByOne(t *testing.T) {
	t.Parallel()
	a, out, b, atB := queueing(t)
	out.err = unix.EIO
	sent, want := segments(3000, 1000)
	a.Queue(b.Local(), sent, 1000)
	for _, n := range []int{3000, 1000, 1000, 1000} {
		if got := <-out.entered; got != n {
			t.Errorf("a call of %d bytes, want %d", got, n)
		}
		out.pass <- struct{}{}
	}
	for range want {
		<-atB
	}
}

// What a Deliver keeps stays as it is while more comes in.
func TestKeptBytesStay(t *testing.T) {
	t.Parallel()
	a, b := open(t, System{}, "udp4"), open(t, System{}, "udp4")
	if !b.gro {
		t.Skip("this kernel has no UDP_GRO")
	}
	kept := make(chan []byte, 64)
	done := make(chan error, 1)
	go func() {
		done <- b.ReadRuns(func(_ netip.AddrPort, p []byte, _ int) bool {
			kept <- p
			return true
		})
	}()
	const rounds = 40 // more than a reader has buffers
	var all [][]byte
	for i := range rounds {
		if err := a.SendSegments(b.Local(), bytes.Repeat([]byte{byte(i)}, 3000), 1000); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 3000; {
			p := <-kept
			all = append(all, p)
			n += len(p)
		}
	}
	for _, p := range all {
		if !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
			t.Error("kept bytes were written to")
		}
		Release(p)
	}
	_ = b.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
