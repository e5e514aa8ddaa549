package session

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin/peer"

	"github.com/quic-go/quic-go"
)

// Addr is the address of an end of a Conn: a peer, and a service.
type Addr struct {
	Peer    peer.ID
	Service string
	// flow keeps the flows of one peer apart, for ReadFrom and WriteTo.
	flow *PacketFlow
}

// Network implements [net.Addr].
func (Addr) Network() string { return "bodkin" }

// String is the peer's ID, and the service behind a slash.
func (a Addr) String() string { return a.Peer.String() + "/" + a.Service }

// Conn is a stream to or from a peer, as a [net.Conn].
type Conn struct {
	*quic.Stream
	s       *session
	service string
	once    sync.Once
	packets func() *PacketFlow
}

func newConn(s *session, stream *quic.Stream, service string) *Conn {
	c := &Conn{Stream: stream, s: s, service: service}
	c.packets = sync.OnceValue(func() *PacketFlow { return s.flowOf(c) })
	return c
}

// Dial opens a stream to a service of a peer, over a session that is there or a
// new one. remote is the peer's overlay address with the class to dial by.
func (m *Manager) Dial(ctx context.Context, id peer.ID, remote netip.AddrPort, service string) (*Conn, error) {
	if err := CheckService(service); err != nil {
		return nil, err
	}
	s, err := m.session(ctx, id, remote)
	if err != nil {
		return nil, err
	}
	stream, err := s.open(ctx, kindStream, service)
	if err != nil {
		return nil, err
	}
	return newConn(s, stream, service), nil
}

// Peer is who is at the other end.
func (c *Conn) Peer() peer.ID { return c.s.id }

// Packets are unreliable datagrams that belong to this connection and travel beside
// its stream (RFC 9297 §2 has the same for HTTP): a Write sends one of at most
// [MaxDatagram] bytes, a Read returns one. What arrives before the first call may
// get lost, so the application first agrees on them over the stream. They are open
// until they are closed themselves, or the connection with the peer ends.
func (c *Conn) Packets() io.ReadWriteCloser { return c.packets() }

// Overlay is the other end's overlay address.
func (c *Conn) Overlay() netip.Addr { return c.s.overlay }

// Service is what the stream was opened for.
func (c *Conn) Service() string { return c.service }

// LocalAddr is this node.
func (c *Conn) LocalAddr() net.Addr { return Addr{Peer: c.s.m.cfg.Key.ID(), Service: c.service} }

// RemoteAddr is the peer.
func (c *Conn) RemoteAddr() net.Addr { return Addr{Peer: c.s.id, Service: c.service} }

// Read implements [net.Conn]. The peer's refusal is a *RefusedError; io.EOF is
// the end that the peer wrote, and nothing else is.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if err != nil && !isTimeout(err) {
		c.read()
		if !errors.Is(err, io.EOF) {
			err = c.s.explain(c.service, err)
		}
	}
	return n, err
}

// read notes that nothing more will be read.
func (c *Conn) read() { c.once.Do(func() { c.s.ledger.consumed(uint64(c.StreamID())) }) }

// Write implements [net.Conn].
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	if err != nil && !isTimeout(err) {
		err = c.s.explain(c.service, err)
	}
	return n, err
}

// CloseWrite ends our direction: the peer reads to the end, and can go on
// writing. That the peer gave up on it before is no error: it is over.
func (c *Conn) CloseWrite() error {
	_ = c.Stream.Close() // fails only where the direction was cancelled
	c.s.finished(uint64(c.StreamID()))
	return nil
}

// CloseRead gives up on what the peer may still write.
func (c *Conn) CloseRead() error {
	c.CancelRead(codeDone)
	c.read()
	return nil
}

// Close ends both directions. What was written is still sent; see
// [Manager.Shutdown].
func (c *Conn) Close() error {
	_ = c.CloseRead()
	return c.CloseWrite()
}

// Abort breaks both directions off: the peer's Read fails, where Close would let
// it read to an end that it could take for the whole.
func (c *Conn) Abort() error {
	_ = c.CloseRead()
	c.CancelWrite(codeBrokenOff)
	return nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// backlog is how many connections wait for Accept.
const backlog = 1024

// Listener takes the streams to one service.
type Listener struct {
	m       *Manager
	service string
	queue   chan *Conn
	done    chan struct{}

	mu    sync.Mutex
	ended bool
}

// Listen takes streams to a service from now on.
func (m *Manager) Listen(service string) (*Listener, error) {
	if err := CheckService(service); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	if m.listeners[service] != nil {
		return nil, ErrServiceTaken
	}
	l := &Listener{m: m, service: service, queue: make(chan *Conn, backlog), done: make(chan struct{})}
	m.listeners[service] = l
	return l, nil
}

func (l *Listener) offer(c *Conn) quic.StreamErrorCode {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return codeUnknownService
	}
	select {
	case l.queue <- c:
		return codeDone
	default:
		return codeBusy
	}
}

// Accept waits for the next stream.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn is Accept with the type that it returns.
func (l *Listener) AcceptConn() (*Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Addr is this node and the service.
func (l *Listener) Addr() net.Addr { return Addr{Peer: l.m.cfg.Key.ID(), Service: l.service} }

// Close ends listening; connections that were accepted stay.
func (l *Listener) Close() error {
	l.m.mu.Lock()
	if l.m.listeners[l.service] == l {
		delete(l.m.listeners, l.service)
	}
	l.m.mu.Unlock()
	l.end()
	return nil
}

// EndListeners ends all listening; sessions stay.
func (m *Manager) EndListeners() {
	m.mu.Lock()
	listeners, packets := m.listeners, m.packets
	m.listeners, m.packets = make(map[string]*Listener), make(map[string]*PacketListener)
	m.mu.Unlock()
	for _, l := range listeners {
		l.end()
	}
	for _, l := range packets {
		l.end()
	}
}

// end refuses those who still wait.
func (l *Listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	close(l.done)
	for {
		select {
		case c := <-l.queue:
			c.s.refuse(c.Stream, codeUnknownService)
		default:
			return
		}
	}
}

var _ interface {
	net.Conn
	SetReadDeadline(time.Time) error
} = (*Conn)(nil)

// Services are the names that have a listener.
func (m *Manager) Services() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Collect(maps.Keys(m.listeners))
	names = slices.AppendSeq(names, maps.Keys(m.packets))
	slices.Sort(names)
	return slices.Compact(names)
}
