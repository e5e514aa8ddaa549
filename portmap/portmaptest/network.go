package portmaptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"bodkin/internal/pcp"
	"bodkin/portmap"
)

// Network is the network between the router and one host, in memory.
func (r *Router) Network() portmap.Network { return r.net }

// Serve answers what comes in by a socket, until that is closed: for a router on
// loopback or in a lab.
func (r *Router) Serve(c net.PacketConn) error {
	return serve(c, func(from netip.AddrPort, b []byte) ([]byte, time.Duration) { return r.Answer(time.Now(), from, b) })
}

// ServeSearch does the same for UPnP's searches, which come to port 1900. Router is
// the http.Handler of the rest, at port 49152.
func (r *Router) ServeSearch(c net.PacketConn) error { return serve(c, r.AnswerSearch) }

func serve(c net.PacketConn, respond func(from netip.AddrPort, b []byte) ([]byte, time.Duration)) error {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		u, ok := from.(*net.UDPAddr)
		if !ok {
			return fmt.Errorf("portmaptest: a packet from %v, which is not UDP", from)
		}
		if answer, later := respond(unmapped(u), b[:n]); answer != nil {
			time.AfterFunc(later, func() { _, _ = c.WriteTo(answer, from) })
		}
	}
}

func unmapped(u *net.UDPAddr) netip.AddrPort {
	a := u.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

type network struct {
	router *Router

	mu    sync.Mutex
	conns map[netip.AddrPort]*conn
	last  uint16
}

// ListenPacket implements portmap.Network.
func (n *network) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if local.Port() == 0 {
		n.last++
		local = netip.AddrPortFrom(local.Addr(), 40000+n.last)
	}
	if n.conns[local] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: syscall.EADDRINUSE}
	}
	c := &conn{net: n, local: local, in: make(chan packet, 64), closed: make(chan struct{}), change: make(chan struct{})}
	n.conns[local] = c
	return c, nil
}

// Dial implements portmap.Network: only the router listens, for UPnP.
func (n *network) Dial(_ context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	return n.dial(network, to)
}

// send carries a packet to the router.
func (n *network) send(c *conn, to netip.AddrPort, b []byte) {
	r := n.router
	inside := netip.AddrPortFrom(r.inside(c.local.Addr()), to.Port())
	var answer []byte
	var later time.Duration
	switch {
	case to == inside && to.Port() == pcp.ServerPort:
		answer, later = r.Answer(time.Now(), c.local, b)
	case to == inside && to.Port() == ssdpPort, searched(to):
		answer, later = r.AnswerSearch(c.local, b)
	}
	switch {
	case answer == nil:
	case later == 0:
		c.deliver(packet{answer, inside})
	default:
		time.AfterFunc(later, func() { c.deliver(packet{answer, inside}) })
	}
}

// announce sends a packet to all hosts.
func (n *network) announce(b []byte) {
	n.mu.Lock()
	c := n.conns[netip.AddrPortFrom(pcp.AllHosts, pcp.ClientPort)]
	n.mu.Unlock()
	if c != nil {
		c.deliver(packet{b, netip.AddrPortFrom(n.router.options.Inside, pcp.ServerPort)})
	}
}

type packet struct {
	data []byte
	from netip.AddrPort
}

// conn is a socket in memory.
type conn struct {
	net    *network
	local  netip.AddrPort
	in     chan packet
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline time.Time
	change   chan struct{} // closed when the deadline is set
}

func (c *conn) deliver(p packet) {
	select {
	case c.in <- p:
	default: // as a socket's buffer that is full
	}
}

// ReadFrom implements net.PacketConn.
func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, change := c.deadline, c.change
		c.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			late = time.After(time.Until(deadline))
		}
		select {
		case p := <-c.in:
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		case <-c.closed:
			return 0, nil, net.ErrClosed
		case <-late:
			return 0, nil, os.ErrDeadlineExceeded
		case <-change:
		}
	}
}

// WriteTo implements net.PacketConn.
func (c *conn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("portmaptest: %v is no UDP address", to)
	}
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.net.send(c, unmapped(u), b)
	return len(b), nil
}

// Close implements net.PacketConn.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.net.mu.Lock()
		delete(c.net.conns, c.local)
		c.net.mu.Unlock()
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetDeadline implements net.PacketConn. Writes never wait.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.change)
	c.change = make(chan struct{})
	return nil
}

// SetWriteDeadline implements net.PacketConn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
