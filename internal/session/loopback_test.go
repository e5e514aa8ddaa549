package session_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/session"
	"bodkin/internal/sock"
	"bodkin/peer"
	"bodkin/punch"
)

// end is a node without a control plane: one socket on loopback, and a direct
// route to one peer that is given, not punched.
type end struct {
	*session.Manager
	key     peer.Key
	overlay netip.Addr
	socket  *sock.Socket
	path    *path.Socket
}

func newEnd(tb testing.TB, seed byte) *end {
	tb.Helper()
	e := &end{key: peer.NewKey([32]byte{seed})}
	e.overlay = peer.Overlay(e.key.ID(), 1)
	var err error
	if e.socket, err = sock.Open(context.Background(), sock.System{}, "udp4", netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
		tb.Fatal(err)
	}
	e.path = path.NewSocket(path.SocketConfig{
		Overlay: e.overlay, Dialled: session.Dialled, ConnID: session.ConnID,
		Control: func(path.Key, []byte) {},
		Active:  func(netip.Addr, path.Key, time.Time, int) {},
	})
	e.path.SetSocket(1, e.socket)
	return e
}

// start begins to serve, with other as the only peer. dress may wrap the
// connection that QUIC dials on.
func (e *end) start(tb testing.TB, other *end, dress func(net.PacketConn) net.PacketConn) {
	tb.Helper()
	hole := path.Key{Local: 1, To: other.socket.Local()}
	e.path.AddPeer(other.overlay)
	e.path.Hear(other.overlay, hole)
	e.path.Publish(other.overlay, []path.Route{{Key: hole}})
	var err error
	if e.Manager, err = session.NewManager(session.Config{
		Key: e.key, Accept: e.path.Accept(), Dial: dress(e.path.Dial()), Moved: e.path.Moved,
		Identify: func(a netip.Addr) (peer.ID, bool) { return other.key.ID(), a == other.overlay },
	}); err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- e.socket.Read(func(from netip.AddrPort, b []byte) { e.path.Deliver(1, from, b) })
	}()
	tb.Cleanup(func() {
		_ = e.Close()
		_ = e.socket.Close()
		e.path.Close()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}

// overLoopback are the two ends of a stream over a direct route.
func overLoopback(tb testing.TB, dress func(net.PacketConn) net.PacketConn) (a, b net.Conn) {
	tb.Helper()
	x, y := newEnd(tb, 1), newEnd(tb, 2)
	x.start(tb, y, dress)
	y.start(tb, x, func(c net.PacketConn) net.PacketConn { return c })
	l, err := y.Listen("bulk")
	if err != nil {
		tb.Fatal(err)
	}
	a, err = x.Dial(context.Background(), y.key.ID(), netip.AddrPortFrom(y.overlay, uint16(punch.UDP)), "bulk")
	if err != nil {
		tb.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	return a, b
}

func TestStreamOverRealSockets(t *testing.T) {
	t.Parallel()
	a, b := overLoopback(t, func(c net.PacketConn) net.PacketConn { return c })
	sent := bytes.Repeat([]byte("bodkin "), 1<<20)
	go func() {
		_, _ = a.Write(sent)
		_ = a.(*session.Conn).CloseWrite()
	}()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
}

// tcp is a TCP connection over loopback, with TLS if cfg is not nil.
func tcp(tb testing.TB, cfg *tls.Config) (a, b net.Conn) {
	tb.Helper()
	ctx := tb.Context()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	if cfg == nil {
		return a, b
	}
	client, server := tls.Client(a, cfg), tls.Server(b, cfg)
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(ctx) }()
	if err := errors.Join(client.HandshakeContext(ctx), <-done); err != nil {
		tb.Fatal(err)
	}
	return client, server
}

func tlsConfig(tb testing.TB) *tls.Config {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	}
}

// One stream over loopback by a direct route, next to what the kernel's TCP
// carries without and with encryption. Each iteration is 1 MiB.
func BenchmarkStream(b *testing.B) {
	system := func(c net.PacketConn) net.PacketConn { return c }
	// As over a socket that is not the system's: no segments, no batches.
	simulated := func(c net.PacketConn) net.PacketConn { return struct{ net.PacketConn }{c} }
	for _, c := range []struct {
		name string
		open func() (net.Conn, net.Conn)
	}{
		{"bodkin", func() (net.Conn, net.Conn) { return overLoopback(b, system) }},
		{"bodkin-plain", func() (net.Conn, net.Conn) { return overLoopback(b, simulated) }},
		{"tcp", func() (net.Conn, net.Conn) { return tcp(b, nil) }},
		{"tls", func() (net.Conn, net.Conn) { return tcp(b, tlsConfig(b)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			from, to := c.open()
			const size = 1 << 20
			block := make([]byte, size)
			read := make([]byte, size)
			b.SetBytes(size)
			begin := time.Now()
			b.ResetTimer()
			go func() {
				for range b.N {
					if _, err := from.Write(block); err != nil {
						return
					}
				}
			}()
			for range b.N {
				if _, err := io.ReadFull(to, read); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)*size*8/1e6/time.Since(begin).Seconds(), "Mbit/s")
			_ = from.Close()
			_ = to.Close()
		})
	}
}
