package rendezvous

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

const (
	// maxStreams and streamsPerPrefix bound connections, each of some ten kB:
	// in all, and from an IPv4 /24 or IPv6 /48.
	maxStreams       = 1024
	streamsPerPrefix = 32
	// streamIdle is how long a client may take for its next message, with the TLS
	// handshake before the first.
	streamIdle = 30 * time.Second
	// acceptPause is how long no connection is taken after the system had no
	// room for one.
	acceptPause = 100 * time.Millisecond
)

// streams are the listeners for TCP and TLS, and the connections that came.
type streams struct {
	listeners []streamListener
	mu        sync.Mutex
	open      map[net.Conn]netip.Prefix
	prefixes  map[netip.Prefix]int
	closed    bool
	serving   sync.WaitGroup
}

// streamListener accepts connections; those with a configuration speak TLS.
type streamListener struct {
	net.Listener
	tls *tls.Config
}

// listenStreams opens the listeners.
func (s *Server) listenStreams(ctx context.Context) error {
	for _, of := range []struct {
		endpoints []netip.AddrPort
		tls       *tls.Config
	}{{s.cfg.ListenTCP, nil}, {s.cfg.ListenTLS, s.cfg.TLS}} {
		for _, e := range of.endpoints {
			l, err := s.listenStream(ctx, e)
			if err != nil && e.Addr().IsUnspecified() && noFamily(err) {
				continue
			}
			if err != nil {
				return err
			}
			s.streams.listeners = append(s.streams.listeners, streamListener{l, of.tls})
		}
	}
	return nil
}

func (s *Server) listenStream(ctx context.Context, e netip.AddrPort) (net.Listener, error) {
	n, ok := s.cfg.Network.(sock.StreamNetwork)
	if !ok {
		return nil, fmt.Errorf("listen at %v over TCP: this network has UDP alone: %w", e, errors.ErrUnsupported)
	}
	network := "tcp4"
	if !e.Addr().Unmap().Is4() {
		network = "tcp6"
	}
	return n.Listen(ctx, network, e)
}

// StreamAddrs are the endpoints at which the server takes connections over TCP and
// over TLS.
func (s *Server) StreamAddrs() (tcp, tls []netip.AddrPort) {
	for _, l := range s.streams.listeners {
		a, _ := l.Addr().(*net.TCPAddr)
		if l.tls == nil {
			tcp = append(tcp, a.AddrPort())
		} else {
			tls = append(tls, a.AddrPort())
		}
	}
	return tcp, tls
}

// accept serves connections until the listener is closed.
func (s *Server) accept(l streamListener) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors, or the client went away
			s.cfg.Logger.Debug("connection not accepted", "error", err)
			select {
			case <-s.closed:
				return
			case <-time.After(acceptPause):
			}
		case !s.streams.add(c):
			s.limited()
			_ = c.Close()
		default:
			s.streams.serving.Go(func() {
				s.serveStream(c, l.tls)
				s.streams.remove(c)
			})
		}
	}
}

// add takes a connection in, unless there are too many.
func (t *streams) add(c net.Conn) bool {
	from, _ := c.RemoteAddr().(*net.TCPAddr)
	if from == nil {
		return false
	}
	prefix := prefixOf(from.AddrPort().Addr().Unmap())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.open) >= maxStreams || t.prefixes[prefix] >= streamsPerPrefix {
		return false
	}
	if t.open == nil {
		t.open, t.prefixes = make(map[net.Conn]netip.Prefix), make(map[netip.Prefix]int)
	}
	t.open[c] = prefix
	t.prefixes[prefix]++
	return true
}

func (t *streams) remove(c net.Conn) {
	_ = c.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	prefix := t.open[c]
	delete(t.open, c)
	if t.prefixes[prefix]--; t.prefixes[prefix] == 0 {
		delete(t.prefixes, prefix)
	}
}

// close ends all listeners and connections.
func (t *streams) close() {
	for _, l := range t.listeners {
		_ = l.Close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.open {
		_ = c.Close()
	}
}

// serveStream answers one message after another. A stream on which something else
// came is of no use any more, and ends.
func (s *Server) serveStream(raw net.Conn, config *tls.Config) {
	c := raw
	if config != nil {
		c = tls.Server(raw, config)
	}
	from := raw.RemoteAddr().(*net.TCPAddr).AddrPort()
	r := bufio.NewReaderSize(c, wire.MaxFrame)
	for {
		if raw.SetDeadline(time.Now().Add(streamIdle)) != nil {
			return
		}
		b, err := wire.ReadFrame(r)
		if err != nil {
			return
		}
		s.mu.Lock()
		answer, ok := s.registry.stream(time.Now(), from, b)
		s.mu.Unlock()
		if !ok {
			return
		}
		if len(answer) == 0 {
			continue
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// limited counts a connection that was refused.
func (s *Server) limited() {
	s.mu.Lock()
	s.registry.stats.Limited++
	s.mu.Unlock()
}

// stream answers a message that came over TCP or TLS: plain Binding alone, of which
// the answer can only go back by the way that it came. It is not ok where the
// stream is to end.
func (r *Registry) stream(now time.Time, from netip.AddrPort, b []byte) (answer []byte, ok bool) {
	r.begin(now, nil)
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	m, err := wire.Decode(b)
	if err != nil || m.Type.Method != stun.MethodBinding || m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil {
		r.stats.Malformed++
		return nil, false
	}
	switch m.Type.Class {
	case stun.ClassIndication:
		return nil, true
	case stun.ClassRequest:
	default:
		r.stats.Malformed++
		return nil, false
	}
	if !r.streamed.take(r.now, from.Addr(), r.limits.Bindings) {
		r.stats.Limited++
		return nil, false
	}
	r.stats.Bindings++
	a := wire.BindingAnswer{ID: m.TransactionID, Fingerprint: m.Contains(stun.AttrFingerprint)}
	if unknown := unknownRequired(m, knownOverTCP); len(unknown) > 0 {
		a.Code, a.Unknown = int(stun.CodeUnknownAttribute), unknown
	} else {
		a.Mapped = from
	}
	return a.Append(nil), true
}
