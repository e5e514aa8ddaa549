package session

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"bodkin/peer"
	"bodkin/punch"
)

// hub stands for path: it carries packets between the overlay addresses of nodes,
// by the class that their port says.
type hub struct {
	mu    sync.Mutex
	nodes map[netip.Addr]*node
	delay time.Duration
	// shuffle is what some packets take longer.
	shuffle time.Duration
	loss    float64
	rng     *rand.Rand
	// blocked are the classes by which nothing passes.
	blocked map[Class]bool
	// carried counts packets by class.
	carried map[Class]int
}

// node is a Manager and its connections.
type node struct {
	*Manager
	hub     *hub
	key     peer.Key
	overlay netip.Addr
	accept  *memConn
	dial    *memConn
	dead    bool

	mu             sync.Mutex
	opened, closed []netip.Addr
}

// began is when the process did, but for a moment.
var began = time.Now()

func newHub() *hub {
	// QUIC's clock counts from the start of the process, and what has no time has its
	// zero: in fake time, which begins with the year 2000, a lost probe of a path would
	// never be given up, and the 20,000th packet after it be the last that QUIC sends.
	time.Sleep(time.Until(began)) // of fake time
	return &hub{
		nodes: map[netip.Addr]*node{}, delay: 5 * time.Millisecond, rng: rand.New(rand.NewPCG(1, 2)),
		blocked: map[Class]bool{}, carried: map[Class]int{},
	}
}

func testKey(seed byte) peer.Key { return peer.NewKey([32]byte{seed}) }

// node starts a Manager; change may adjust its Config.
func (h *hub) node(tb testing.TB, seed byte, change ...func(*Config)) *node {
	tb.Helper()
	n := &node{hub: h, key: testKey(seed)}
	n.overlay = peer.Overlay(n.key.ID(), 1)
	n.accept, n.dial = h.conn(n, 0), h.conn(n, 0)
	h.mu.Lock()
	h.nodes[n.overlay] = n
	h.mu.Unlock()
	cfg := Config{
		Key: n.key, Accept: n.accept, Dial: n.dial,
		Moved:    func(c Class) net.PacketConn { return h.conn(n, c) },
		Identify: h.identify,
		Opened:   func(a netip.Addr) { n.note(&n.opened, a) },
		Closed:   func(a netip.Addr) { n.note(&n.closed, a) },
	}
	for _, f := range change {
		f(&cfg)
	}
	m, err := NewManager(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	n.Manager = m
	tb.Cleanup(func() { _ = m.Close() })
	return n
}

func (n *node) note(to *[]netip.Addr, a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*to = append(*to, a)
}

func (n *node) id() peer.ID { return n.key.ID() }

// at is where a node is dialled: over the relay.
func (n *node) at() netip.AddrPort { return netip.AddrPortFrom(n.overlay, uint16(punch.Relay)) }

func (h *hub) identify(a netip.Addr) (peer.ID, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.nodes[a]; n != nil {
		return n.id(), true
	}
	return peer.ID{}, false
}

func (h *hub) block(c Class, yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocked[c] = yes
}

func (h *hub) reorder(by time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shuffle = by
}

func (h *hub) count(c Class) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.carried[c]
}

// kill makes a node vanish without a goodbye.
func (h *hub) kill(n *node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n.dead = true
	if h.nodes[n.overlay] == n {
		delete(h.nodes, n.overlay)
	}
}

// send carries a packet; 0 as class means the port's.
func (h *hub) send(from *node, class Class, b []byte, to netip.AddrPort) {
	if class == 0 {
		class = Class(to.Port())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	other := h.nodes[to.Addr()]
	if other == nil || from.dead || h.blocked[class] || h.rng.Float64() < h.loss {
		return
	}
	h.carried[class]++
	b = bytes.Clone(b)
	delay := h.delay
	if h.shuffle > 0 && h.rng.IntN(10) == 0 {
		delay += h.shuffle
	}
	time.AfterFunc(delay, func() {
		c := other.accept
		if Dialled(b) {
			c = other.dial
		}
		c.push(b, &net.UDPAddr{IP: from.overlay.AsSlice(), Port: int(class)})
	})
}

// memConn is one of a node's connections.
type memConn struct {
	node  *node
	class Class

	mu      sync.Mutex
	arrived *sync.Cond
	queue   []memPacket
	expired bool
	closed  bool
}

type memPacket struct {
	data []byte
	from *net.UDPAddr
}

func (h *hub) conn(n *node, class Class) *memConn {
	c := &memConn{node: n, class: class}
	c.arrived = sync.NewCond(&c.mu)
	return c
}

func (c *memConn) push(b []byte, from *net.UDPAddr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, memPacket{b, from})
	c.arrived.Signal()
}

func (c *memConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, nil, net.ErrClosed
		case c.expired:
			return 0, nil, os.ErrDeadlineExceeded
		case len(c.queue) > 0:
			p := c.queue[0]
			c.queue = slices.Delete(c.queue, 0, 1)
			return copy(b, p.data), p.from, nil
		}
		c.arrived.Wait()
	}
}

func (c *memConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	c.node.hub.send(c.node, c.class, b, to.(*net.UDPAddr).AddrPort())
	return len(b), nil
}

func (c *memConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.arrived.Broadcast()
	return nil
}

// SetReadDeadline knows only the past and never, which is what QUIC sets.
func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expired = !t.IsZero()
	c.arrived.Broadcast()
	if time.Until(t) > 0 {
		return errors.ErrUnsupported
	}
	return nil
}

func (c *memConn) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: c.node.overlay.AsSlice(), Port: int(max(c.class, 1))}
}
func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memConn) SetReadBuffer(int) error          { return nil }
func (c *memConn) SetWriteBuffer(int) error         { return nil }
