package rendezvous

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"
)

// serveLoopback runs a server on loopback until the test ends.
func serveLoopback(tb testing.TB, limits Limits) *Server {
	tb.Helper()
	s, err := NewServer(tb.Context(), ServerConfig{Key: serverKey, Listen: []netip.AddrPort{ap("127.0.0.1:0")}, Limits: limits})
	if err != nil {
		tb.Fatal(err)
	}
	serve(tb, s)
	return s
}

func TestCloseEndsServe(t *testing.T) {
	t.Parallel()
	cfg := ServerConfig{Key: serverKey, Listen: []netip.AddrPort{ap("127.0.0.1:0"), ap("127.0.0.1:0")}}
	s, err := NewServer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	if _, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Listen: s.Addrs()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two servers on one port: %v", err)
	}
	_ = s.Close()
	_ = s.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	checkClosed(t, s)
	if err := s.Serve(t.Context()); err != nil {
		t.Errorf("Serve of a closed server: %v", err)
	}
}

func TestContextEndsServe(t *testing.T) {
	t.Parallel()
	for _, ended := range []func(context.Context) (context.Context, context.CancelFunc){
		context.WithCancel,
		func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Millisecond)
		},
	} {
		s, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Listen: []netip.AddrPort{ap("127.0.0.1:0")}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := ended(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		if _, timed := ctx.Deadline(); !timed {
			cancel()
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		cancel()
		checkClosed(t, s)
	}
}

// A server that never serves leaves nothing behind either.
func TestServerThatNeverServes(t *testing.T) {
	t.Parallel()
	s, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Listen: []netip.AddrPort{ap("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Stats() != (Stats{}) || s.ID() != serverKey.ID() {
		t.Error("it has done something")
	}
	_ = s.Close()
	checkClosed(t, s)
}

// checkClosed finds sockets that a server left open.
func checkClosed(t *testing.T, s *Server) {
	t.Helper()
	for _, c := range s.sockets {
		if err := c.Send(ap("127.0.0.1:9"), 0, []byte{0}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v is open: %v", c.Local(), err)
		}
	}
}

func TestServerConfigsThatCannotBe(t *testing.T) {
	t.Parallel()
	if _, err := NewServer(t.Context(), ServerConfig{}); err == nil {
		t.Error("without a key")
	}
	nowhere := ServerConfig{Key: serverKey, Listen: []netip.AddrPort{ap("127.0.0.1:0"), ap("192.0.2.1:3478")}}
	if _, err := NewServer(t.Context(), nowhere); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("an address that is not ours: %v", err)
	}
}

// only4 is a system without IPv6, or without anything.
type only4 struct {
	sock.System
	none bool
}

func (n only4) ListenPacket(ctx context.Context, network string, _ netip.AddrPort) (net.PacketConn, error) {
	if network == "udp6" || n.none {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("socket", syscall.EAFNOSUPPORT)}
	}
	return n.System.ListenPacket(ctx, network, ap("127.0.0.1:0"))
}

// The default is both families; one that the system lacks is left out, unless it
// was asked for by an address, or nothing is left.
func TestServerWithoutIPv6(t *testing.T) {
	t.Parallel()
	s, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Network: only4{}})
	if err != nil || len(s.Addrs()) != 2 { // two ports
		t.Fatalf("%v", err)
	}
	_ = s.Close()
	if _, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Network: only4{}, Listen: []netip.AddrPort{ap("[::1]:0")}}); err == nil {
		t.Error("an IPv6 address was left out")
	}
	if _, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Network: only4{none: true}}); err == nil {
		t.Error("a server without a socket")
	}
}

// taken is a system on which some program has a port.
type taken struct {
	sock.System
	port uint16
}

func (n taken) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	if local.Port() == n.port {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	return n.System.ListenPacket(ctx, network, netip.AddrPortFrom(local.Addr(), 0))
}

// The second port is only a default: a server does without it.
func TestPortThatIsTaken(t *testing.T) {
	t.Parallel()
	s, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Network: taken{port: OtherPort}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range s.Addrs() {
		if !a.Addr().IsUnspecified() {
			t.Errorf("bound to %v", a)
		}
	}
	_ = s.Close()
	if _, err := NewServer(t.Context(), ServerConfig{Key: serverKey, Network: taken{port: DefaultPort}}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("without the first port: %v", err)
	}
	asked := ServerConfig{Key: serverKey, Network: taken{port: OtherPort}, Listen: aps("127.0.0.1:0", "127.0.0.1:3479")}
	if _, err := NewServer(t.Context(), asked); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("without a port that was asked for: %v", err)
	}
}

// An agent over real sockets; the server's clock repeats what is lost.
func TestServerOverLoopback(t *testing.T) {
	t.Parallel()
	s := serveLoopback(t, Limits{})
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	agent, err := NewAgent(AgentConfig{Key: testKey(1), Server: s.ID(), Instance: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	in := AgentInput{Op: AgentServers, Servers: []ServerEndpoint{{1, s.Addrs()[0]}}}
	for {
		out, next := agent.Step(time.Now(), in, nil)
		for _, a := range out {
			if a.Op == AgentSend {
				_, _ = c.Write(a.Data)
			}
		}
		in = AgentInput{Op: AgentTick}
		if agent.primary != nil {
			break
		}
		_ = c.SetReadDeadline(next)
		if n, err := c.Read(b); err == nil {
			in = AgentInput{Op: AgentPacket, From: s.Addrs()[0], Data: b[:n]}
		}
	}
	if n := s.Stats().Registrations; n != 1 {
		t.Errorf("%d registrations", n)
	}
}

// The relay passes on every packet whole and in order, however the kernel joined
// them on the way, and whatever their sizes.
func TestRelayOverLoopbackKeepsPackets(t *testing.T) {
	t.Parallel()
	s := serveLoopback(t, noLimits)
	open := func() *sock.Socket {
		c, err := sock.Open(t.Context(), sock.System{}, "udp4", ap("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	from, to := open(), open()
	// The registry's own test shows how channels are made; here one is put there.
	s.mu.Lock()
	r := s.registry
	r.begin(time.Now(), nil)
	a, b := &registration{id: testKey(1).ID(), instance: 1}, &registration{id: testKey(2).ID(), instance: 2}
	for g, at := range map[*registration]netip.AddrPort{a: from.Local(), b: to.Local()} {
		r.add(g)
		r.draw(g.handle[:])
		r.byHandle[g.handle] = g
		r.setLeg(g, 0, at)
	}
	p := r.open(a, b, wire.FirstAskedChannel)
	s.mu.Unlock()

	sizes := []int{1200, 1200, 1200, 700, 700, 1200, 1, 1200, 1200, 1200, 64, 64, 64, 1100}
	got := make(chan []byte, 1000)
	go func() {
		_ = to.Read(func(_ netip.AddrPort, b []byte) {
			_, data, _ := wire.ParseChannelData(b)
			got <- append([]byte(nil), data...)
		})
	}()
	for round := range 50 {
		for i := 0; i < len(sizes); {
			// Runs of one size leave together, so that they arrive joined.
			var burst []byte
			n := 0
			for ; i+n < len(sizes) && sizes[i+n] == sizes[i]; n++ {
				data := make([]byte, sizes[i])
				data[0] = byte(i + n)
				burst = wire.AppendChannelData(burst, p.asked, data)
			}
			if err := from.SendSegments(s.Addrs()[0], burst, sizes[i]+wire.ChannelOverhead); err != nil {
				t.Fatal(err)
			}
			i += n
		}
		for i, size := range sizes {
			data := <-got
			if len(data) != size || data[0] != byte(i) {
				t.Fatalf("round %d: packet %d has %d bytes and number %d, want %d", round, i, len(data), data[0], size)
			}
		}
	}
}

func TestPacketsThatJoin(t *testing.T) {
	t.Parallel()
	at, other := ap("192.0.2.1:1"), ap("192.0.2.2:1")
	out := func(local int, to netip.AddrPort, size int) Outgoing { return Outgoing{local, to, make([]byte, size)} }
	for _, c := range []struct {
		first, before, next Outgoing
		want                bool
	}{
		{out(0, at, 100), out(0, at, 100), out(0, at, 100), true},
		{out(0, at, 100), out(0, at, 100), out(0, at, 99), true},
		{out(0, at, 100), out(0, at, 99), out(0, at, 99), false},
		{out(0, at, 100), out(0, at, 99), out(0, at, 100), false},
		{out(0, at, 100), out(0, at, 100), out(0, at, 101), false},
		{out(0, at, 100), out(0, at, 100), out(0, at, 0), false},
		{out(0, at, 100), out(0, at, 100), out(0, other, 100), false},
		{out(0, at, 100), out(0, at, 100), out(1, at, 100), false},
	} {
		if got := joins(c.first, c.before, c.next); got != c.want {
			t.Errorf("%d bytes to %v behind %d: %v", len(c.next.Data), c.next.To, len(c.before.Data), got)
		}
	}
}
