package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"bodkin/internal/sock"
	"bodkin/peer"
)

// ServerConfig says how a server is. Key is needed.
type ServerConfig struct {
	Key peer.Key
	// Listen are the endpoints to bind, UDP; nil means port 3478 of all
	// addresses, IPv4 and IPv6. On a machine with several addresses name each:
	// answers leave from the address that was asked.
	Listen []netip.AddrPort
	Limits Limits
	// Network makes the sockets: the system's if nil.
	Network sock.Network
	Logger  *slog.Logger
}

// Server is a rendezvous server over UDP.
type Server struct {
	cfg      ServerConfig
	sockets  []*sock.Socket
	mu       sync.Mutex // of registry
	registry *Registry
	wake     chan struct{}
}

// NewServer binds the endpoints. The server answers once Serve runs.
func NewServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("rendezvous: ServerConfig.Key is the zero key")
	}
	if cfg.Network == nil {
		cfg.Network = sock.System{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = []netip.AddrPort{
			netip.AddrPortFrom(netip.IPv4Unspecified(), DefaultPort),
			netip.AddrPortFrom(netip.IPv6Unspecified(), DefaultPort),
		}
	}
	s := &Server{cfg: cfg, registry: NewRegistry(cfg.Key, cfg.Limits, nil), wake: make(chan struct{}, 1)}
	for _, l := range cfg.Listen {
		network := "udp4"
		if !l.Addr().Unmap().Is4() {
			network = "udp6"
		}
		c, err := sock.Open(ctx, cfg.Network, network, l)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("rendezvous: %w", err)
		}
		s.sockets = append(s.sockets, c)
	}
	return s, nil
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
// endpoint.
func (s *Server) URL(host string) URL {
	return URL{Host: host, Port: s.sockets[0].Local().Port(), ID: s.ID()}
}

// Stats returns what the server has done so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registry.Stats()
}

// Serve answers until ctx ends, and closes the sockets then. It returns the
// first error that a socket died of.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	var wg sync.WaitGroup
	for i, c := range s.sockets {
		wg.Go(func() {
			if err := s.read(i, c); err != nil {
				cancel(fmt.Errorf("rendezvous: %s: %w", c.Local(), err))
			}
		})
	}
	s.tick(ctx)
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Server) close() {
	for _, c := range s.sockets {
		_ = c.Close()
	}
}

// read steps the registry with every packet of one socket.
func (s *Server) read(local int, c *sock.Socket) error {
	var out []Outgoing
	return c.Read(func(from netip.AddrPort, b []byte) {
		control := len(b) > 0 && b[0] < 4
		s.mu.Lock()
		out = s.registry.Step(time.Now(), local, from, b, out[:0])
		s.mu.Unlock()
		s.write(out)
		if control {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	})
}

func (s *Server) write(out []Outgoing) {
	for _, o := range out {
		if err := s.sockets[o.Local].Send(o.To, 0, o.Data); err != nil && !errors.Is(err, net.ErrClosed) {
			s.cfg.Logger.Debug("packet not sent", "to", o.To, "error", err)
		}
	}
}

// tick repeats and forgets, until ctx ends.
func (s *Server) tick(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var out []Outgoing
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		s.mu.Lock()
		var next time.Time
		out, next = s.registry.Tick(time.Now(), out[:0])
		s.mu.Unlock()
		s.write(out)
		timer.Reset(time.Until(next))
	}
}
