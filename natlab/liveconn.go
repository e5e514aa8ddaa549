package natlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

var errNoAddress error = syscall.EADDRNOTAVAIL

// liveConn is a UDP socket on a LiveHost.
type liveConn struct {
	host   *LiveHost
	family int
	local  netip.AddrPort

	mu       sync.Mutex
	queue    []datagram
	bytes    int
	deadline time.Time
	changed  chan struct{} // closed and replaced at every change that a reader waits for
	closed   bool
}

type datagram struct {
	from netip.AddrPort
	data []byte
}

// receiveBuffer is how many bytes wait to be read; more are lost, as on a real
// socket.
const receiveBuffer = 4 << 20

// push takes a datagram from the network.
func (c *liveConn) push(from netip.AddrPort, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.bytes+len(data) > receiveBuffer {
		return
	}
	c.queue = append(c.queue, datagram{from, append([]byte(nil), data...)})
	c.bytes += len(data)
	c.wake()
}

// wake tells readers to look again; under the lock.
func (c *liveConn) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// ReadFrom implements [net.PacketConn]. What is longer than b is cut.
func (c *liveConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		d, changed, deadline, err := c.take()
		if err != nil {
			return 0, nil, &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Err: err}
		}
		if changed == nil {
			return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
		}
		if deadline.IsZero() {
			<-changed
			continue
		}
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take takes the first datagram, or what to wait for.
func (c *liveConn) take() (d datagram, changed <-chan struct{}, deadline time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		err = net.ErrClosed
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		err = os.ErrDeadlineExceeded
	case len(c.queue) == 0:
		changed, deadline = c.changed, c.deadline
	default:
		d, c.queue = c.queue[0], c.queue[1:]
		c.bytes -= len(d.data)
	}
	return d, changed, deadline, err
}

// WriteTo implements [net.PacketConn]. It never blocks.
func (c *liveConn) WriteTo(b []byte, to net.Addr) (int, error) { return c.WriteToTTL(b, to, 0) }

// WriteToTTL is WriteTo with a TTL for this packet alone; 0 is the usual one.
func (c *liveConn) WriteToTTL(b []byte, to net.Addr, ttl uint8) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.writeError(to, fmt.Errorf("%T is no *net.UDPAddr", to))
	}
	at := addr.AddrPort()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if at.Addr().IsValid() && family(at.Addr()) != c.family {
		return 0, c.writeError(to, syscall.EAFNOSUPPORT)
	}
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return 0, c.writeError(to, net.ErrClosed)
	}
	var err error
	c.host.live.do(func() { err = c.host.stack.sendUDP(c.local.Port(), at, ttl, b) })
	if err != nil {
		return 0, c.writeError(to, err)
	}
	return len(b), nil
}

func (c *liveConn) writeError(to net.Addr, err error) error {
	return &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Addr: to, Err: err}
}

// Close implements [net.PacketConn]. It ends readers.
func (c *liveConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return &net.OpError{Op: "close", Net: "udp", Source: c.LocalAddr(), Err: net.ErrClosed}
	}
	c.closed, c.queue = true, nil
	c.wake()
	c.mu.Unlock()
	c.host.live.do(func() {
		c.host.stack.unbind(c.local.Port(), c.family)
		delete(c.host.conns, c)
	})
	return nil
}

// LocalAddr implements [net.PacketConn]: a *net.UDPAddr.
func (c *liveConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetDeadline implements [net.PacketConn]; writes never wait.
func (c *liveConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements [net.PacketConn].
func (c *liveConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline = t
	c.wake()
	return nil
}

// SetWriteDeadline implements [net.PacketConn] and does nothing: writes never
// wait.
func (c *liveConn) SetWriteDeadline(time.Time) error { return nil }
