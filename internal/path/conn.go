package path

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"bodkin/punch"

	"golang.org/x/net/ipv4"
)

const (
	// queueLength is how many packets wait for QUIC to read them: some 5 MB, or
	// 200 ms at 200 Mbit/s.
	queueLength = 4096
	// maxPacket is the largest packet that is queued: QUIC reads no larger one.
	maxPacket = 1500
)

// Conn is a packet connection for QUIC: addresses are overlay addresses, and
// the port is the route class (a [punch.Transport]), and more, that changes after an
// outage. It has the methods of
// quic.OOBCapablePacketConn and ReadBatch, so that QUIC sends with UDP_SEGMENT.
type Conn struct {
	socket *Socket
	class  punch.Transport // of every packet written; 0: the port of the address says
	local  *net.UDPAddr

	mu      sync.Mutex
	arrived *sync.Cond // something to read, or a reason not to
	queue   runs
	timer   *time.Timer // of the read deadline
	expired bool        // it is over
	closed  bool
}

func newConn(s *Socket, class punch.Transport, local netip.Addr) *Conn {
	c := &Conn{
		socket: s,
		class:  class,
		// The overlay address, never 0.0.0.0: QUIC would pin the interface of
		// the first packet, and roaming would break.
		local: &net.UDPAddr{IP: local.AsSlice(), Port: int(max(class, 1))},
	}
	c.arrived = sync.NewCond(&c.mu)
	return c
}

// push hands packets of one size, but for the last, to the reader, or drops them
// where it is behind. It copies them unless keep says that they may be kept.
func (c *Conn) push(b []byte, segment int, from *net.UDPAddr, keep bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || segment > maxPacket || c.queue.packets+count(b, segment) > queueLength {
		return false
	}
	c.queue.put(b, segment, from, keep)
	c.arrived.Signal()
	return true
}

// wait returns with the lock held and at least one packet queued, or with an
// error and without the lock.
func (c *Conn) wait() error {
	c.mu.Lock()
	for {
		var err error
		switch {
		case c.closed:
			err = net.ErrClosed
		case c.expired:
			err = os.ErrDeadlineExceeded
		case c.queue.packets > 0:
			return nil
		}
		if err != nil {
			c.mu.Unlock()
			return err
		}
		c.arrived.Wait()
	}
}

// ReadBatch fills messages with the packets that are there, and waits for the
// first one.
func (c *Conn) ReadBatch(messages []ipv4.Message, _ int) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	defer c.mu.Unlock()
	i := 0
	for ; i < len(messages) && c.queue.packets > 0; i++ {
		m := &messages[i]
		var from *net.UDPAddr
		m.N, from = c.queue.take(m.Buffers[0])
		m.Addr, m.NN = from, 0
	}
	return i, nil
}

// ReadMsgUDP reads one packet; there is never out-of-band data.
func (c *Conn) ReadMsgUDP(b, _ []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	if err := c.wait(); err != nil {
		return 0, 0, 0, nil, err
	}
	defer c.mu.Unlock()
	n, addr = c.queue.take(b)
	return n, 0, 0, addr, nil
}

// ReadFrom implements [net.PacketConn].
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, _, addr, err := c.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, addr, nil
}

// WriteMsgUDP sends b to a peer by the best route of the class. Of the control
// messages only UDP_SEGMENT counts: ECN and interface belong to the overlay. It
// fails only when closed: a packet that the network does not take is a packet
// lost, and QUIC would end the connection over an error.
func (c *Conn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return 0, 0, net.ErrClosed
	}
	class := c.class
	if class == 0 {
		class = classOf(to.Port)
	}
	addr, _ := netip.AddrFromSlice(to.IP)
	c.socket.send(addr, class, b, segmentOf(oob))
	return len(b), len(oob), nil
}

// WriteTo implements [net.PacketConn].
func (c *Conn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not an overlay address")
	}
	n, _, err := c.WriteMsgUDP(b, nil, addr)
	return n, err
}

// LocalAddr is this node's overlay address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// Close ends reading and writing; the socket beneath stays.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.queue.clear()
	c.stopTimer()
	c.arrived.Broadcast()
	return nil
}

func (c *Conn) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// SetReadDeadline implements [net.PacketConn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopTimer()
	left := time.Until(t)
	c.expired = !t.IsZero() && left <= 0
	switch {
	case c.closed || t.IsZero():
	case c.expired:
		c.arrived.Broadcast()
	default:
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.timer == timer { // else the deadline has moved meanwhile
				c.expired = true
				c.arrived.Broadcast()
			}
		})
		c.timer = timer
	}
	return nil
}

// SetWriteDeadline implements [net.PacketConn]; writing never waits.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements [net.PacketConn].
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadBuffer and SetWriteBuffer are done with: the sockets beneath have
// buffers of the size they need.
func (c *Conn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing: see SetReadBuffer.
func (c *Conn) SetWriteBuffer(int) error { return nil }

// SyscallConn is that of a socket beneath, for QUIC to learn whether it can
// segment.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.socket.syscallConn() }
