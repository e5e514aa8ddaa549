package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bodkin/peer"

	"github.com/quic-go/quic-go"
)

// MaxDatagram is the largest payload of a datagram, in bytes: what fits a QUIC
// packet beside its headers.
const MaxDatagram = 1150

// flowQueue is how many datagrams of a flow wait to be read; the newest is
// dropped when it is full.
const flowQueue = 256

// inbox holds received datagrams for a reader with deadlines.
type inbox struct {
	queue    chan datagram
	done     chan struct{}
	once     sync.Once
	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline moves
	Dropped  atomic.Uint64
}

type datagram struct {
	data []byte
	from *PacketFlow
}

func newInbox() *inbox {
	return &inbox{queue: make(chan datagram, flowQueue), done: make(chan struct{}), moved: make(chan struct{})}
}

func (i *inbox) put(d datagram) {
	select {
	case i.queue <- d:
	default:
		i.Dropped.Add(1)
	}
}

func (i *inbox) close() { i.once.Do(func() { close(i.done) }) }

func (i *inbox) setDeadline(t time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deadline = t
	close(i.moved)
	i.moved = make(chan struct{})
}

func (i *inbox) get() (datagram, error) {
	for {
		i.mu.Lock()
		deadline, moved := i.deadline, i.moved
		i.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return datagram{}, os.ErrDeadlineExceeded
			}
			timer := time.NewTimer(left)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case d := <-i.queue:
			return d, nil
		case <-i.done:
			return datagram{}, net.ErrClosed
		case <-moved:
		case <-expired:
			return datagram{}, os.ErrDeadlineExceeded
		}
	}
}

// PacketFlow is a flow of unreliable datagrams with a peer, as a message-oriented
// [net.Conn]: a Write is a datagram of at most MaxDatagram bytes, a Read returns
// one. It lives as long as the stream that opened it.
type PacketFlow struct {
	s        *session
	stream   *quic.Stream
	id       uint64
	service  string
	inbox    *inbox
	listener *PacketListener // whose inbox it is; nil: its own
}

func (s *session) newFlow(stream *quic.Stream, service string, l *PacketListener) *PacketFlow {
	f := &PacketFlow{s: s, stream: stream, id: uint64(stream.StreamID()), service: service, listener: l}
	if l != nil {
		f.inbox = l.inbox
	} else {
		f.inbox = newInbox()
	}
	s.mu.Lock()
	s.flows[f.id] = f
	s.mu.Unlock()
	s.m.wg.Go(func() {
		// Nothing is ever written to the stream: its end is the flow's.
		_, _ = io.Copy(io.Discard, stream)
		f.end()
	})
	return f
}

// end forgets a flow.
func (f *PacketFlow) end() {
	f.s.mu.Lock()
	delete(f.s.flows, f.id)
	f.s.mu.Unlock()
	f.stream.CancelRead(codeDone)
	_ = f.stream.Close()
	f.s.ledger.consumed(f.id)
	if f.listener == nil {
		f.inbox.close()
	}
}

func (s *session) closeFlows() {
	s.mu.Lock()
	var all []*PacketFlow
	for _, f := range s.flows {
		all = append(all, f)
	}
	s.mu.Unlock()
	for _, f := range all {
		f.end()
	}
}

// receiveDatagrams hands datagrams to their flows. One whose flow is not open,
// or not open yet, is lost: they are unreliable.
func (s *session) receiveDatagrams() {
	for {
		b, err := s.conn.ReceiveDatagram(s.conn.Context())
		if err != nil {
			return
		}
		id, payload, err := cutFlow(b)
		if err != nil {
			continue
		}
		s.mu.Lock()
		f := s.flows[id]
		s.mu.Unlock()
		if f != nil {
			f.inbox.put(datagram{payload, f})
		}
	}
}

// DialPacket opens a flow of datagrams to a service of a peer.
func (m *Manager) DialPacket(ctx context.Context, id peer.ID, remote netip.AddrPort, service string) (*PacketFlow, error) {
	if err := checkService(service); err != nil {
		return nil, err
	}
	s, err := m.session(ctx, id, remote)
	if err != nil {
		return nil, err
	}
	stream, err := s.open(ctx, kindDatagram, service)
	if err != nil {
		return nil, err
	}
	return s.newFlow(stream, service, nil), nil
}

// Read returns one datagram; what does not fit into b is lost.
func (f *PacketFlow) Read(b []byte) (int, error) {
	d, err := f.inbox.get()
	if err != nil {
		return 0, err
	}
	return copy(b, d.data), nil
}

// Write sends one datagram.
func (f *PacketFlow) Write(b []byte) (int, error) {
	if len(b) > MaxDatagram {
		return 0, fmt.Errorf("datagram of %d bytes: the largest has %d", len(b), MaxDatagram)
	}
	err := f.s.conn.SendDatagram(append(appendFlow(make([]byte, 0, len(b)+8), f.id), b...))
	if err != nil {
		if _, ok := errors.AsType[*quic.DatagramTooLargeError](err); ok {
			return 0, fmt.Errorf("datagram of %d bytes: %w", len(b), err)
		}
		return 0, f.s.explain(f.service, err)
	}
	return len(b), nil
}

// Close ends the flow on both sides.
func (f *PacketFlow) Close() error {
	f.end()
	return nil
}

// Peer is who is at the other end.
func (f *PacketFlow) Peer() peer.ID { return f.s.id }

// LocalAddr is this node.
func (f *PacketFlow) LocalAddr() net.Addr {
	return Addr{Peer: f.s.m.cfg.Key.ID(), Service: f.service}
}

// RemoteAddr is the peer and the flow: WriteTo of a PacketListener takes it.
func (f *PacketFlow) RemoteAddr() net.Addr { return Addr{f.s.id, f.service, f} }

// SetDeadline sets the deadline of Read; Write never waits.
func (f *PacketFlow) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (f *PacketFlow) SetReadDeadline(t time.Time) error {
	f.inbox.setDeadline(t)
	return nil
}

// SetWriteDeadline implements [net.Conn]; Write never waits.
func (f *PacketFlow) SetWriteDeadline(time.Time) error { return nil }

// PacketListener takes the datagrams to one service, of all peers and flows, as
// a [net.PacketConn].
type PacketListener struct {
	m       *Manager
	service string
	inbox   *inbox
}

// ListenPacket takes datagrams to a service from now on.
func (m *Manager) ListenPacket(service string) (*PacketListener, error) {
	if err := checkService(service); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	if m.packets[service] != nil {
		return nil, ErrServiceTaken
	}
	l := &PacketListener{m: m, service: service, inbox: newInbox()}
	m.packets[service] = l
	return l, nil
}

// ReadFrom returns one datagram and the Addr of its peer and flow.
func (l *PacketListener) ReadFrom(b []byte) (int, net.Addr, error) {
	d, err := l.inbox.get()
	if err != nil {
		return 0, nil, err
	}
	return copy(b, d.data), d.from.RemoteAddr(), nil
}

// WriteTo answers on the flow that ReadFrom named.
func (l *PacketListener) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(Addr)
	if !ok || a.flow == nil {
		return 0, fmt.Errorf("write to %v: it is not an address that ReadFrom returned", to)
	}
	return a.flow.Write(b)
}

// LocalAddr is this node and the service.
func (l *PacketListener) LocalAddr() net.Addr {
	return Addr{Peer: l.m.cfg.Key.ID(), Service: l.service}
}

// Close ends listening, and the flows to this service.
func (l *PacketListener) Close() error {
	l.m.mu.Lock()
	if l.m.packets[l.service] == l {
		delete(l.m.packets, l.service)
	}
	l.m.mu.Unlock()
	l.m.each(func(s *session) {
		s.mu.Lock()
		var mine []*PacketFlow
		for _, f := range s.flows {
			if f.listener == l {
				mine = append(mine, f)
			}
		}
		s.mu.Unlock()
		for _, f := range mine {
			f.end()
		}
	})
	l.end()
	return nil
}

func (l *PacketListener) end() { l.inbox.close() }

// SetDeadline sets the deadline of ReadFrom; WriteTo never waits.
func (l *PacketListener) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

// SetReadDeadline implements [net.PacketConn].
func (l *PacketListener) SetReadDeadline(t time.Time) error {
	l.inbox.setDeadline(t)
	return nil
}

// SetWriteDeadline implements [net.PacketConn]; WriteTo never waits.
func (l *PacketListener) SetWriteDeadline(time.Time) error { return nil }
