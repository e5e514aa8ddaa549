package session

import (
	"context"
	"time"
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

// startAfresh moves the connection to where it is, after an outage: what was under way
// counts as lost, and leaves again at once. QUIC's timers would wait for up to a minute.
func (s *session) startAfresh() {
	s.moving.Lock()
	defer s.moving.Unlock()
	if s.at == nil {
		select {
		case s.renew <- struct{}{}: // one cannot switch to the path of the handshake
		default:
		}
		return
	}
	if s.at.Switch() != nil {
		return
	}
	select {
	case s.outbox <- nil: // a datagram of no flow, which is ignored, so that QUIC looks
	default:
	}
}

// migrate moves a connection that we dialled to the class that is best, for as
// long as the connection lives. A move starts congestion control, round trip and
// packet size afresh on both sides (RFC 9000 §9.4), which is the reason to move
// instead of sending elsewhere unnoticed.
func (s *session) migrate() {
	ctx := s.conn.Context()
	var again <-chan time.Time
	want, renew := s.class, false
	for {
		select {
		case want = <-s.best:
		case <-s.renew:
			renew = true
		case <-again:
		case <-ctx.Done():
			return
		}
		again = nil
		if want == 0 {
			want = s.class
		}
		if want == s.class && !renew {
			continue
		}
		if err := s.moveTo(ctx, want); err != nil {
			again = time.After(probeAgain)
			continue
		}
		s.class, renew = want, false
		s.m.cfg.Logger.Debug("session moved", "peer", s.id.Short(), "class", want.String())
	}
}

// moveTo validates the path over a class and switches to it.
func (s *session) moveTo(ctx context.Context, class Class) error {
	t := s.m.movedTo(class)
	if t == nil {
		return ErrClosed
	}
	p, err := s.conn.AddPath(t)
	if err != nil {
		return err
	}
	probe, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := p.Probe(probe); err != nil {
		_ = p.Close()
		return err
	}
	s.moving.Lock()
	defer s.moving.Unlock()
	if err := p.Switch(); err != nil {
		_ = p.Close()
		return err
	}
	if s.at != nil {
		_ = s.at.Close() // retires its connection IDs, or moving would end
	}
	s.at = p
	return nil
}
