package rendezvous

import (
	"container/list"
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
	// maxStrangers and strangersPerPrefix bound connections of those who have not
	// registered, each of some ten kB: in all, and from an IPv4 /24 or IPv6 /48. Where
	// there are more the oldest one ends: whoever means to register has by then.
	maxStrangers       = 1024
	strangersPerPrefix = 32
	// prefixShare of the connections of registered nodes can be of one prefix.
	prefixShare = 8
	// acceptsPerPrefix is how many connections of one prefix are taken in a second,
	// with a TLS handshake each.
	acceptsPerPrefix = 64
	// firstPatience is how long a client may take for its first message, with the TLS
	// handshake before it, and strangerPatience for every further one until it is
	// registered. A registered node says something within its registration's lifetime.
	firstPatience    = 10 * time.Second
	strangerPatience = 30 * time.Second
	// acceptPause is how long no connection is taken after the system had no
	// room for one.
	acceptPause = 100 * time.Millisecond
	// maxUnsent bounds what waits for all connections together, in bytes.
	maxUnsent = 64 << 20
)

// framing is that of STUN and ChannelData over TCP.
var framing = sock.Framing{Room: wire.MaxFrame, Read: wire.ReadFrame, Append: wire.AppendFrame, Size: wire.FrameSize}

// streams are the listeners for TCP and TLS, and the connections that came.
type streams struct {
	listeners []streamListener
	limit     int // of connections of registered nodes
	unsent    sock.Budget
	serving   sync.WaitGroup

	mu         sync.RWMutex
	open       map[int]*stream // by the registry's number
	next       int             // where the search for a free number begins
	strangers  list.List       // connections that have not registered, the oldest one first
	registered int             // connections that have
	prefixes   map[netip.Prefix]prefixStreams
	accepts    prefixLimit
	closed     bool
}

type prefixStreams struct{ strangers, registered int }

// stream is one connection.
type stream struct {
	*sock.Stream
	local  int
	prefix netip.Prefix
	// stranger is its place among those that have not registered, or nil.
	stranger   *list.Element
	registered bool // of its reader, and of remove after that
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

// listenBeside opens a listener for TCP at the port of a UDP socket, if that is the
// default and the port is free.
func (s *Server) listenBeside(ctx context.Context, e netip.AddrPort) {
	if s.cfg.ListenTCP != nil {
		return
	}
	l, err := s.listenStream(ctx, e)
	if err != nil {
		s.cfg.Logger.Info("no TCP", "endpoint", e, "error", err)
		return
	}
	s.streams.listeners = append(s.streams.listeners, streamListener{l, nil})
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
		default:
			x, limited := s.streams.add(c, l.tls)
			if limited {
				s.limited()
			}
			if x == nil {
				_ = c.Close()
				continue
			}
			s.streams.serving.Go(func() {
				s.serveStream(x)
				s.streams.remove(x)
			})
		}
	}
}

// add takes a connection in, unless its prefix has too many. It is limited too where
// another one had to go for it.
func (t *streams) add(c net.Conn, config *tls.Config) (x *stream, limited bool) {
	from, _ := c.RemoteAddr().(*net.TCPAddr)
	if from == nil {
		return nil, false
	}
	remote := netip.AddrPortFrom(from.AddrPort().Addr().Unmap(), from.AddrPort().Port())
	prefix := prefixOf(remote.Addr())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false
	}
	if !t.accepts.take(time.Now(), remote.Addr(), acceptsPerPrefix) {
		return nil, true
	}
	switch {
	case t.prefixes[prefix].strangers >= strangersPerPrefix:
		limited = true
		t.evict(func(x *stream) bool { return x.prefix == prefix })
	case t.strangers.Len() >= maxStrangers:
		limited = true
		t.evict(func(*stream) bool { return true })
	}
	if t.open == nil {
		t.open, t.prefixes = make(map[int]*stream), make(map[netip.Prefix]prefixStreams)
	}
	for t.open[firstStream+t.next] != nil {
		t.next = (t.next + 1) % maxStreams
	}
	if config != nil {
		c = tls.Server(c, config)
	}
	x = &stream{Stream: sock.NewStream(c, remote, framing, &t.unsent), local: firstStream + t.next, prefix: prefix}
	t.next = (t.next + 1) % maxStreams
	t.open[x.local] = x
	x.stranger = t.strangers.PushBack(x)
	t.count(prefix, 1, 0)
	return x, limited
}

// evict ends the oldest of some connections that have not registered. Under the lock.
func (t *streams) evict(which func(*stream) bool) {
	for e := t.strangers.Front(); e != nil; e = e.Next() {
		if x := e.Value.(*stream); which(x) {
			t.known(x)
			t.count(x.prefix, -1, 0)
			_ = x.Abort()
			return
		}
	}
}

// known takes a connection from those that have not registered. Under the lock.
func (t *streams) known(x *stream) {
	t.strangers.Remove(x.stranger)
	x.stranger = nil
}

// count changes what a prefix has. Under the lock.
func (t *streams) count(prefix netip.Prefix, strangers, registered int) {
	n := t.prefixes[prefix]
	n.strangers, n.registered = n.strangers+strangers, n.registered+registered
	t.registered += registered
	if t.prefixes[prefix] = n; n == (prefixStreams{}) {
		delete(t.prefixes, prefix)
	}
}

// register counts a connection among those of registered nodes, if there is room.
func (t *streams) register(x *stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.stranger == nil || t.registered >= t.limit || t.prefixes[x.prefix].registered >= max(1, t.limit/prefixShare) {
		return false
	}
	t.known(x)
	t.count(x.prefix, -1, 1)
	return true
}

func (t *streams) remove(x *stream) {
	_ = x.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.stranger != nil {
		t.known(x)
		t.count(x.prefix, -1, 0)
	} else if x.registered {
		t.count(x.prefix, 0, -1)
	}
	delete(t.open, x.local)
}

// close ends all listeners and connections.
func (t *streams) close() {
	for _, l := range t.listeners {
		_ = l.Close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, x := range t.open {
		_ = x.Abort()
	}
}

// write puts a packet on its connection, or ends that. Should the number be another
// connection's by now, it is not for that.
func (t *streams) write(o Outgoing) {
	t.mu.RLock()
	x := t.open[o.Local]
	t.mu.RUnlock()
	switch {
	case x == nil || x.Remote() != o.To:
	case len(o.Data) == 0:
		_ = x.Abort()
	case o.Data[0]&0xF0 == 0x40:
		x.Queue(o.To, o.Data, 0)
	default:
		_ = x.Send(o.To, 0, o.Data)
	}
}

// serveStream steps the registry with every message of a connection.
func (s *Server) serveStream(x *stream) {
	var b burst
	var now time.Time // zero while the lock is not held
	registered, patience := false, firstPatience
	unlock := func() {
		if now.IsZero() {
			return
		}
		s.mu.Unlock()
		now = time.Time{}
		s.write(&b)
	}
	_ = x.Read(func(packet []byte) bool {
		if now.IsZero() {
			s.mu.Lock()
			now = time.Now()
		}
		var next time.Time
		b.out, next = s.registry.Step(now, x.local, x.Remote(), packet, b.out)
		s.plan(next)
		registered = s.registry.byStream[uint16(x.local)] != nil
		n := len(b.out)
		return n == 0 || b.out[n-1].Data != nil
	}, func() time.Time {
		if !now.IsZero() {
			patience = strangerPatience
		}
		unlock()
		if registered && !x.registered {
			if x.registered = s.streams.register(x); !x.registered {
				s.limited()
				_ = x.Abort()
			}
		}
		if x.registered {
			patience = s.registry.limits.Lifetime
		}
		return time.Now().Add(patience)
	})
	unlock()
	s.mu.Lock()
	s.registry.Hangup(x.local)
	s.mu.Unlock()
}

// limited counts a connection that was refused.
func (s *Server) limited() {
	s.mu.Lock()
	s.registry.stats.Limited++
	s.mu.Unlock()
}

// stream takes a message that came over TCP or TLS. Plain Binding has its answer, which
// can only go back by the way that it came; the rest is as over UDP.
func (r *Registry) stream(local int, from netip.AddrPort, b []byte) {
	m, err := wire.Decode(b)
	switch {
	case err != nil || m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil:
		r.malformed(local, from)
	case m.Type == stun.BindingRequest:
		r.streamBinding(local, from, m)
	default:
		r.message(local, from, m)
	}
}

// streamBinding answers a plain Binding request, and ends the connection of those who
// ask too often.
func (r *Registry) streamBinding(local int, from netip.AddrPort, m *stun.Message) {
	if !r.streamed.take(r.now, from.Addr(), r.limits.Bindings) {
		r.stats.Limited++
		r.send(local, from, nil)
		return
	}
	r.stats.Bindings++
	a := wire.BindingAnswer{ID: m.TransactionID, Fingerprint: m.Contains(stun.AttrFingerprint)}
	if unknown := unknownRequired(m, knownOverTCP); len(unknown) > 0 {
		a.Code, a.Unknown = int(stun.CodeUnknownAttribute), unknown
	} else {
		a.Mapped = from
	}
	r.send(local, from, a.Append(nil))
}
