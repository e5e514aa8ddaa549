package bodkin_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/netip"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/testmain"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"
)

func TestMain(m *testing.M) {
	testmain.MoreAtOnce()
	netbed.Main(m)
}

// homes is a lab of two homes with a server in it.
type homes struct {
	*netbed.Lab
	server *rendezvous.Server
	stop   func() // ends the server
	url    string
}

func startHomes(t *testing.T, o natlab.Options, limits rendezvous.Limits) homes {
	t.Helper()
	netbed.Need(t)
	l, err := netbed.Start(t.Context(), natlab.TwoHomes(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	s, stop := startServer(t, rendezvous.ServerConfig{
		Network: h, Limits: limits, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	})
	return homes{l, s, stop, s.URL(h.Addr().String()).String()}
}

func (h homes) node(t *testing.T, host string, cfg bodkin.Config) *bodkin.Node {
	t.Helper()
	cfg.Server, cfg.Network = h.url, h.Host(host)
	return startNode(t, cfg)
}

// untilDirect returns when traffic of n takes a direct route, and says since
// when it did, counted from begin.
func untilDirect(t *testing.T, ctx context.Context, events func(yield func(bodkin.Event) bool)) time.Time {
	t.Helper()
	for e := range events {
		if e.Kind == bodkin.EventSwitched && e.Route.Direct() {
			return e.Time
		}
	}
	t.Fatalf("no direct route: %v", ctx.Err())
	return time.Time{}
}

// The promise of section 1: a direct path exists after RTT(A,S) + RTT(A,B).
func TestHoleBetweenTwoHomes(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{}, rendezvous.Limits{})
	a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
	echo(t, b, "echo")
	ctx := testContext(t)
	if err := a.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	events := a.Events(ctx)
	begin := time.Now()
	c, err := a.Dial(ctx, b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("dialled after %v", time.Since(begin))
	if c.Route().Transport != "relay" && !c.Route().Direct() {
		t.Errorf("route %v", c.Route())
	}
	if d := untilDirect(t, ctx, events).Sub(begin); d < 160*time.Millisecond {
		t.Errorf("direct after %v, which is sooner than light", d)
	} else {
		t.Logf("direct after %v; the limit is 160ms", d)
	}
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
}

// transfer moves n random bytes from a to b by a service of b's and checks them;
// during is called once a good part has arrived, while the rest is under way.
func transfer(t *testing.T, a, b *bodkin.Node, n int, during func()) {
	t.Helper()
	l, err := b.Listen("file")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx := testContext(t)
	if err := b.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, n)
	_, _ = rand.Read(sent)
	out, err := a.Dial(ctx, b.ID(), "file")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = out.Write(sent)
		_ = out.CloseWrite()
	}()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(40 * time.Second))
	got := make([]byte, n/4, n)
	if _, err := io.ReadFull(in, got); err != nil {
		t.Fatalf("the first quarter: %v", err)
	}
	during()
	rest, err := io.ReadAll(in)
	if got = append(got, rest...); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes arrived, equal: %v, %v", len(got), n, bytes.Equal(got, sent[:len(got)]), err)
	}
	_ = in.Close()
	_ = out.Close()
}

// slowHomes makes a transfer of some megabytes take its time, so that what happens
// in the middle of it does.
var slowHomes = natlab.Options{DelayA: 5 * time.Millisecond, DelayB: 5 * time.Millisecond, DelayS: 5 * time.Millisecond, Rate: 20_000_000}

// byUDP leaves the relay as the only other way.
var byUDP = bodkin.Config{Transports: []string{"udp"}}

// direct waits until a's traffic with b takes a direct route.
func direct(t *testing.T, a, b *bodkin.Node) {
	t.Helper()
	ctx := testContext(t)
	for {
		pong, err := a.Ping(ctx, b.ID())
		if err != nil {
			t.Fatal(err)
		}
		if pong.Route.Direct() {
			return
		}
	}
}

func TestFileArrivesThoughTheServerDies(t *testing.T) {
	t.Parallel()
	h := startHomes(t, slowHomes, rendezvous.Limits{})
	a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
	echo(t, b, "echo")
	direct(t, a, b)
	transfer(t, a, b, 4<<20, h.stop)
}

func TestFileArrivesThoughTheHoleCloses(t *testing.T) {
	t.Parallel()
	h := startHomes(t, slowHomes, rendezvous.Limits{})
	a, b := h.node(t, "a", byUDP), h.node(t, "b", byUDP)
	echo(t, b, "echo")
	direct(t, a, b)
	ctx := testContext(t)
	events := a.Events(ctx)
	transfer(t, a, b, 4<<20, func() {
		unblock := h.BlockBetween(h.Box("home-a").Addr(), h.Box("home-b").Addr())
		for e := range events {
			if e.Kind == bodkin.EventSwitched && e.Route.Transport == "relay" {
				break
			}
		}
		if ctx.Err() != nil {
			t.Fatal("the relay was not taken")
		}
		unblock()
	})
	direct(t, a, b)
}

// A file between real kernels while their network fails in one way or the other: it
// arrives as it was, and the direct route comes back. How long that takes is measured
// in fake time, by TestFaults.
func TestFaultsBetweenRealKernels(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(h homes) (mend func()){
		"direct blocked": func(h homes) func() {
			return h.BlockBetween(h.Box("home-a").Addr(), h.Box("home-b").Addr())
		},
		"direct blocked one way": func(h homes) func() {
			from, to := h.Box("home-a").Addr(), h.Box("home-b").Addr()
			return h.Block(func(p natlab.Packet) bool { return p.From.Addr() == from && p.To.Addr() == to })
		},
		"large packets blocked": func(h homes) func() {
			between := natlab.Between(h.Box("home-a").Addr(), h.Box("home-b").Addr())
			return h.Block(func(p natlab.Packet) bool { return between(p) && len(p.Data) > 600 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHomes(t, slowHomes, rendezvous.Limits{})
			a, b := h.node(t, "a", byUDP), h.node(t, "b", byUDP)
			echo(t, b, "echo")
			direct(t, a, b)
			ctx := testContext(t)
			events := a.Events(ctx)
			var struck time.Time
			transfer(t, a, b, 4<<20, func() {
				struck = time.Now()
				mend := strike(h)
				for e := range events {
					if e.Time.After(struck) && e.Kind == bodkin.EventSwitched && e.Route.Transport == "relay" {
						t.Logf("on the relay after %v: %s", e.Time.Sub(struck), e.Reason)
						break
					}
				}
				if ctx.Err() != nil {
					t.Fatal("the relay was not taken")
				}
				mend()
			})
			direct(t, a, b)
		})
	}
}

// Packets grow on a hole as far as it lets them, and a hole that lets no large ones
// through any more is used again, with packets of the size that QUIC begins with.
func TestPacketsAreAsLargeAsTheHoleAllows(t *testing.T) {
	t.Parallel()
	const first, grown = 1228 + 28, 1400 // of IP packets
	h := startHomes(t, slowHomes, rendezvous.Limits{})
	a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
	echo(t, b, "echo")
	direct(t, a, b)
	between := natlab.Between(h.Box("home-a").Addr(), h.Box("home-b").Addr())
	ctx := testContext(t)
	// through waits until enough came through the hole in packets of a size.
	through := func(what string, least, enough int) {
		done, left := make(chan struct{}), enough
		defer h.Observe(func(e natlab.Event) {
			if n := len(e.Packet.Data); between(e.Packet) && n >= least && left > 0 {
				if left -= n; left <= 0 {
					close(done)
				}
			}
		})()
		select {
		case <-done:
		case <-ctx.Done():
			t.Fatal(what + ": not in time")
		}
	}
	events := a.Events(ctx)
	conn, err := a.Dial(ctx, b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	go func() { _, _ = io.Copy(conn, zeros{}) }()
	through("packets grew", grown, 1<<20)
	h.Block(func(p natlab.Packet) bool { return between(p) && len(p.Data) > first+4 })
	struck, relayed := time.Now(), false
	for e := range events {
		if e.Kind != bodkin.EventSwitched || e.Time.Before(struck) {
			continue
		}
		t.Logf("%v after large packets were blocked: %s, %s", e.Time.Sub(struck), e.Route.Transport, e.Reason)
		if e.Route.Direct() && relayed {
			struck = e.Time
			break
		}
		relayed = true
	}
	through("the hole is used again", first, 1<<20)
	for _, e := range a.Status().Peers[0].Changes {
		if e.Kind == bodkin.EventSwitched && e.Time.After(struck) {
			t.Errorf("%v later: %s, %s", e.Time.Sub(struck), e.Route.Transport, e.Reason)
		}
	}
}

// zeros is an endless stream.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
