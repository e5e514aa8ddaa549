package bodkin_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"bodkin"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// testContext ends before the test binary is killed, so that a failure says
// where it hung.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func testLogger(t *testing.T, name string) *slog.Logger {
	t.Helper()
	if os.Getenv("BODKIN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name, "test", t.Name())
}

func newKey(t *testing.T) peer.Key {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// startServer runs a server, on loopback if nothing else is said, until the test
// ends or stop is called.
func startServer(t *testing.T, cfg rendezvous.ServerConfig) (_ *rendezvous.Server, stop func()) {
	t.Helper()
	if cfg.Key.IsZero() {
		cfg.Key = newKey(t)
	}
	if cfg.Listen == nil {
		cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	}
	s, err := rendezvous.NewServer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// localURL is that of a server on loopback.
func localURL(s *rendezvous.Server) string { return s.URL("127.0.0.1").String() }

func startNode(t *testing.T, cfg bodkin.Config) *bodkin.Node {
	t.Helper()
	if cfg.Key.IsZero() {
		cfg.Key = newKey(t)
	}
	if cfg.Logger == nil {
		cfg.Logger = testLogger(t, cfg.Key.ID().Short())
	}
	n, err := bodkin.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// echo answers every connection to a service with what it says.
func echo(t *testing.T, n *bodkin.Node, service string) {
	t.Helper()
	l, err := n.Listen(service)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	if err := n.WaitRegistered(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func TestDialBeginsOnTheRelayAndBecomesDirect(t *testing.T) {
	s, _ := startServer(t, rendezvous.ServerConfig{})
	url := localURL(s)
	a, b := startNode(t, bodkin.Config{Server: url}), startNode(t, bodkin.Config{Server: url})
	echo(t, b, "echo")
	ctx := testContext(t)
	c, err := a.Dial(ctx, b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	if c.Peer() != b.ID() {
		t.Errorf("peer is %v", c.Peer())
	}
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes of %d, %v", len(got), len(sent), err)
	}
	for {
		pong, err := a.Ping(ctx, b.ID())
		if err != nil {
			t.Fatal(err)
		}
		if pong.Route.Direct() {
			break
		}
	}
}

func TestRefusals(t *testing.T) {
	s, _ := startServer(t, rendezvous.ServerConfig{})
	url := localURL(s)
	friend := startNode(t, bodkin.Config{Server: url})
	stranger := startNode(t, bodkin.Config{Server: url})
	b := startNode(t, bodkin.Config{
		Server: url, Peers: []peer.ID{friend.ID()},
		Allow: func(_ peer.ID, service string) bool { return service != "secret" },
	})
	echo(t, b, "echo")
	echo(t, b, "secret")
	ctx := testContext(t)
	if _, err := stranger.Dial(ctx, b.ID(), "echo"); !errors.Is(err, bodkin.ErrNotReachable) {
		t.Errorf("a stranger got %v", err)
	}
	if _, err := friend.Dial(ctx, newKey(t).ID(), "echo"); !errors.Is(err, bodkin.ErrNotReachable) {
		t.Errorf("a peer that does not exist: %v", err)
	}
	for _, service := range []string{"secret", "nothing"} {
		c, err := friend.Dial(ctx, b.ID(), service)
		if err != nil {
			t.Fatal(err)
		}
		var refused *bodkin.RefusedError
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &refused) {
			t.Errorf("service %s: %v", service, err)
		}
	}
}

// A newcomer that accepts takes the place of an older process with the same key,
// which hears of it and can take the place back.
func TestSecondListenerTakesOver(t *testing.T) {
	t.Parallel()
	s, _ := startServer(t, rendezvous.ServerConfig{})
	key, ctx := newKey(t), testContext(t)
	first := startNode(t, bodkin.Config{Key: key, Server: localURL(s)})
	second := startNode(t, bodkin.Config{Key: key, Server: localURL(s)})
	listen := func(n *bodkin.Node) net.Listener {
		l, err := n.Listen("any")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.WaitRegistered(ctx); err != nil {
			t.Fatal(err)
		}
		return l
	}
	displaced := func(l net.Listener) {
		t.Helper()
		if _, err := l.Accept(); !errors.Is(err, bodkin.ErrDisplaced) {
			t.Fatalf("the displaced listener got %v", err)
		}
		asker := startNode(t, bodkin.Config{Server: localURL(s)})
		if _, err := asker.Ping(ctx, key.ID()); err != nil {
			t.Fatalf("the newcomer does not answer: %v", err)
		}
	}
	old := listen(first)
	young := listen(second)
	displaced(old)
	listen(first)
	displaced(young)
}
