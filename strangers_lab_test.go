package bodkin_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"
)

// withStranger is a lab with one more host, from which everybody can be reached who has a
// public address.
func withStranger(t *testing.T) homes {
	t.Helper()
	netbed.Need(t)
	topology := natlab.TwoHomes(natlab.Options{PresetA: natlab.Open})
	topology.Hosts = append(topology.Hosts, natlab.Host{Name: "stranger"})
	l, err := netbed.Start(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	s, stop := startServer(t, rendezvous.ServerConfig{
		Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	})
	return homes{l, s, stop, s.URL(h.Addr().String()).String()}
}

// forgedProbe is a probe of a session that there is not, in its frame.
func forgedProbe() []byte {
	b := make([]byte, 82)
	binary.BigEndian.PutUint16(b, 80)
	copy(b[2:], []byte{0, 1, 0, 60, 0x21, 0x12, 0xa4, 0x42})
	copy(b[22:], []byte{0xc0, 0xb4, 0, 8})
	copy(b[34:], []byte{0xc0, 0xb1, 0, 8})
	copy(b[46:], []byte{0, 0x1c, 0, 32})
	return b
}

// Strangers who connect to the port that is punched from, and say nothing, half of
// something, rubbish or a forged probe, disturb nobody.
func TestStrangersDisturbNoAttempt(t *testing.T) {
	t.Parallel()
	const port = 41000
	says := [][]byte{nil, forgedProbe()[:40], []byte("GET / HTTP/1.1\r\n\r\n"), forgedProbe(), {0xff, 0xff, 1}, make([]byte, 4096)}
	h := withStranger(t)
	cfg := bodkin.Config{Transports: []string{"tcp"}, Port: port}
	a, b := h.node(t, "a", cfg), h.node(t, "b", tcpOnly)
	echo(t, b, "echo")
	ctx := testContext(t)
	if err := a.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(h.Host("a").Addr(), port)
	flooding, stop := context.WithCancel(ctx)
	var came atomic.Int64
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := i; flooding.Err() == nil; n++ {
				visit(flooding, h.Host("stranger"), at, says[n%len(says)])
				came.Add(1)
			}
		})
	}
	for came.Load() < 30 { // they have begun
		runtime.Gosched()
	}
	events := a.Events(ctx)
	begin := time.Now()
	if _, err := a.Dial(ctx, b.ID(), "echo"); err != nil {
		t.Fatal(err)
	}
	d := untilDirect(t, ctx, events).Sub(begin)
	n := came.Load()
	stop()
	wg.Wait()
	t.Logf("direct after %v, while %d strangers came", d, n)
	if pong, err := a.Ping(ctx, b.ID()); err != nil || pong.Route.Transport != "tcp" {
		t.Errorf("pinged by %v: %v", pong.Route, err)
	}
}

// visit connects, says something, and stays until it is sent away or ctx ends: not for
// long.
func visit(ctx context.Context, from *netbed.Host, at netip.AddrPort, says []byte) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	c, err := from.DialTCP(ctx, "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), 0), at, 0)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = c.Write(says)
	_, _ = c.Read(make([]byte, 1))
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}
