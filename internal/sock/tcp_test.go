package sock

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// shared listens on a port that can be shared, of loopback.
func shared(t *testing.T, network string) (net.Listener, netip.AddrPort) {
	t.Helper()
	at := netip.MustParseAddrPort("127.0.0.1:0")
	if network == "tcp6" {
		at = netip.MustParseAddrPort("[::1]:0")
	}
	l, err := System{}.ListenTCP(t.Context(), network, at)
	if NoFamily(err) {
		t.Skipf("no %s here: %v", network, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// The listener, the connection to the server and each punching connection have one port.
func TestOnePortForListenerAndConnections(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, ttl := range []uint8{0, 9} {
			l, at := shared(t, network)
			for range 3 {
				far, farAt := shared(t, network)
				c, err := System{}.DialTCP(t.Context(), network, at, farAt, ttl)
				if err != nil {
					t.Fatalf("%s, TTL %d: %v", network, ttl, err)
				}
				defer func() { _ = c.Close() }()
				in, err := far.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = in.Close() }()
				if from := in.RemoteAddr().(*net.TCPAddr).AddrPort(); from != at {
					t.Errorf("%s: it came from %v, want %v", network, from, at)
				}
				if hops := hopsOf(t, c, network == "tcp4"); hops < 32 {
					t.Errorf("%s: TTL %d stays %d", network, ttl, hops)
				}
			}
			// The listener still takes who comes.
			c, err := new(net.Dialer).DialContext(t.Context(), network, at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.Write([]byte("x")); _ = c.Close() }()
			if b, err := io.ReadAll(in); string(b) != "x" {
				t.Errorf("read %q, %v", b, err)
			}
			_ = in.Close()
		}
	}
}

// hopsOf is the TTL of what leaves by a connection.
func hopsOf(t *testing.T, c net.Conn, is4 bool) (hops int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := control(raw, func(fd uintptr) error {
		if hops, err = limitHops(fd, is4, 64); err != nil {
			return err
		}
		_, err := limitHops(fd, is4, hops)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return hops
}

func TestNobodyListensThere(t *testing.T) {
	t.Parallel()
	_, at := shared(t, "tcp4")
	gone, goneAt := shared(t, "tcp4")
	_ = gone.Close()
	if _, err := (System{}).DialTCP(t.Context(), "tcp4", at, goneAt, 0); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want a refusal", err)
	}
}

// A port that has an ordinary listener is not taken from it.
func TestOrdinaryListenerKeepsItsPort(t *testing.T) {
	t.Parallel()
	l, err := System{}.Listen(t.Context(), "tcp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := (System{}).ListenTCP(t.Context(), "tcp4", l.Addr().(*net.TCPAddr).AddrPort()); err == nil {
		t.Error("the port was taken")
	}
}
