package rendezvous

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/internal/wire"
	"bodkin/natlab"
)

func TestReach(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		preset   natlab.Preset
		external func(netip.AddrPort) netip.AddrPort // what the router claims, of what it has
		arrived  bool
	}{
		"forwarded": {natlab.FullCone, same, true},
		"filtered":  {natlab.PortRestricted, same, false},
		"at another port": {natlab.FullCone, func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(a.Addr(), a.Port()^1)
		}, false},
		"at another address": {natlab.FullCone, func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), a.Port())
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, server := liveServer(t, c.preset)
				h := l.Host("a")
				at, err := h.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(h.Addr(), 27015))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = at.Close() }()
				// By the server's other port, so that the filter stays shut to this one.
				a, err := bindingAnswer(t.Context(), at, at, netip.AddrPortFrom(server.Addr(), 3479), wire.BindingRequest{})
				if err != nil {
					t.Fatal(err)
				}
				external := c.external(a.Mapped)
				seen, arrived, err := Reach(t.Context(), h, server, at, external)
				if err != nil || arrived != c.arrived || seen != a.Mapped.Addr() {
					t.Errorf("seen %v, arrived %v, %v", seen, arrived, err)
				}
			})
		})
	}
}

func same(a netip.AddrPort) netip.AddrPort { return a }

// liveServer is a network in memory with a server on two ports.
func liveServer(t *testing.T, p natlab.Preset) (*natlab.Live, netip.AddrPort) {
	t.Helper()
	l, err := natlab.NewLive(natlab.TwoHomes(natlab.Options{PresetA: p}))
	if err != nil {
		t.Fatal(err)
	}
	h := l.Host("server")
	first := netip.AddrPortFrom(h.Addr(), 3478)
	s, err := NewServer(t.Context(), ServerConfig{
		Key: serverKey, Network: h, Listen: []netip.AddrPort{first, netip.AddrPortFrom(h.Addr(), 3479)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
	})
	return l, first
}

func TestReachWithoutServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, server := liveServer(t, natlab.FullCone)
		h := l.Host("a")
		at, err := h.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(h.Addr(), 27015))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = at.Close() }()
		silent := netip.AddrPortFrom(server.Addr(), 9)
		if _, arrived, err := Reach(t.Context(), h, silent, at, server); arrived || !errors.Is(err, ErrNoAnswer) {
			t.Errorf("arrived %v, %v", arrived, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, arrived, err := Reach(ctx, h, silent, at, server); arrived || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("arrived %v, %v", arrived, err)
		}
	})
}
