package bodkin

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/sock"
	"bodkin/internal/tunnel"
	"bodkin/internal/wire"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// connectTime is how long a connection to the server may take, with proxy and TLS.
const connectTime = 10 * time.Second

// streamFraming is that of STUN and ChannelData over TCP.
var streamFraming = sock.Framing{Room: wire.MaxFrame, Read: wire.ReadFrame, Append: wire.AppendFrame, Size: wire.FrameSize}

// streams are the connections to the server: those that the core asked for and has not
// given up.
type streams struct {
	mu     sync.Mutex
	cancel map[punch.Local]func()
	open   map[punch.Local]*sock.Stream
	closed bool
}

// connect opens a connection and reads it, beside the loop.
func (l *loop) connect(a node.Action) {
	n := l.node
	ctx, cancel := context.WithTimeout(n.ctx, connectTime)
	n.streams.mu.Lock()
	if n.streams.cancel == nil {
		n.streams.cancel, n.streams.open = make(map[punch.Local]func()), make(map[punch.Local]*sock.Stream)
	}
	n.streams.cancel[a.By.Local] = cancel
	n.streams.mu.Unlock()
	n.wg.Go(func() {
		defer cancel()
		err := n.stream(ctx, a)
		n.streams.remove(a.By.Local)
		n.path.SetSocket(a.By.Local, nil)
		if !errors.Is(err, rendezvous.ErrCertificate) && !errors.Is(err, tunnel.ErrProxy) {
			err = nil // that there is nothing needs no reason
		}
		n.tell(node.Input{Op: node.Disconnected, Local: a.By.Local, Err: err})
	})
}

// stream is a connection from its beginning to its end.
func (n *Node) stream(ctx context.Context, a node.Action) error {
	conn, err := n.dialServer(ctx, a.By, a.TLS)
	if err != nil {
		n.cfg.Logger.Debug("no connection to the server", "to", a.By.To, "tls", a.TLS, "error", err)
		return err
	}
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	s := sock.NewStream(conn, remote, streamFraming, nil)
	if !n.streams.add(a.By.Local, s) {
		return s.Abort()
	}
	n.path.SetSocket(a.By.Local, s)
	n.tell(node.Input{Op: node.Connected, Local: a.By.Local, From: s.Remote()})
	err = s.Read(func(b []byte) bool {
		n.path.Deliver(a.By.Local, s.Remote(), b)
		return true
	}, func() time.Time { return time.Time{} })
	_ = s.Abort()
	return err
}

// dialServer connects to the server at k.To, or by its name if that is not valid, and
// directly or through a proxy.
func (n *Node) dialServer(ctx context.Context, k path.Key, secure bool) (net.Conn, error) {
	tcpPort, port := n.url.Streams()
	if !secure {
		port = tcpPort
	}
	target := net.JoinHostPort(n.url.Host, strconv.Itoa(int(port)))
	p, err := n.proxy(target)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	switch {
	case p != nil:
		conn, err = tunnel.Dial(ctx, n.dialName, p, target)
	default:
		conn, err = n.dialTCP(ctx, n.streamPort(k.To.Addr().Is4()), k.To)
	}
	if err != nil || !secure {
		return conn, err
	}
	t := tls.Client(conn, rendezvous.ClientTLS(n.url))
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return t, nil
}

// proxy is the one to reach the server through, or nil.
func (n *Node) proxy(target string) (*url.URL, error) {
	return n.cfg.Proxy(&url.URL{Scheme: "https", Host: target})
}

// dialName connects to HOST:PORT: to each of its addresses until one answers.
func (n *Node) dialName(ctx context.Context, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	addrs, err := sock.Lookup(ctx, n.cfg.Network, host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := n.dialTCP(ctx, 0, netip.AddrPortFrom(a.Unmap(), uint16(port)))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialTCP connects from a local port, or from another one if it is not free.
func (n *Node) dialTCP(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error) {
	network, ok := n.cfg.Network.(sock.StreamNetwork)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	family, local := "tcp4", netip.IPv4Unspecified()
	if !to.Addr().Is4() {
		family, local = "tcp6", netip.IPv6Unspecified()
	}
	c, err := network.DialTCP(ctx, family, netip.AddrPortFrom(local, port), to, 0)
	if err != nil && port != 0 && sock.PortTaken(err) {
		return network.DialTCP(ctx, family, netip.AddrPortFrom(local, 0), to, 0)
	}
	return c, err
}

// streamPort is the port that connections to the server leave from: what the server
// sees of it is where peers can reach us by TCP.
func (n *Node) streamPort(is4 bool) uint16 {
	for _, p := range n.ports {
		if p.bound.Addr().Is4() == is4 {
			return p.bound.Port()
		}
	}
	for _, s := range n.sockets {
		if s.Is4() == is4 {
			return s.Local().Port()
		}
	}
	return 0
}

// streamEndpoints are where the server may take connections, TCP first: at each of its
// addresses, or where its name leads a proxy.
func (n *Node) streamEndpoints(addrs []netip.Addr) (out []rendezvous.StreamEndpoint) {
	defer func() { out = append(out, n.echoEndpoints(addrs)...) }()
	if _, ok := n.cfg.Network.(sock.StreamNetwork); !ok {
		return nil
	}
	tcp, secure := n.url.Streams()
	for _, kind := range []struct {
		via  string
		port uint16
	}{{ViaTCP, tcp}, {ViaTLS, secure}} {
		if n.cfg.ServerVia != "" && n.cfg.ServerVia != kind.via {
			continue
		}
		p, err := n.proxy(net.JoinHostPort(n.url.Host, strconv.Itoa(int(kind.port))))
		if err != nil {
			n.cfg.Logger.Warn("proxy not used", "error", err)
		}
		if p != nil {
			out = append(out, rendezvous.StreamEndpoint{TLS: kind.via == ViaTLS})
			continue
		}
		for _, a := range addrs {
			out = append(out, rendezvous.StreamEndpoint{Addr: netip.AddrPortFrom(a.Unmap(), kind.port), TLS: kind.via == ViaTLS})
		}
	}
	return out
}

// add takes an open connection in, unless it has been given up.
func (s *streams) add(local punch.Local, c *sock.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.cancel[local] == nil {
		return false
	}
	s.open[local] = c
	return true
}

func (s *streams) remove(local punch.Local) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, local)
	delete(s.cancel, local)
}

// disconnect gives a connection up.
func (s *streams) disconnect(local punch.Local) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.cancel[local]; cancel != nil {
		cancel()
	}
	if c := s.open[local]; c != nil {
		_ = c.Abort()
	}
	delete(s.open, local)
	delete(s.cancel, local)
}

// close closes all of them, after what waits has left: the goodbyes.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range open {
		wg.Go(func() { _ = c.Close() })
	}
	wg.Wait()
}
