package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"bodkin/internal/sock"
	"bodkin/peer"
)

// Server is a rendezvous server over UDP, TCP and TLS. Its methods are safe for concurrent use.
type Server struct {
	cfg      ServerConfig
	sockets  []*sock.Socket
	streams  streams
	icmp     []*sock.ICMP
	closed   chan struct{}
	close    func()
	mu       sync.Mutex // of the two that follow
	registry *Registry
	next     time.Time     // when the registry wants a Tick
	wake     chan struct{} // next is earlier now
}

// NewServer binds the endpoints. The server answers once Serve runs; one that
// never does needs a Close. Of the unspecified addresses (0.0.0.0 and ::), that of
// a family which the system does not have is left out.
func NewServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("rendezvous: ServerConfig.Key is the zero key; make one with peer.GenerateKey or read one with peer.LoadKey")
	}
	if len(cfg.ListenTLS) > 0 && cfg.TLS == nil {
		return nil, errors.New("rendezvous: ServerConfig.ListenTLS needs a certificate: set TLS")
	}
	if cfg.Network == nil {
		cfg.Network = sock.System{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, closed: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.close = sync.OnceFunc(func() {
		close(s.closed)
		for _, c := range s.sockets {
			_ = c.Close()
		}
		s.streams.close()
		for _, c := range s.icmp {
			_ = c.Close()
		}
	})
	if err := s.bind(ctx); err != nil {
		s.close()
		return nil, fmt.Errorf("rendezvous: %w", err)
	}
	s.keep(NewRegistry(cfg.Key, cfg.Limits, nil, cfg.known(s.Addrs())...))
	return s, nil
}

// keep makes r the server's state.
func (s *Server) keep(r *Registry) {
	s.registry = r
	s.streams.limit = min(r.limits.Streams, maxStreams-maxStrangers)
	s.streams.unsent.Limit = maxUnsent
	s.streams.accepts.key = r.streamed.key
}

// bind opens the sockets.
func (s *Server) bind(ctx context.Context) error {
	var missing error
	for _, l := range s.cfg.endpoints() {
		network := "udp4"
		if !l.Addr().Unmap().Is4() {
			network = "udp6"
		}
		c, err := sock.Open(ctx, s.cfg.Network, network, l.AddrPort)
		switch {
		case err == nil:
			s.sockets = append(s.sockets, c)
			if !l.spare {
				s.listenBeside(ctx, c.Local())
			}
		case l.Addr().IsUnspecified() && noFamily(err):
			missing = err
		case l.spare:
			s.cfg.Logger.Info("no second port", "endpoint", l, "error", err)
		default:
			return err
		}
	}
	if len(s.sockets) == 0 {
		return missing
	}
	if err := s.openICMP(ctx); err != nil {
		return err
	}
	return s.listenStreams(ctx)
}

// noFamily reports whether err says that the system lacks the address family.
func noFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// ID is who the server is.
func (s *Server) ID() peer.ID { return s.cfg.Key.ID() }

// Addrs are the endpoints that the server is bound to.
func (s *Server) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, c := range s.sockets {
		out = append(out, c.Local())
	}
	return out
}

// URL is what nodes need to find the server at host, on the port of its first
// endpoint, and by its connections where these are at other ports than usual.
func (s *Server) URL(host string) URL {
	u := URL{Host: host, Port: s.sockets[0].Local().Port(), ID: s.ID()}
	tcp, tls := s.StreamAddrs()
	usual, usualTLS := u.Streams()
	has := func(all []netip.AddrPort, port uint16) bool {
		return slices.ContainsFunc(all, func(a netip.AddrPort) bool { return a.Port() == port })
	}
	if len(tcp) > 0 && !has(tcp, usual) {
		u.TCP = tcp[0].Port()
	}
	if len(tls) > 0 && !has(tls, usualTLS) {
		u.TLS = tls[0].Port()
	}
	return u
}

// Stats returns what the server has done so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registry.Stats()
}

// Close ends Serve and frees the endpoints. A closed server cannot serve again.
func (s *Server) Close() error {
	s.close()
	return nil
}

// Serve answers until ctx ends or Close is called, and closes the sockets then: it
// can be called once. The error is the first that a socket died of, and nil after
// an end that was asked for.
func (s *Server) Serve(ctx context.Context) error {
	defer s.close()
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	failed := make(chan error, len(s.sockets)+len(s.icmp))
	var wg sync.WaitGroup
	for i, c := range s.sockets {
		wg.Go(func() {
			if err := s.read(i, c); err != nil {
				failed <- fmt.Errorf("rendezvous: %s: %w", c.Local(), err)
			}
			s.close()
		})
	}
	for _, l := range s.streams.listeners {
		wg.Go(func() {
			s.accept(l)
			s.close()
		})
	}
	for i, c := range s.icmp {
		wg.Go(func() {
			if err := s.readICMP(i, c); err != nil {
				failed <- fmt.Errorf("rendezvous: ICMP: %w", err)
			}
			s.close()
		})
	}
	s.tick()
	wg.Wait()
	s.streams.serving.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// read steps the registry with every packet of one socket: those that came
// together under one lock.
func (s *Server) read(local int, c *sock.Socket) error {
	var b burst
	var now time.Time // zero while the lock is not held
	return c.ReadBatches(func(from netip.AddrPort, packet []byte) {
		if now.IsZero() {
			s.mu.Lock()
			now = time.Now()
		}
		var next time.Time
		b.out, next = s.registry.Step(now, local, from, packet, b.out)
		s.plan(next)
	}, func() {
		if now.IsZero() {
			return
		}
		s.mu.Unlock()
		now = time.Time{}
		s.write(&b)
	})
}

// plan notes when the registry wants a Tick, under the lock.
func (s *Server) plan(next time.Time) {
	if !s.next.IsZero() && !next.Before(s.next) {
		return
	}
	s.next = next
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// burst is packets on their way out.
type burst struct {
	out    []Outgoing
	joined []byte
	batch  sock.Batch // of packets from one socket
	local  int        // which
	waits  bool       // something is in it
}

// write sends a burst in few calls to the kernel. Packets of one size to one endpoint
// that follow each other, as relayed ones do, are joined; others are batched.
func (s *Server) write(b *burst) {
	for left := b.out; len(left) > 0; {
		first, n := left[0], 1
		if isICMP(first.Local) {
			s.writeICMP(first)
			left = left[1:]
			continue
		}
		if isStream(first.Local) {
			s.streams.write(first)
			left = left[1:]
			continue
		}
		for n < len(left) && joins(first, left[n-1], left[n]) {
			n++
		}
		if n > 1 || first.Local != b.local {
			s.flush(b)
		}
		if b.local = first.Local; n == 1 {
			b.batch.Add(first.To, first.Data)
			b.waits = true
		} else {
			b.joined = b.joined[:0]
			for _, o := range left[:n] {
				b.joined = append(b.joined, o.Data...)
			}
			s.sent(s.sockets[first.Local].SendSegments(first.To, b.joined, len(first.Data)))
		}
		left = left[n:]
	}
	s.flush(b)
	clear(b.out) // what it points to may be long
	b.out = b.out[:0]
}

// flush sends what is batched.
func (s *Server) flush(b *burst) {
	if b.waits {
		b.waits = false
		s.sent(s.sockets[b.local].SendBatch(&b.batch))
	}
}

func (s *Server) sent(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		s.cfg.Logger.Debug("packets not sent", "error", err)
	}
}

// joins reports whether next can follow before, the latest in a run that began with
// first: only the last packet of a run may be shorter.
func joins(first, before, next Outgoing) bool {
	return next.Local == first.Local && next.To == first.To &&
		len(before.Data) == len(first.Data) && len(next.Data) <= len(first.Data) && len(next.Data) > 0
}

// tick repeats and forgets, until the server is closed.
func (s *Server) tick() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var b burst
	for {
		select {
		case <-s.closed:
			return
		case <-timer.C:
		case <-s.wake:
		}
		s.mu.Lock()
		b.out, s.next = s.registry.Tick(time.Now(), b.out)
		next := s.next
		s.mu.Unlock()
		s.write(&b)
		timer.Reset(time.Until(next))
	}
}
