package session

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// deadline is a moment that can be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	at    time.Time
	moved chan struct{} // closed when it moves
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.moved != nil {
		close(d.moved)
		d.moved = nil
	}
}

// watch returns what ends a wait: the deadline, or its being moved. Call stop
// after the wait.
func (d *deadline) watch() (over <-chan time.Time, moved <-chan struct{}, stop func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moved == nil {
		d.moved = make(chan struct{})
	}
	if d.at.IsZero() {
		return nil, d.moved, func() {}, nil
	}
	left := time.Until(d.at)
	if left <= 0 {
		return nil, nil, nil, os.ErrDeadlineExceeded
	}
	timer := time.NewTimer(left)
	return timer.C, d.moved, func() { timer.Stop() }, nil
}

// inbox holds received datagrams for a reader with deadlines.
type inbox struct {
	queue    chan datagram
	done     chan struct{}
	once     sync.Once
	deadline deadline
	Dropped  atomic.Uint64
}

type datagram struct {
	data []byte
	from *PacketFlow
}

func newInbox() *inbox {
	return &inbox{queue: make(chan datagram, flowQueue), done: make(chan struct{})}
}

func (i *inbox) put(d datagram) {
	select {
	case i.queue <- d:
	default:
		i.Dropped.Add(1)
	}
}

func (i *inbox) close() { i.once.Do(func() { close(i.done) }) }

func (i *inbox) get() (datagram, error) {
	for {
		over, moved, stop, err := i.deadline.watch()
		if err != nil {
			return datagram{}, err
		}
		select {
		case d := <-i.queue:
			stop()
			return d, nil
		case <-i.done:
			stop()
			return datagram{}, net.ErrClosed
		case <-moved:
			stop()
		case <-over:
		}
	}
}
