package bodkin_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/rendezvous"
)

// inMemory is a network in memory with a server in it, and the server's URL.
func inMemory(t *testing.T, o natlab.Options) (l *natlab.Live, url string) {
	t.Helper()
	l, err := natlab.NewLive(natlab.TwoHomes(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	s, _ := startServer(t, rendezvous.ServerConfig{
		Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	})
	return l, s.URL(h.Addr().String()).String()
}

// echoes sends a MiB and takes it back.
func echoes(t *testing.T, c *bodkin.Conn) {
	t.Helper()
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

// Whole nodes, QUIC included, between two port-restricted NATs, in fake time: a
// hole opens, nothing passes between the homes while both NATs forget it, and the
// relay carries on; a new hole opens. Then both NATs get other addresses.
func TestHoleDiesAndComesBackInFakeTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, url := inMemory(t, natlab.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		a := startNode(t, bodkin.Config{Server: url, Network: l.Host("a")})
		b := startNode(t, bodkin.Config{Server: url, Network: l.Host("b")})
		echo(t, b, "echo")
		if err := a.WaitRegistered(ctx); err != nil {
			t.Fatal(err)
		}
		events := a.Events(ctx)
		begin := time.Now()
		dial := func() bodkin.Route {
			c, err := a.Dial(ctx, b.ID(), "echo")
			if err != nil {
				t.Fatal(err)
			}
			echoes(t, c)
			return c.Route()
		}
		dial()
		if d := untilDirect(t, ctx, events).Sub(begin); d < 160*time.Millisecond || d > 170*time.Millisecond {
			t.Errorf("direct after %v; the limit is 160ms", d)
		}
		reboot := func(another bool) {
			for _, home := range []string{"home-a", "home-b"} {
				if err := l.Reboot(home, another); err != nil {
					t.Fatal(err)
				}
			}
		}
		unblock := l.Block(natlab.Between(public(t, l, "home-a"), public(t, l, "home-b")))
		reboot(false)
		if r := dial(); r.Direct() {
			t.Errorf("route %v while nothing passes between the homes", r)
		}
		events = a.Events(ctx)
		unblock()
		untilDirect(t, ctx, events)
		if r := dial(); !r.Direct() {
			t.Errorf("route %v after the outage", r)
		}
		events = a.Events(ctx)
		reboot(true)
		dial()
		untilDirect(t, ctx, events)
		if r := dial(); r.Endpoint.Addr() != public(t, l, "home-b") {
			t.Errorf("route %v, but the other home is %v now", r, public(t, l, "home-b"))
		}
	})
}

func public(t *testing.T, l *natlab.Live, box string) netip.Addr {
	t.Helper()
	p, ok := l.Place(box)
	if !ok {
		t.Fatalf("no box %s", box)
	}
	return p.Addr[0].Addr()
}
