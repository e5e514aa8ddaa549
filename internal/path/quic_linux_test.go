package path

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"bodkin/internal/sock"
	"bodkin/punch"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// One stream of quic-go's over loopback, on a bare UDP socket and on ours with a route
// to the other end. GRO is off in both, since quic-go cannot use it: what differs is
// what our layers cost. An iteration is 1 MiB. To compare them, in turns:
//
//	go test -c -o /tmp/path.test ./internal/path
//	for i in $(seq 10); do /tmp/path.test -test.run '^$' -test.bench UnderQUIC -test.benchtime 1s; done > /tmp/turns
//	go tool -modfile=tools/go.mod benchstat -col /socket /tmp/turns
func BenchmarkUnderQUIC(b *testing.B) {
	for name, open := range map[string]func(*testing.B) (from, to quicEnd){"bare": bareEnds, "bodkin": ourEnds} {
		b.Run("socket="+name, func(b *testing.B) {
			from, to := quicStream(b, open)
			const size = 1 << 20
			block, read := make([]byte, size), make([]byte, size)
			b.SetBytes(size)
			before := cpuTime()
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
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quicEnd is what quic-go reads and writes, and where the other end finds it.
type quicEnd struct {
	conn net.PacketConn
	at   *net.UDPAddr
}

func bareEnds(b *testing.B) (from, to quicEnd) {
	b.Helper()
	open := func() quicEnd {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		return quicEnd{c, c.LocalAddr().(*net.UDPAddr)}
	}
	return open(), open()
}

func ourEnds(b *testing.B) (from, to quicEnd) {
	b.Helper()
	x, y := ourSocket(b, selfAt, true), ourSocket(b, peerA, false)
	for _, end := range []struct {
		of, other *ours
		at        netip.Addr
	}{{x, y, peerA}, {y, x, selfAt}} {
		hole := Key{Local: 1, To: end.other.c.Local()}
		end.of.AddPeer(end.at)
		end.of.Hear(end.at, hole)
		end.of.Publish(end.at, []Route{{Key: hole}})
	}
	at := func(a netip.Addr) *net.UDPAddr { return &net.UDPAddr{IP: a.AsSlice(), Port: int(punch.UDP)} }
	return quicEnd{x.Dial(), at(selfAt)}, quicEnd{y.Accept(), at(peerA)}
}

type ours struct {
	*Socket
	c *sock.Socket
}

// ourSocket is a Socket over one of the system's, without GRO.
func ourSocket(b *testing.B, overlay netip.Addr, dials bool) *ours {
	b.Helper()
	c, err := sock.Open(context.Background(), sock.System{}, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		b.Fatal(err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 0) })
	if err != nil {
		b.Fatal(err)
	}
	s := NewSocket(SocketConfig{
		Overlay: overlay, Dialled: func([]byte) bool { return dials },
		Control: func(Key, []byte) {},
		Active:  func(netip.Addr, Key, time.Time, int) {},
	})
	s.SetSocket(1, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.ReadRuns(func(from netip.AddrPort, p []byte, segment int) bool { return s.DeliverRun(1, from, p, segment) })
	}()
	b.Cleanup(func() {
		s.Close()
		_ = c.Close()
		<-done
	})
	return &ours{s, c}
}

// quicStream is a stream between two ends; packets have Bodkin's size on both.
func quicStream(b *testing.B, open func(*testing.B) (from, to quicEnd)) (io.Writer, io.Reader) {
	b.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		b.Fatal(err)
	}
	identity := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"bench"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
	}
	cfg := &quic.Config{
		InitialPacketSize: 1228, DisablePathMTUDiscovery: true,
		InitialStreamReceiveWindow: 2 << 20, MaxStreamReceiveWindow: 32 << 20,
		InitialConnectionReceiveWindow: 4 << 20, MaxConnectionReceiveWindow: 64 << 20,
	}
	from, to := open(b)
	dialler, acceptor := &quic.Transport{Conn: from.conn}, &quic.Transport{Conn: to.conn}
	l, err := acceptor.Listen(identity, cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	c, err := dialler.Dial(ctx, to.at, identity, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.CloseWithError(0, "")
		_ = dialler.Close()
		_ = acceptor.Close()
	})
	out, err := c.OpenStreamSync(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := out.Write([]byte{0}); err != nil {
		b.Fatal(err)
	}
	accepted, err := l.Accept(ctx)
	if err != nil {
		b.Fatal(err)
	}
	in, err := accepted.AcceptStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.ReadFull(in, make([]byte, 1))
	if err != nil {
		b.Fatal(err)
	}
	return out, in
}
