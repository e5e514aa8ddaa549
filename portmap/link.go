package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"bodkin/internal/pcp"
)

// link is the socket through which one address of ours talks to one gateway's
// port 5351, in one protocol. PCP and NAT-PMP do not share one: a router refuses a
// version in the words of the version that it speaks, and does not say which
// request it refuses.
type link struct {
	network Network
	gateway Gateway
	to      netip.AddrPort

	mu      sync.Mutex
	conn    net.PacketConn // nil until it is needed, and after it failed
	ended   bool
	readers sync.WaitGroup
	waiting map[chan []byte]bool
	hear    []func(b []byte) // unasked, too
}

func newLink(n Network, g Gateway) *link {
	return &link{
		network: n, gateway: g, to: netip.AddrPortFrom(g.Addr, pcp.ServerPort),
		waiting: make(map[chan []byte]bool),
	}
}

// listen has f called with each packet of the gateway's. It must not block.
func (l *link) listen(f func(b []byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hear = append(l.hear, f)
}

// exchange sends a request until take takes an answer, by the schedule. Take sees
// every packet that comes from the gateway meanwhile.
func (l *link) exchange(ctx context.Context, request []byte, s schedule, take func(b []byte) bool) error {
	answers := make(chan []byte, 8)
	l.mu.Lock()
	l.waiting[answers] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, answers)
		l.mu.Unlock()
	}()
	var wait time.Duration
	for n := 0; ; n++ {
		var ok bool
		if wait, ok = s(n, wait, rand.Float64()); !ok {
			return l.silent()
		}
		if err := l.send(ctx, request); err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		done, err := await(ctx, answers, timer.C, take)
		timer.Stop()
		if err != nil {
			return fmt.Errorf("%w: %w", l.silent(), err)
		}
		if done {
			return nil
		}
	}
}

// await shows answers to take until it takes one, or it is late.
func await(ctx context.Context, answers <-chan []byte, late <-chan time.Time, take func(b []byte) bool) (done bool, err error) {
	for {
		select {
		case b := <-answers:
			if take(b) {
				return true, nil
			}
		case <-late:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (l *link) silent() error {
	return fmt.Errorf("%w from %v", ErrSilent, l.to)
}

// send sends a request, from a new socket if there is none. That a packet cannot
// be sent now is as if it got lost.
func (l *link) send(ctx context.Context, b []byte) error {
	c, err := l.socket(ctx)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(b, net.UDPAddrFromAddrPort(l.to)); errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (l *link) socket(ctx context.Context) (net.PacketConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, ErrClosed
	}
	if l.conn != nil {
		return l.conn, nil
	}
	network := "udp6"
	if l.gateway.Addr.Is4() {
		network = "udp4"
	}
	// Bound to the address that the request names as the client's, which the
	// router compares (RFC 6887 §8.1).
	c, err := l.network.ListenPacket(ctx, network, netip.AddrPortFrom(l.gateway.Local.Addr(), 0))
	if err != nil {
		return nil, fmt.Errorf("socket to ask %v: %w", l.gateway.Addr, err)
	}
	l.conn = c
	l.readers.Go(func() { l.read(c) })
	return c, nil
}

// read hands out what comes from the gateway. When the socket fails, as when its
// address went away, the next request opens another.
func (l *link) read(c net.PacketConn) {
	b := make([]byte, pcp.MaxSize+1)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			l.mu.Lock()
			if l.conn == c {
				l.conn = nil
			}
			l.mu.Unlock()
			_ = c.Close()
			return
		}
		if l.ours(from) {
			l.deliver(b[:n])
		}
	}
}

// ours reports whether a packet came from the gateway (RFC 6887 §8.3).
func (l *link) ours(from net.Addr) bool {
	u, ok := from.(*net.UDPAddr)
	if !ok {
		return false
	}
	a := u.AddrPort()
	return a.Port() == l.to.Port() && a.Addr().Unmap().WithZone("") == l.to.Addr().WithZone("")
}

// deliver shows a packet to those who wait. Nobody keeps it from the others.
func (l *link) deliver(b []byte) {
	b = append([]byte(nil), b...)
	l.mu.Lock()
	for w := range l.waiting {
		select {
		case w <- b:
		default: // a flood: what is dropped is sent again
		}
	}
	hear := l.hear
	l.mu.Unlock()
	for _, f := range hear {
		f(b)
	}
}

// close ends the socket and its reader.
func (l *link) close() {
	l.mu.Lock()
	l.ended = true
	if l.conn != nil {
		_ = l.conn.Close()
	}
	l.mu.Unlock()
	l.readers.Wait()
}
