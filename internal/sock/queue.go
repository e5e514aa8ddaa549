package sock

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxWaiting bounds the bursts that wait to leave, a quarter of a megabyte:
	// whoever has more waits, as for a full socket buffer.
	maxWaiting = 4
	// closeTime is how long Close waits for what waits to leave.
	closeTime = time.Second
)

// queue is what waits to leave. QUIC hands over some 20 kB at a time; while one
// burst is on its way through the system, what comes meanwhile becomes the next one,
// up to what a call can take: the faster the sender, the fewer the calls. A slow one
// never waits.
type queue struct {
	mu      sync.Mutex
	work    sync.Cond // something waits, or it is over
	room    sync.Cond // less waits, or it is over
	waiting []*burst  // the next one first
	free    []*burst
	done    chan struct{} // closed when the writer has ended; nil: it has not begun
	closed  bool
}

// burst is packets to one endpoint, all of one size but the last.
type burst struct {
	to      netip.AddrPort
	b       []byte
	segment int
}

// takes reports whether a burst can grow by another.
func (x *burst) takes(to netip.AddrPort, n, segment int) bool {
	return x.to == to && (segment == x.segment || n < x.segment && n <= segment) && len(x.b)%x.segment == 0 &&
		len(x.b)+n <= min(maxBurst, x.segment*maxSegments)
}

// Queue is SendSegments for those who do not ask whether it worked: it copies b and
// returns, and a writer sends it together with what else waits for the same endpoint.
// Packets to one endpoint leave in order.
func (s *Socket) Queue(to netip.AddrPort, b []byte, segment int) {
	if segment <= 0 || segment > len(b) {
		segment = len(b)
	}
	if !s.gso || segment == 0 || len(b) > maxBurst {
		_ = s.SendSegments(to, b, segment) // there is nothing to gain
		return
	}
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.done == nil && !q.closed {
		q.work.L, q.room.L = &q.mu, &q.mu
		q.done = make(chan struct{})
		go s.writeQueued()
	}
	for {
		if n := len(q.waiting); n > 0 && q.waiting[n-1].takes(to, len(b), segment) {
			last := q.waiting[n-1]
			last.b = append(last.b, b...)
			return
		}
		if q.closed {
			s.Dropped.Add(uint64((len(b) + segment - 1) / segment))
			return
		}
		if len(q.waiting) < maxWaiting {
			break
		}
		q.room.Wait()
	}
	var x *burst
	if n := len(q.free); n > 0 {
		x, q.free = q.free[n-1], q.free[:n-1]
	} else {
		x = new(burst)
	}
	x.to, x.segment, x.b = to, segment, append(x.b[:0], b...)
	q.waiting = append(q.waiting, x)
	q.work.Signal()
}

// writeQueued sends what waits until Close.
func (s *Socket) writeQueued() {
	q := &s.queue
	defer close(q.done)
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for len(q.waiting) == 0 {
			if q.closed {
				return
			}
			q.work.Wait()
		}
		x := q.waiting[0]
		q.waiting = q.waiting[:copy(q.waiting, q.waiting[1:])]
		q.room.Signal()
		q.mu.Unlock()
		_ = s.SendSegments(x.to, x.b, x.segment)
		q.mu.Lock()
		q.free = append(q.free, x)
	}
}

// closeQueue lets what waits leave: a goodbye is often the last of it.
func (s *Socket) closeQueue() {
	q := &s.queue
	q.mu.Lock()
	q.closed = true
	done := q.done
	if done != nil {
		q.work.Broadcast()
		q.room.Broadcast()
	}
	q.mu.Unlock()
	if done != nil {
		_ = s.udp.SetWriteDeadline(time.Now().Add(closeTime))
		<-done
	}
}
