package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"bodkin/peer"

	"github.com/quic-go/quic-go"
)

// Why a connection ends (application error codes, RFC 9000 §20.2).
const (
	codeClosed quic.ApplicationErrorCode = iota
	codeWrongPeer
	codeNotAdmitted
	codeRestarted
	codeTooMany
)

// Why a stream ends.
const (
	codeDone quic.StreamErrorCode = iota
	codeUnknownService
	codeNotAllowed
	codeBusy
	codeBadHeader
	codeBrokenOff
)

// RefusedError says that the peer was reached and refused the connection.
type RefusedError struct {
	Peer    peer.ID
	Service string
	Reason  string
}

// Error says who refused what, and why.
func (e *RefusedError) Error() string {
	if e.Service == "" {
		return fmt.Sprintf("peer %s refused: %s", e.Peer.Short(), e.Reason)
	}
	return fmt.Sprintf("peer %s refused service %q: %s", e.Peer.Short(), e.Service, e.Reason)
}

// NoService reports whether nothing listens for the service.
func (e *RefusedError) NoService() bool { return e.Reason == reasons[codeUnknownService] }

var reasons = map[quic.StreamErrorCode]string{
	codeUnknownService: "nothing listens for it there",
	codeNotAllowed:     "this node is not allowed to use it; ask the peer's owner",
	codeBusy:           "too many connections wait there; try again later",
	codeBadHeader:      "it did not understand; is it of another version?",
}

var sessionReasons = map[quic.ApplicationErrorCode]string{
	codeWrongPeer:   "it knows another node under our address; try again",
	codeNotAdmitted: "it does not allow this node to connect; ask its owner",
	codeTooMany:     "this node has too many sessions with it",
}

// headerTime is how long a stream may take to say what it is for.
const headerTime = 30 * time.Second

// session is one QUIC connection with a peer.
type session struct {
	m       *Manager
	conn    *quic.Conn
	id      peer.ID
	overlay netip.Addr
	dialled bool
	class   Class      // that the connection was last moved to
	best    chan Class // the latest wish
	renew   chan struct{}
	moving  sync.Mutex
	at      *quic.Path // that it was last moved to; nil: the path of the handshake
	ledger  ledger

	outbox chan []byte // datagrams

	mu    sync.Mutex
	flows map[uint64]*PacketFlow
	early []earlyDatagram
}

func (m *Manager) newSession(c *quic.Conn, id peer.ID, overlay netip.Addr) *session {
	s := &session{
		m: m, conn: c, id: id, overlay: overlay,
		best:   make(chan Class, 1),
		renew:  make(chan struct{}, 1),
		outbox: make(chan []byte, outboxLength),
		flows:  make(map[uint64]*PacketFlow),
	}
	s.ledger.init()
	return s
}

// bySmaller reports whether the side with the smaller ID dialled the session.
func (s *session) bySmaller() bool {
	self := s.m.cfg.Key.ID()
	smaller := string(self[:]) < string(s.id[:])
	return smaller == s.dialled
}

// run starts what runs for a session until its connection ends.
func (s *session) run() {
	jobs := []func(){s.acceptStreams, s.receiveDatagrams, s.sendDatagrams}
	if s.dialled {
		jobs = append(jobs, s.migrate)
	}
	var wg sync.WaitGroup
	for _, job := range jobs {
		wg.Go(job)
	}
	go func() {
		defer s.m.wg.Done()
		<-s.conn.Context().Done()
		wg.Wait()
		s.closeFlows()
		s.m.remove(s)
	}()
}

// acceptStreams takes what the peer opens, each in a goroutine of its own: a
// slow header must not hold up the next stream.
func (s *session) acceptStreams() {
	for {
		stream, err := s.conn.AcceptStream(s.conn.Context())
		if err != nil {
			return
		}
		s.ledger.accepted(uint64(stream.StreamID()))
		if !s.m.begin() {
			return
		}
		go func() {
			defer s.m.wg.Done()
			s.serve(stream)
		}()
	}
}

// serve reads a stream's header and hands the stream to whom it is for.
func (s *session) serve(stream *quic.Stream) {
	_ = stream.SetReadDeadline(time.Now().Add(headerTime))
	k, service, err := readHeader(stream)
	_ = stream.SetReadDeadline(time.Time{})
	if err != nil {
		s.refuse(stream, codeBadHeader)
		return
	}
	switch k {
	case kindPing:
		s.answerPing(stream)
	case kindDrain, kindSettle:
		s.answerDrain(stream, k)
	case kindStream, kindDatagram, kindTCP:
		if s.m.cfg.Allow != nil && !s.m.cfg.Allow(s.id, service) {
			s.refuse(stream, codeNotAllowed)
			return
		}
		if k == kindTCP {
			s.answerTCP(stream, service)
			return
		}
		if code := s.deliver(stream, k, service); code != codeDone {
			s.refuse(stream, code)
		}
	}
}

// deliver gives a stream to the listener of its service.
func (s *session) deliver(stream *quic.Stream, k kind, service string) quic.StreamErrorCode {
	s.m.mu.Lock()
	l, p := s.m.listeners[service], s.m.packets[service]
	s.m.mu.Unlock()
	switch {
	case k == kindStream && l != nil:
		return l.offer(newConn(s, stream, service))
	case k == kindDatagram && p != nil:
		s.newFlow(stream, service, p)
		return codeDone
	}
	return codeUnknownService
}

func (s *session) refuse(stream *quic.Stream, code quic.StreamErrorCode) {
	stream.CancelRead(code)
	stream.CancelWrite(code)
	s.ledger.consumed(uint64(stream.StreamID()))
}

// open opens a stream with its header. The header leaves with the first packet;
// nothing waits for the peer.
func (s *session) open(ctx context.Context, k kind, service string) (*quic.Stream, error) {
	stream, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, s.explain(service, err)
	}
	s.ledger.opened(uint64(stream.StreamID()))
	if _, err := stream.Write(appendHeader(nil, k, service)); err != nil {
		s.done(stream)
		return nil, s.explain(service, err)
	}
	return stream, nil
}

// explain says in our words how the peer ended a stream or the connection; what
// it refused becomes a RefusedError.
func (s *session) explain(service string, err error) error {
	if stream, ok := errors.AsType[*quic.StreamError](err); ok && stream.Remote {
		switch stream.ErrorCode {
		case codeDone:
			return fmt.Errorf("peer %s closed the connection: %w", s.id.Short(), io.ErrClosedPipe)
		case codeBrokenOff:
			return fmt.Errorf("peer %s broke the connection off", s.id.Short())
		}
		if reason := reasons[stream.ErrorCode]; reason != "" {
			return &RefusedError{s.id, service, reason}
		}
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		reason := sessionReasons[app.ErrorCode]
		switch {
		case !app.Remote && app.ErrorCode == codeRestarted:
			return fmt.Errorf("peer %s restarted", s.id.Short())
		case app.Remote && (app.ErrorCode == codeClosed || app.ErrorCode == codeRestarted):
			return fmt.Errorf("peer %s ended the session", s.id.Short())
		case app.Remote && reason != "":
			return &RefusedError{s.id, "", reason}
		case app.Remote:
			return fmt.Errorf("peer %s ended the session: %w", s.id.Short(), err)
		}
	}
	return err
}
