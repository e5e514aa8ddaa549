package sock

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// open makes a socket on loopback; it skips where the system lacks the family.
func open(t *testing.T, n Network, network string) *Socket {
	t.Helper()
	local := netip.MustParseAddrPort("127.0.0.1:0")
	if network == "udp6" {
		local = netip.MustParseAddrPort("[::1]:0")
	}
	s, err := Open(t.Context(), n, network, local)
	if NoFamily(err) {
		t.Skipf("no %s here: %v", network, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

type packet struct {
	from netip.AddrPort
	data []byte
}

// reading runs a socket's reader until the test ends.
func reading(t *testing.T, s *Socket) <-chan packet {
	t.Helper()
	out := make(chan packet, 1024)
	done := make(chan error, 1)
	go func() {
		done <- s.Read(func(from netip.AddrPort, b []byte) { out <- packet{from, bytes.Clone(b)} })
	}()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; err != nil {
			t.Errorf("the reader ended with %v", err)
		}
	})
	return out
}

// simulated is a network whose sockets are not the system's.
type simulated struct{ System }

func (n simulated) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	c, err := n.System.ListenPacket(ctx, network, local)
	return struct{ net.PacketConn }{c}, err
}

func TestPacketsPassBothWays(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp4", "udp6"} {
		for name, n := range map[string]Network{"system": System{}, "simulated": simulated{}} {
			t.Run(network+" "+name, func(t *testing.T) {
				t.Parallel()
				a, b := open(t, n, network), open(t, n, network)
				atA, atB := reading(t, a), reading(t, b)
				if a.Is4() != (network == "udp4") || !a.Local().IsValid() {
					t.Errorf("socket is at %v", a.Local())
				}
				for _, size := range []int{0, 1, 1228, 2048} {
					sent := bytes.Repeat([]byte{7}, size)
					if err := a.Send(b.Local(), 0, sent); err != nil {
						t.Fatal(err)
					}
					got := <-atB
					if got.from != a.Local() || !bytes.Equal(got.data, sent) {
						t.Errorf("%d bytes of %v became %d of %v", size, a.Local(), len(got.data), got.from)
					}
					if err := b.Send(got.from, 0, got.data); err != nil {
						t.Fatal(err)
					}
					if got := <-atA; got.from != b.Local() || len(got.data) != size {
						t.Errorf("%d bytes came back from %v", len(got.data), got.from)
					}
				}
			})
		}
	}
}

// segments is a payload of n bytes and what must arrive of it.
func segments(n, segment int) (b []byte, want [][]byte) {
	b = make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	return b, slices.Collect(slices.Chunk(b, segment))
}

func TestSegmentsArriveAsPackets(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]Network{"system": System{}, "simulated": simulated{}} {
		for _, network := range []string{"udp4", "udp6"} {
			t.Run(name+" "+network, func(t *testing.T) {
				t.Parallel()
				a, b := open(t, n, network), open(t, n, network)
				atB := reading(t, b)
				for _, c := range []struct{ size, segment int }{
					{1000, 0},
					{1000, 1000},
					{1000, 2000},
					{2456, 1228},
					{2457, 1228},
					{20000, 1228},
					{100, 1},
					{200 * 64, 64},
					{70_000, 1200},
				} {
					sent, want := segments(c.size, max(1, c.segment))
					if c.segment == 0 {
						want = [][]byte{sent}
					}
					if err := a.SendSegments(b.Local(), sent, c.segment); err != nil {
						t.Fatalf("%+v: %v", c, err)
					}
					for i, w := range want {
						if got := <-atB; !bytes.Equal(got.data, w) {
							t.Fatalf("%+v: packet %d has %d bytes, want %d", c, i, len(got.data), len(w))
						}
					}
				}
				if d := a.Dropped.Load(); d != 0 {
					t.Errorf("%d packets dropped", d)
				}
			})
		}
	}
}

func TestSplitTakesApartWhatTheKernelJoined(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in      string
		segment int
		want    string
	}{
		{"abcdefgh", 3, "abc|def|gh"},
		{"abcdef", 3, "abc|def"},
		{"ab", 3, "ab"},
		{"abc", 0, "abc"},
		{"", 0, ""},
		{"abc", -1, "abc"},
	} {
		var got []string
		split(netip.AddrPort{}, []byte(c.in), c.segment, func(_ netip.AddrPort, b []byte) { got = append(got, string(b)) })
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("split(%q, %d) gave %q, want %q", c.in, c.segment, s, c.want)
		}
	}
}

func TestOversizeIsAnErrorAndCounted(t *testing.T) {
	t.Parallel()
	a, b := open(t, System{}, "udp4"), open(t, System{}, "udp4")
	if err := a.Send(b.Local(), 0, make([]byte, 70_000)); err == nil {
		t.Error("70,000 bytes were sent as one packet")
	}
	if err := a.SendSegments(b.Local(), make([]byte, 140_000), 70_000); err == nil {
		t.Error("two packets of 70,000 bytes were sent")
	}
	if d := a.Dropped.Load(); d != 3 {
		t.Errorf("%d packets dropped, want 3", d)
	}
	atB := reading(t, b)
	if err := a.Send(b.Local(), 0, []byte("small")); err != nil {
		t.Errorf("then a small packet: %v", err)
	}
	if got := <-atB; string(got.data) != "small" {
		t.Errorf("got %d bytes", len(got.data))
	}
}

func TestOtherFamilyIsRefused(t *testing.T) {
	t.Parallel()
	a := open(t, System{}, "udp4")
	if err := a.Send(netip.MustParseAddrPort("[::1]:9"), 0, []byte{1}); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("an IPv4 socket sent to IPv6: %v", err)
	}
	c := open(t, System{}, "udp6")
	if err := c.Send(netip.MustParseAddrPort("127.0.0.1:9"), 0, []byte{1}); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("an IPv6 socket sent to IPv4: %v", err)
	}
}

func TestCloseEndsTheReader(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]Network{"system": System{}, "simulated": simulated{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, n, "udp4")
			done := make(chan error)
			go func() { done <- s.Read(func(netip.AddrPort, []byte) {}) }()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Errorf("the reader ended with %v", err)
			}
			if err := s.Send(netip.MustParseAddrPort("127.0.0.1:9"), 0, []byte{1}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a closed socket sent: %v", err)
			}
		})
	}
}

// An ICMP error says nothing about the next packet.
func TestReaderSurvivesErrorsOfThePath(t *testing.T) {
	t.Parallel()
	for _, e := range errnosPassing {
		pc := &scripted{errs: []error{&net.OpError{Op: "read", Err: e}, nil, net.ErrClosed}}
		got := 0
		s := &Socket{conn: pc}
		if err := s.Read(func(netip.AddrPort, []byte) { got++ }); err != nil || got != 1 {
			t.Errorf("after %v: %d packets, %v", e, got, err)
		}
	}
	broken := errors.New("broken")
	s := &Socket{conn: &scripted{errs: []error{broken}}}
	if err := s.Read(func(netip.AddrPort, []byte) {}); !errors.Is(err, broken) {
		t.Errorf("an error that is no path's: %v", err)
	}
}

// scripted returns one error after the other; nil stands for a packet.
type scripted struct {
	net.PacketConn
	errs []error
}

func (s *scripted) ReadFrom(b []byte) (int, net.Addr, error) {
	err := s.errs[0]
	s.errs = s.errs[1:]
	return copy(b, "x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, err
}

func TestTTLWhereTheSystemCannot(t *testing.T) {
	t.Parallel()
	s := open(t, simulated{}, "udp4")
	if err := s.Send(s.Local(), 2, []byte{1}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a simulated socket sent with a TTL: %v", err)
	}
	if _, err := s.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a simulated socket has a descriptor: %v", err)
	}
}

func TestPrefixesAreOfUsefulAddresses(t *testing.T) {
	t.Parallel()
	prefixes, err := System{}.Prefixes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prefixes {
		if a := p.Addr(); !p.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() {
			t.Errorf("prefix %v", p)
		}
	}
}
