package sock

import (
	"cmp"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxUnsent bounds what waits for a connection to take it. More would only be
	// late: what does not fit is dropped, as a network drops it.
	maxUnsent = 64 << 10
	// urgentRoom is what urgent packets may take beyond that.
	urgentRoom = 16 << 10
	// stallTime is how long a connection may take nothing before it is given up.
	stallTime = 30 * time.Second
)

// errFull: the connection takes less than it is given.
var errFull = errors.New("connection is too slow: packet dropped")

// A Budget bounds what waits in the outboxes that share it, in bytes.
type Budget struct {
	Limit   int64
	waiting atomic.Int64
}

// take takes n bytes if there are as many. A nil Budget has no end.
func (b *Budget) take(n int) bool {
	if b == nil {
		return true
	}
	if b.waiting.Add(int64(n)) <= b.Limit {
		return true
	}
	b.waiting.Add(-int64(n))
	return false
}

func (b *Budget) give(n int) {
	if b != nil {
		b.waiting.Add(-int64(n))
	}
}

// outbox is what waits to be written to a connection. Whoever puts something in
// never waits. What comes while the connection is busy leaves with the next write;
// while nothing waits there is neither a buffer nor a goroutine.
type outbox struct {
	conn   net.Conn
	budget *Budget

	mu      sync.Mutex
	waiting []byte
	taken   int           // of the budget, for waiting
	done    chan struct{} // closed when the writer has ended; nil: there is none
	closed  bool
	until   time.Time // when close has no more patience; zero: it was not called
	err     error     // what the connection died of
}

// largeFrom is where an outbox takes a buffer that all share: one that holds a short
// answer, while its reader is slow, must be small.
const largeFrom = 4 << 10

var largeBuffers = sync.Pool{New: func() any { return new([maxUnsent + urgentRoom]byte) }}

// room is b with room for n bytes more.
func room(b []byte, n int) []byte {
	if len(b)+n <= max(cap(b), largeFrom) {
		return b
	}
	return append(largeBuffers.Get().(*[maxUnsent + urgentRoom]byte)[:0], b...)
}

// recycle gives a buffer back.
func recycle(b []byte) {
	if cap(b) == maxUnsent+urgentRoom {
		largeBuffers.Put((*[maxUnsent + urgentRoom]byte)(b[:cap(b)]))
	}
}

// put appends what add appends, unless size bytes are too many.
func (o *outbox) put(size int, urgent bool, add func(b []byte) []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	limit := maxUnsent
	if urgent {
		limit += urgentRoom
	}
	switch {
	case o.err != nil:
		return o.err
	case o.closed:
		return net.ErrClosed
	case len(o.waiting)+size > limit || !o.budget.take(size):
		return errFull
	}
	o.taken += size
	o.waiting = add(room(o.waiting, size))
	if o.done == nil {
		o.done = make(chan struct{})
		go o.write()
	}
	return nil
}

// write writes until nothing waits.
func (o *outbox) write() {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() {
		close(o.done)
		o.done = nil
	}()
	for len(o.waiting) > 0 && o.err == nil {
		b, taken := o.waiting, o.taken
		o.waiting, o.taken = nil, 0
		deadline := time.Now().Add(stallTime)
		if !o.until.IsZero() {
			deadline = o.until
		}
		_ = o.conn.SetWriteDeadline(deadline)
		o.mu.Unlock()
		_, err := o.conn.Write(b)
		o.budget.give(taken)
		recycle(b)
		o.mu.Lock()
		if err != nil && o.err == nil {
			o.err = err
			_ = hangUp(o.conn) // a part of a frame may have left: it is of no use any more
		}
	}
	o.drop()
}

// drop forgets what waits.
func (o *outbox) drop() {
	o.budget.give(o.taken)
	recycle(o.waiting)
	o.waiting, o.taken = nil, 0
}

// finish puts a last packet behind what waits, and returns when it has been written.
// The connection stays open, for somebody else.
func (o *outbox) finish(add func(b []byte) []byte) error {
	o.mu.Lock()
	if o.closed || o.err != nil {
		defer o.mu.Unlock()
		return cmp.Or(o.err, net.ErrClosed)
	}
	o.closed = true
	o.waiting = add(o.waiting)
	if o.done == nil {
		o.done = make(chan struct{})
		go o.write()
	}
	done := o.done
	o.mu.Unlock()
	<-done
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// close closes the connection, after what waits has left if that does not take
// long: a goodbye is often the last of it.
func (o *outbox) close(patience time.Duration) error {
	o.mu.Lock()
	o.closed = true
	done := o.done
	if done != nil && patience > 0 {
		o.until = time.Now().Add(patience)
		_ = o.conn.SetWriteDeadline(o.until)
	}
	o.mu.Unlock()
	if done != nil && patience > 0 {
		<-done
	}
	return hangUp(o.conn)
}

// hangUp closes a connection without a word of TLS: that word would wait for one who
// takes nothing, some seconds, or for ever while the reader is to answer a change of keys.
// What it proves, that nothing is missing, packets have no use for.
func hangUp(c net.Conn) error {
	for {
		above, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c.Close()
		}
		c = above.NetConn()
	}
}
