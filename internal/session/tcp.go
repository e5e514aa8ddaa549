package session

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"time"

	"bodkin/peer"

	"github.com/quic-go/quic-go"
)

// alpnTCP names what runs on a connection over TCP that was handed over (RFC 7301).
const alpnTCP = "bodkin-tcp/1"

// TokenSize is the size of the token that names a connection to be handed over.
const TokenSize = 16

// AskTCP tells the peer that a connection over TCP will be handed over to a service,
// with a token that is to be secret. The error is a *[RefusedError] if the peer does not
// want that.
func (m *Manager) AskTCP(ctx context.Context, id peer.ID, remote netip.AddrPort, service string, token [TokenSize]byte) error {
	if err := CheckService(service); err != nil {
		return err
	}
	s, err := m.session(ctx, id, remote)
	if err != nil {
		return err
	}
	stream, err := s.open(ctx, kindTCP, service)
	if err != nil {
		return err
	}
	defer s.done(stream)
	stop := context.AfterFunc(ctx, func() { stream.CancelRead(codeDone) })
	defer stop()
	if _, err = stream.Write(token[:]); err == nil {
		_ = stream.Close()
		_, err = io.ReadFull(stream, make([]byte, 1))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return s.explain(service, err)
	}
	return nil
}

// answerTCP says whether somebody takes the connection.
func (s *session) answerTCP(stream *quic.Stream, service string) {
	var token [TokenSize]byte
	_ = stream.SetReadDeadline(time.Now().Add(headerTime))
	if _, err := io.ReadFull(stream, token[:]); err != nil {
		s.refuse(stream, codeBadHeader)
		return
	}
	if s.m.cfg.TCP == nil || !s.m.cfg.TCP(s.id, service, token) {
		s.refuse(stream, codeUnknownService)
		return
	}
	_, _ = stream.Write([]byte{1})
	_ = stream.Close()
	s.done(stream)
}

// TLS is what both ends of a connection over TCP prove themselves with: want is the peer
// at the other end.
func (m *Manager) TLS(want peer.ID) *tls.Config {
	c := tlsConfig(m.cert, want)
	c.NextProtos = []string{alpnTCP}
	return c
}
