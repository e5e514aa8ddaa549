package session

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// probeTime is how long QUIC's own path validation may take.
	probeTime = 3 * time.Second
	// probeAgain is the pause before it is tried again while the wish holds.
	probeAgain = time.Second
)

// prefer notes the latest wish; an older one that was not taken up is dropped.
func (s *session) prefer(class Class) {
	for {
		select {
		case s.best <- class:
			return
		default:
		}
		select {
		case <-s.best:
		default:
		}
	}
}

// migrate moves a connection that we dialled to the class that is best, for as
// long as the connection lives. A move starts congestion control, round trip and
// packet size afresh on both sides (RFC 9000 §9.4), which is the reason to move
// instead of sending elsewhere unnoticed.
func (s *session) migrate() {
	ctx := s.conn.Context()
	var now *quic.Path // nil: the path of the handshake
	var again <-chan time.Time
	want := s.class
	for {
		select {
		case want = <-s.best:
		case <-again:
		case <-ctx.Done():
			return
		}
		again = nil
		if want == s.class || want == 0 {
			continue
		}
		next, err := s.moveTo(ctx, want)
		if err != nil {
			again = time.After(probeAgain)
			continue
		}
		if now != nil {
			_ = now.Close() // retires its connection IDs, or moving would end
		}
		now = next
		s.class = want
		s.m.cfg.Logger.Debug("session moved", "peer", s.id.Short(), "class", want.String())
	}
}

// moveTo validates the path over a class and switches to it.
func (s *session) moveTo(ctx context.Context, class Class) (*quic.Path, error) {
	t := s.m.movedTo(class)
	if t == nil {
		return nil, ErrClosed
	}
	p, err := s.conn.AddPath(t)
	if err != nil {
		return nil, err
	}
	probe, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := p.Probe(probe); err != nil {
		_ = p.Close()
		return nil, err
	}
	if err := p.Switch(); err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}
