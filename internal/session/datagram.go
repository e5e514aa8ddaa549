package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin/peer"

	"github.com/quic-go/quic-go"
)

const (
	// MaxDatagram is the largest payload of a datagram, in bytes: what fits a
	// QUIC packet beside its headers.
	MaxDatagram = 1150
	// flowQueue is how many datagrams of a flow wait to be read; the newest is
	// dropped when it is full.
	flowQueue = 256
	// outboxLength is how many datagrams of a session wait to leave, beside
	// those that wait in QUIC.
	outboxLength = 16
	// maxEarly is how many datagrams wait for their flow to be opened.
	maxEarly = 32
)

// PacketFlow is a flow of unreliable datagrams with a peer, as a message-oriented
// [net.Conn]: a Write is a datagram of at most MaxDatagram bytes, a Read returns
// one. It lives as long as the stream that opened it.
type PacketFlow struct {
	s        *session
	stream   *quic.Stream // nil: a Conn's, which is none of the flow's business
	id       uint64
	service  string
	inbox    *inbox
	listener *PacketListener // whose inbox it is; nil: its own
	write    deadline
	done     chan struct{} // closed with the flow
	once     sync.Once
}

func (s *session) newFlow(stream *quic.Stream, service string, l *PacketListener) *PacketFlow {
	f := &PacketFlow{
		s: s, stream: stream, id: uint64(stream.StreamID()), service: service, listener: l,
		done: make(chan struct{}),
	}
	if l != nil {
		f.inbox = l.inbox
	} else {
		f.inbox = newInbox()
	}
	s.addFlow(f)
	if !s.m.begin() {
		f.end()
		return f
	}
	go func() {
		defer s.m.wg.Done()
		// Nothing is ever written to the stream: its end is the flow's.
		_, _ = io.Copy(io.Discard, stream)
		f.end()
	}()
	return f
}

// addFlow lets datagrams come to a flow, first those that were too early.
func (s *session) addFlow(f *PacketFlow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flows[f.id] = f
	s.early = slices.DeleteFunc(s.early, func(e earlyDatagram) bool {
		if e.flow == f.id {
			f.inbox.put(datagram{e.data, f})
		}
		return e.flow == f.id
	})
}

// flowOf opens the flow of the datagrams beside a connection's stream.
func (s *session) flowOf(c *Conn) *PacketFlow {
	f := &PacketFlow{
		s: s, id: uint64(c.StreamID()), service: c.service, inbox: newInbox(), done: make(chan struct{}),
	}
	s.addFlow(f)
	if s.conn.Context().Err() != nil {
		f.end() // the session's end may have missed it
	}
	return f
}

// end forgets a flow.
func (f *PacketFlow) end() {
	f.once.Do(func() {
		f.s.mu.Lock()
		delete(f.s.flows, f.id)
		f.s.mu.Unlock()
		if f.stream != nil {
			f.stream.CancelRead(codeDone)
			_ = f.stream.Close()
			f.s.ledger.consumed(f.id)
		}
		close(f.done)
		if f.listener == nil {
			f.inbox.close()
		}
	})
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

// earlyDatagram is one that overtook the stream that opens its flow.
type earlyDatagram struct {
	flow uint64
	data []byte
}

// receiveDatagrams hands datagrams to their flows. One whose flow is not open
// yet waits for it among the latest few; of a flow that has ended it is lost.
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
		if f == nil {
			if len(s.early) == maxEarly {
				s.early = slices.Delete(s.early, 0, 1)
			}
			s.early = append(s.early, earlyDatagram{id, payload})
		}
		s.mu.Unlock()
		if f != nil {
			f.inbox.put(datagram{payload, f})
		}
	}
}

// sendDatagrams hands datagrams to QUIC, which makes the sender wait.
func (s *session) sendDatagrams() {
	for {
		select {
		case b := <-s.outbox:
			if err := s.conn.SendDatagram(b); err != nil {
				s.m.cfg.Logger.Debug("datagram not sent", "peer", s.id.Short(), "bytes", len(b), "error", err)
			}
		case <-s.conn.Context().Done():
			return
		}
	}
}

// DialPacket opens a flow of datagrams to a service of a peer.
func (m *Manager) DialPacket(ctx context.Context, id peer.ID, remote netip.AddrPort, service string) (*PacketFlow, error) {
	if err := CheckService(service); err != nil {
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

// Write sends one datagram. It waits while the session sends at its limit, until
// the write deadline.
func (f *PacketFlow) Write(b []byte) (int, error) { return f.send(b, &f.write) }

func (f *PacketFlow) send(b []byte, until *deadline) (int, error) {
	if len(b) > MaxDatagram {
		return 0, fmt.Errorf("datagram of %d bytes: the largest has %d", len(b), MaxDatagram)
	}
	d := append(appendFlow(make([]byte, 0, len(b)+8), f.id), b...)
	ended := f.s.conn.Context()
	for {
		over, moved, stop, err := until.watch()
		if err != nil {
			return 0, err
		}
		// Where several can go on the choice is random: what has ended comes first.
		select {
		case <-ended.Done():
			stop()
			return 0, f.s.explain(f.service, context.Cause(ended))
		case <-f.done:
			stop()
			return 0, net.ErrClosed
		default:
		}
		select {
		case f.s.outbox <- d:
			stop()
			return len(b), nil
		case <-ended.Done():
		case <-f.done:
		case <-moved:
		case <-over:
		}
		stop()
	}
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

// SetDeadline sets the deadlines of Read and Write.
func (f *PacketFlow) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (f *PacketFlow) SetReadDeadline(t time.Time) error {
	f.inbox.deadline.set(t)
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (f *PacketFlow) SetWriteDeadline(t time.Time) error {
	f.write.set(t)
	return nil
}

// PacketListener takes the datagrams to one service, of all peers and flows, as
// a [net.PacketConn].
type PacketListener struct {
	m       *Manager
	service string
	inbox   *inbox
	write   deadline
}

// ListenPacket takes datagrams to a service from now on.
func (m *Manager) ListenPacket(service string) (*PacketListener, error) {
	if err := CheckService(service); err != nil {
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

// WriteTo answers on the flow that ReadFrom named. It waits while the session
// with that peer sends at its limit, until the write deadline.
func (l *PacketListener) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(Addr)
	if !ok || a.flow == nil {
		return 0, fmt.Errorf("write to %v: it is not an address that ReadFrom returned", to)
	}
	if a.flow.listener != l {
		return 0, fmt.Errorf("write to %v: it is another listener's", to)
	}
	return a.flow.send(b, &l.write)
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

// SetDeadline sets the deadlines of ReadFrom and WriteTo.
func (l *PacketListener) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.PacketConn].
func (l *PacketListener) SetReadDeadline(t time.Time) error {
	l.inbox.deadline.set(t)
	return nil
}

// SetWriteDeadline implements [net.PacketConn].
func (l *PacketListener) SetWriteDeadline(t time.Time) error {
	l.write.set(t)
	return nil
}
