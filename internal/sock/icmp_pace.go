package sock

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// icmpRate is how many bytes a second leave in ICMP, headers aside: networks
	// police it, and routers have better things to do than to look at it. 8 Mbit/s
	// is what a flood of pings must not exceed on a slow home line.
	icmpRate = 1 << 20
	// icmpBurst may leave at once, and packets of the control plane may borrow as
	// much again.
	icmpBurst = 32 << 10
	// maxQueued bounds what waits, in bytes: 64 ms at that rate. What does not fit is
	// dropped, as a network drops it.
	maxQueued = 64 << 10
)

// errPaced says that a packet would be above the rate of ICMP.
var errPaced = errors.New("packet dropped: it is above the rate that ICMP is kept to")

// parcel is a packet for an ICMP socket.
type parcel struct {
	way  Way
	to   netip.AddrPort
	data []byte
}

// bucket is a token bucket in bytes, which may go into debt.
type bucket struct {
	tokens float64
	at     time.Time
}

// fill adds what has come since the last time.
func (b *bucket) fill(now time.Time) {
	if b.at.IsZero() {
		b.tokens = icmpBurst
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(icmpBurst, b.tokens+d.Seconds()*icmpRate)
	}
	b.at = now
}

// wait is how long it takes until there is something in the bucket again.
func (b *bucket) wait() time.Duration {
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / icmpRate * float64(time.Second))
}

// pacer sends packets at the rate of ICMP. Nobody waits for it: a goroutine exists while
// packets do.
type pacer struct {
	write func(parcel) error

	mu      sync.Mutex
	bucket  bucket
	waiting []parcel
	size    int
	running bool
	wake    chan struct{} // closed at the end
	closed  bool
}

// send sends a packet at once, ahead of those that wait.
func (p *pacer) send(x parcel) error {
	p.mu.Lock()
	p.bucket.fill(time.Now())
	if p.closed || p.bucket.tokens < -icmpBurst {
		defer p.mu.Unlock()
		if p.closed {
			return net.ErrClosed
		}
		return errPaced
	}
	p.bucket.tokens -= float64(len(x.data))
	p.mu.Unlock()
	return p.write(x)
}

// queue sends a packet when it is its turn. It keeps no bytes of the caller's.
func (p *pacer) queue(x parcel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.size+len(x.data) > maxQueued {
		return
	}
	x.data = bytes.Clone(x.data)
	p.waiting, p.size = append(p.waiting, x), p.size+len(x.data)
	if !p.running {
		p.running = true
		if p.wake == nil {
			p.wake = make(chan struct{})
		}
		go p.run()
	}
}

// run sends what waits.
func (p *pacer) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.running = false }()
	for len(p.waiting) > 0 && !p.closed {
		p.bucket.fill(time.Now())
		if d := p.bucket.wait(); d > 0 {
			p.mu.Unlock()
			timer := time.NewTimer(d)
			select {
			case <-timer.C:
			case <-p.wake:
				timer.Stop()
			}
			p.mu.Lock()
			continue
		}
		x := p.waiting[0]
		p.waiting[0] = parcel{}
		p.waiting = p.waiting[1:]
		p.size -= len(x.data)
		p.bucket.tokens -= float64(len(x.data))
		p.mu.Unlock()
		_ = p.write(x) // what the system does not take is lost
		p.mu.Lock()
	}
}

func (p *pacer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.waiting, p.size = nil, 0
	if p.wake != nil {
		close(p.wake)
	}
}
