package bodkin

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/session"
	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"
)

// A hole by TCP can be had whole: the two sides agree over their session which service
// it is for, each sends a last packet, and what follows on the connection is TLS 1.3,
// between the same two keys. It has the speed of the kernel's TCP, and is as mortal: it
// neither moves to another route nor survives one.

// ErrNoTCP is wrapped by errors of DialTCP when the peer can be reached, and not by a
// connection over TCP.
var ErrNoTCP = errors.New("no TCP connection came about")

// TCPConn is a plain connection with a peer through a hole: TLS 1.3 over the kernel's
// TCP, without anything in between. It is a [net.Conn] with half-close.
type TCPConn struct {
	*tls.Conn
	peer     peer.ID
	service  string
	endpoint netip.AddrPort
	ctx      context.Context // ends with our direction
	end      context.CancelFunc
	stop     func() bool // the node's end is not ours any more
}

// Peer is who is at the other end.
func (c *TCPConn) Peer() peer.ID { return c.peer }

// Service is what the connection was opened for.
func (c *TCPConn) Service() string { return c.service }

// Route is the connection's own, for as long as it lives.
func (c *TCPConn) Route() Route {
	return Route{Transport: punch.TCP.String(), Endpoint: c.endpoint}
}

// RemoteAddr is the peer's end of the TCP connection, as it is seen from here.
func (c *TCPConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.endpoint) }

// Context ends when nothing can be written any more.
func (c *TCPConn) Context() context.Context { return c.ctx }

// Write implements [net.Conn].
func (c *TCPConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if ne := net.Error(nil); err != nil && (!errors.As(err, &ne) || !ne.Timeout()) {
		c.end()
	}
	return n, err
}

// CloseWrite ends our direction: the peer reads to the end, and can go on writing.
func (c *TCPConn) CloseWrite() error {
	c.end()
	return c.Conn.CloseWrite()
}

// Close ends both directions. What was written is still sent.
func (c *TCPConn) Close() error {
	c.end()
	c.stop()
	return c.Conn.Close()
}

// Abort breaks both directions off, with a reset: the peer's Read fails, where Close
// would let it read to an end that it could take for the whole.
func (c *TCPConn) Abort() error {
	c.end()
	c.stop()
	if a := c.NetConn(); a != nil {
		abort(a)
	}
	return nil
}

const (
	// handoverTime is how long a handover may take, with TLS.
	handoverTime = 10 * time.Second
	// holeTime is how long the hole may take, and justBegun how old an attempt may be that
	// tells whether there will be one.
	holeTime  = 20 * time.Second
	justBegun = 2 * time.Second
	// maxHandovers bounds those that are asked for and not begun, and handoversOfPeer
	// those that one peer asks for, so that it leaves room for others.
	maxHandovers    = 256
	handoversOfPeer = 32
	// tcpBacklog is how many connections wait for Accept.
	tcpBacklog = 64
)

// handover is a connection that is to change hands.
type handover struct {
	peer    peer.ID
	service string
	asked   bool          // by us
	done    chan struct{} // closed when the peer has sent its last packet
}

// handovers are those under way, and who takes what comes of them.
type handovers struct {
	mu        sync.Mutex
	pending   map[wire.Token]*handover
	listeners map[string]*tcpListener
}

func (h *handovers) add(t wire.Token, x *handover) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) >= maxHandovers || !x.asked && h.askedBy(x.peer) >= handoversOfPeer {
		return false
	}
	if h.pending == nil {
		h.pending = make(map[wire.Token]*handover)
	}
	h.pending[t] = x
	return true
}

// askedBy is how many a peer has asked for. Under the lock.
func (h *handovers) askedBy(id peer.ID) (n int) {
	for _, x := range h.pending {
		if !x.asked && x.peer == id {
			n++
		}
	}
	return n
}

func (h *handovers) remove(t wire.Token) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pending, t)
}

// expect takes note of a connection that a peer will hand over.
func (h *handovers) expect(id peer.ID, service string, t [session.TokenSize]byte) bool {
	h.mu.Lock()
	l := h.listeners[service]
	h.mu.Unlock()
	if l == nil || !h.add(t, &handover{peer: id, service: service}) {
		return false
	}
	time.AfterFunc(handoverTime, func() { h.remove(t) })
	return true
}

// take is the handover that a packet is the last one before; nil if it is something else.
func (h *handovers) take(packet []byte) (t wire.Token, x *handover) {
	t, answer, ok := wire.ParseHandover(packet)
	if !ok {
		return t, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if x = h.pending[t]; x == nil || x.asked != answer {
		return t, nil
	}
	delete(h.pending, t)
	return t, x
}

// handOver ends the packets on a connection if this one is the last, and reports whether
// it is. Its reader calls it.
func (n *Node) handOver(local punch.Local, s *sock.Stream, packet []byte) bool {
	if len(packet) != wire.HandoverSize {
		return false
	}
	t, x := n.handovers.take(packet)
	if x == nil {
		return false
	}
	if x.asked {
		close(x.done)
		return true
	}
	n.call(func(l *loop) { l.giveAway(local) })
	n.wg.Go(func() {
		<-s.Over()
		if err := s.Detach(wire.AppendHandover(nil, t, true)); err != nil {
			_ = s.Abort()
			return
		}
		n.serveTCP(s, x)
	})
	return true
}

// giveAway takes a connection from the path.
func (l *loop) giveAway(local punch.Local) *sock.Stream {
	c := l.conns[local]
	if c == nil || c.stream == nil {
		return nil
	}
	delete(l.conns, local)
	l.node.path.SetSocket(local, nil)
	l.step(node.Input{Op: node.PeerGone, Local: local, From: c.to, Why: punch.Taken})
	return c.stream
}

// call has the loop do something, and returns when it has, or the node is closed.
func (n *Node) call(f func(*loop)) {
	done := make(chan struct{})
	select {
	case n.calls <- func(l *loop) { f(l); close(done) }:
		<-done
	case <-n.ctx.Done():
	}
}

// serveTCP makes the connection a listener's.
func (n *Node) serveTCP(s *sock.Stream, x *handover) {
	c, err := n.plain(s, x, tls.Server)
	if err != nil {
		n.cfg.Logger.Debug("no TLS on a connection that was handed over", "peer", x.peer.Short(), "error", err)
		return
	}
	if !n.handovers.offer(c) {
		_ = c.Abort()
	}
}

// plain begins TLS on a connection that carries no packets any more.
func (n *Node) plain(s *sock.Stream, x *handover, begin func(net.Conn, *tls.Config) *tls.Conn) (*TCPConn, error) {
	raw := s.Conn()
	sock.UntuneTCP(raw)
	c := &TCPConn{Conn: begin(raw, n.sessions.TLS(x.peer)), peer: x.peer, service: x.service, endpoint: s.Remote()}
	ctx, cancel := context.WithTimeout(n.ctx, handoverTime)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		abort(raw)
		return nil, err
	}
	c.ctx, c.end = context.WithCancel(n.ctx)
	c.stop = context.AfterFunc(n.ctx, func() { _ = raw.Close() })
	return c, nil
}

// DialTCP connects to a service of a peer by plain TLS 1.3 over TCP, through a hole that
// the two have punched by TCP. It waits for that hole; where another transport is to be
// had, none may be punched: leave the others out of Config.Transports. The peer has to
// listen with [Node.ListenTCP]. The connection is the hole itself: there is one at a time,
// and the next one of the two nodes may have to wait for a minute, for which TCP keeps the
// endpoints of the last (RFC 9293 §3.6.1).
func (n *Node) DialTCP(ctx context.Context, id peer.ID, service string) (*TCPConn, error) {
	if err := CheckService(service); err != nil {
		return nil, &DialError{id, err}
	}
	return reach(ctx, n, id, func(ctx context.Context, at netip.AddrPort) (*TCPConn, error) {
		var failed error
		for {
			local, err := n.holeByTCP(ctx, at.Addr())
			if err != nil {
				return nil, errors.Join(err, failed)
			}
			c, again, err := n.takeOver(ctx, id, at, service, local)
			if err == nil || !again {
				return c, err
			}
			failed = err // it ended meanwhile: the peer may have kept another one
		}
	})
}

// holeByTCP waits for a hole by TCP.
func (n *Node) holeByTCP(ctx context.Context, overlay netip.Addr) (local punch.Local, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, holeTime, fmt.Errorf("%w in time", ErrNoTCP))
	defer cancel()
	begin := time.Now()
	err = n.known.wait(ctx, func() (bool, error) {
		p := n.known.peer(overlay)
		for _, r := range p.routes {
			if r.Direct() && r.Transport() == punch.TCP {
				local = r.Local
				return true, nil
			}
		}
		if a := p.account; a != nil && a.Began.After(begin.Add(-justBegun)) && attemptOf(a).Over() {
			return false, fmt.Errorf("%w: %s", ErrNoTCP, whyNoTCP(p))
		}
		return false, nil
	})
	return local, err
}

// whyNoTCP is what to do about it.
func whyNoTCP(p *knownPeer) string {
	for _, r := range p.routes {
		if r.Direct() {
			return fmt.Sprintf("the peer is reached by %v, so that none was needed; leave that out of the transports", r.Transport())
		}
	}
	return "see why with `bodkin why --transports tcp`, or connect without it over the relay"
}

// takeOver makes a hole a plain connection. It may be tried again if the hole ended
// before.
func (n *Node) takeOver(ctx context.Context, id peer.ID, at netip.AddrPort, service string, local punch.Local) (c *TCPConn, again bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handoverTime, errors.New("the peer does not take the connection over"))
	defer cancel()
	var t wire.Token
	_, _ = rand.Read(t[:])
	x := &handover{peer: id, service: service, asked: true, done: make(chan struct{})}
	if !n.handovers.add(t, x) {
		return nil, false, errors.New("too many connections are being handed over")
	}
	defer n.handovers.remove(t)
	if err := n.sessions.AskTCP(ctx, id, at, service, t); err != nil {
		return nil, false, err
	}
	var s *sock.Stream
	n.call(func(l *loop) { s = l.giveAway(local) })
	if s == nil {
		return nil, true, io.ErrUnexpectedEOF
	}
	if err := s.Detach(wire.AppendHandover(nil, t, false)); err != nil {
		return nil, true, err
	}
	select {
	case <-s.Over():
	case <-ctx.Done():
		_ = s.Abort()
		return nil, false, context.Cause(ctx)
	}
	select {
	case <-x.done:
	default:
		_ = s.Abort()
		return nil, true, io.ErrUnexpectedEOF
	}
	c, err = n.plain(s, x, tls.Client)
	return c, false, err
}

// ListenTCP takes plain connections to a service from now on: TLS 1.3 over TCP, through
// holes that were punched by it. Its Accept returns *[TCPConn]s. The same name may have a
// listener of [Node.Listen] too.
func (n *Node) ListenTCP(service string) (net.Listener, error) {
	if err := CheckService(service); err != nil {
		return nil, err
	}
	l := &tcpListener{node: n, service: service, queue: make(chan *TCPConn, tcpBacklog), done: make(chan struct{})}
	h := &n.handovers
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners[service] != nil {
		return nil, session.ErrServiceTaken
	}
	if h.listeners == nil {
		h.listeners = make(map[string]*tcpListener)
	}
	h.listeners[service] = l
	n.accept()
	return l, nil
}

type tcpListener struct {
	node    *Node
	service string
	queue   chan *TCPConn
	done    chan struct{}
	once    sync.Once
}

// offer gives a connection to its listener, if there is one that has room. Under the lock
// no listener is closed meanwhile, and so nothing waits where nobody will look.
func (h *handovers) offer(c *TCPConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.listeners[c.service]
	if l == nil {
		return false
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}

// Accept waits for the next connection.
func (l *tcpListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-l.node.ctx.Done():
		return nil, ErrClosed
	}
}

// Addr is this node and the service.
func (l *tcpListener) Addr() net.Addr { return session.Addr{Peer: l.node.ID(), Service: l.service} }

// Close ends listening; connections that were accepted stay.
func (l *tcpListener) Close() error {
	l.once.Do(func() {
		h := &l.node.handovers
		h.mu.Lock()
		delete(h.listeners, l.service)
		h.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				_ = c.Abort()
			default:
				return
			}
		}
	})
	return nil
}
