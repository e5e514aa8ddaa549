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
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"
)

func TestMain(m *testing.M) { netbed.Main(m) }

// homes is a lab of two homes with a server in it.
type homes struct {
	*netbed.Lab
	server *rendezvous.Server
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
	s, _ := startServer(t, rendezvous.ServerConfig{
		Network: h, Limits: limits, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	})
	return homes{l, s, s.URL(h.Addr().String()).String()}
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
