package natlab_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/natlab"
)

func newLive(t *testing.T, topology natlab.Topology) *natlab.Live {
	t.Helper()
	l, err := natlab.NewLive(topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func listen(t *testing.T, h *natlab.LiveHost) net.PacketConn {
	t.Helper()
	c, err := h.ListenPacket(t.Context(), "udp4", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// whole is where a socket is reached on its own link.
func whole(h *natlab.LiveHost, c net.PacketConn) net.Addr {
	return net.UDPAddrFromAddrPort(at(h.Addr(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port()))
}

func TestLiveSocketsInFakeTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, natlab.TwoHomes(natlab.Options{}))
		s, a := listen(t, l.Host("server")), listen(t, l.Host("a"))
		begin := time.Now()
		for _, text := range []string{"one", "two"} {
			if n, err := a.WriteTo([]byte(text), whole(l.Host("server"), s)); n != 3 || err != nil {
				t.Fatal(n, err)
			}
			b := make([]byte, 2) // what is longer is cut
			n, from, err := s.ReadFrom(b)
			if err != nil || string(b[:n]) != text[:2] {
				t.Fatalf("got %q, %v", b[:n], err)
			}
			if _, err := s.WriteTo([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			if n, _, err = a.ReadFrom(make([]byte, 100)); n != 6 || err != nil {
				t.Fatal(n, err)
			}
		}
		if d := time.Since(begin); d != 120*time.Millisecond {
			t.Errorf("two round trips took %v", d)
		}
	})
}

func TestLiveDeadlinesAndClosing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, natlab.TwoHomes(natlab.Options{}))
		a := listen(t, l.Host("a"))
		begin := time.Now()
		_ = a.SetReadDeadline(begin.Add(time.Second))
		var timeout net.Error
		if _, _, err := a.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("at the deadline: %v", err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("the deadline came after %v", d)
		}
		// A deadline that is moved, and closing, reach a reader that waits.
		for _, end := range []func(){
			func() { _ = a.SetDeadline(time.Now()) },
			func() { _ = a.Close() },
		} {
			_ = a.SetReadDeadline(time.Time{})
			var wg sync.WaitGroup
			wg.Go(func() { _, _, _ = a.ReadFrom(nil) })
			synctest.Wait()
			end()
			wg.Wait()
		}
		if _, _, err := a.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if _, err := a.WriteTo(nil, whole(l.Host("server"), a)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		b := listen(t, l.Host("b"))
		l.Close()
		if _, _, err := b.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after the network's end: %v", err)
		}
		if _, err := l.Host("b").ListenPacket(t.Context(), "udp4", netip.AddrPort{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listen after the network's end: %v", err)
		}
	})
}

func TestLiveRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, natlab.TwoHomes(natlab.Options{}))
		h := l.Host("a")
		a := listen(t, h)
		own := a.LocalAddr().(*net.UDPAddr).AddrPort()
		for what, f := range map[string]func() error{
			"a port that is taken": func() error { _, err := h.ListenPacket(t.Context(), "udp4", own); return err },
			"an address of another": func() error {
				_, err := h.ListenPacket(t.Context(), "udp4", at(l.Host("b").Addr(), 0))
				return err
			},
			"IPv6 where there is none": func() error { _, err := h.ListenPacket(t.Context(), "udp6", netip.AddrPort{}); return err },
			"TCP":                      func() error { _, err := h.ListenPacket(t.Context(), "tcp4", netip.AddrPort{}); return err },
			"too many bytes":           func() error { _, err := a.WriteTo(make([]byte, 1473), whole(h, a)); return err },
			"another family": func() error {
				_, err := a.WriteTo(nil, &net.UDPAddr{IP: net.IPv6loopback, Port: 9})
				return err
			},
			"no UDP address": func() error { _, err := a.WriteTo(nil, &net.TCPAddr{}); return err },
			"no port":        func() error { _, err := a.WriteTo(nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 10)}); return err },
		} {
			var op *net.OpError
			if err := f(); !errors.As(err, &op) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// A host that nobody reads from loses what its socket cannot hold.
func TestLiveReceiveBufferIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLive(t, natlab.Topology{Hosts: []natlab.Host{{Name: "x"}, {Name: "y"}}})
		x, y := listen(t, l.Host("x")), listen(t, l.Host("y"))
		const sent = 6000
		for range sent {
			if _, err := x.WriteTo(make([]byte, 1000), whole(l.Host("y"), y)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		_ = y.SetReadDeadline(time.Now().Add(time.Second))
		n := 0
		for ; ; n++ {
			if _, _, err := y.ReadFrom(nil); err != nil {
				break
			}
		}
		if n != 4194 {
			t.Errorf("%d of %d packets of 1000 bytes arrived", n, sent)
		}
	})
}
