package bodkin_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/tunnel/tunneltest"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"
)

// startStreams is startHomes with a server that takes connections too.
func startStreams(t *testing.T, o natlab.Options, tcp, secure bool) homes {
	t.Helper()
	return startStreamsIn(t, natlab.TwoHomes(o), tcp, secure)
}

func startStreamsIn(t *testing.T, topology natlab.Topology, tcp, secure bool) homes {
	t.Helper()
	netbed.Need(t)
	l, err := netbed.Start(t.Context(), topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	cfg := rendezvous.ServerConfig{
		Key: newKey(t), Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	}
	if !tcp {
		cfg.ListenTCP = []netip.AddrPort{}
	}
	if secure {
		own, err := rendezvous.Certificate(cfg.Key)
		if err != nil {
			t.Fatal(err)
		}
		cfg.ListenTLS = []netip.AddrPort{netip.AddrPortFrom(h.Addr(), rendezvous.TLSPort)}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
	}
	s, stop := startServer(t, cfg)
	return homes{l, s, stop, s.URL(h.Addr().String()).String()}
}

// Where both homes block UDP nodes register over TCP, or over TLS where there is only
// that, and relay.
func TestUDPBlocked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ tcp, secure bool }{
		"tcp": {true, true}, "tls": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startStreams(t, natlab.Options{PresetA: natlab.UDPBlocked, PresetB: natlab.UDPBlocked}, c.tcp, c.secure)
			relay := bodkin.Config{Transports: []string{}}
			a, b := h.node(t, "a", relay), h.node(t, "b", relay)
			transfer(t, a, b, 2<<20, func() {})
			for _, n := range []*bodkin.Node{a, b} {
				if s := n.Status(); s.ServerVia != name || len(s.Observed) != 0 {
					t.Errorf("the server is reached by %q and sees %v", s.ServerVia, s.Observed)
				}
			}
			if s := h.server.Stats(); s.RelayedBytes < 2<<20 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Through a proxy that the network demands, of either kind: nothing else leads to the
// server, by whichever protocol.
func TestThroughAProxy(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	topology := natlab.TwoHomes(natlab.Options{})
	topology.Hosts = append(topology.Hosts, natlab.Host{Name: "proxy", Link: natlab.Link{Delay: 5 * time.Millisecond}})
	h := startStreamsIn(t, topology, true, true)
	at := netip.AddrPortFrom(h.Host("proxy").Addr(), 8080)
	l, err := h.Host("proxy").Listen(t.Context(), "tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	p := &tunneltest.Proxy{Dial: func(ctx context.Context, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return h.Host("proxy").DialTCP(ctx, "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), 0), to, 0)
	}}
	var wg sync.WaitGroup
	wg.Go(func() { p.Serve(l) })
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	server, proxy := h.Host("server").Addr(), h.Host("proxy").Addr()
	h.Block(func(p natlab.Packet) bool {
		return p.From.Addr() == server && p.To.Addr() != proxy || p.To.Addr() == server && p.From.Addr() != proxy
	})
	through := func(scheme string) func(*url.URL) (*url.URL, error) {
		return func(*url.URL) (*url.URL, error) { return &url.URL{Scheme: scheme, Host: at.String()}, nil }
	}
	a := h.node(t, "a", bodkin.Config{Proxy: through("http"), ServerVia: bodkin.ViaTLS, Transports: []string{}})
	b := h.node(t, "b", bodkin.Config{Proxy: through("socks5"), Transports: []string{}})
	transfer(t, a, b, 1<<20, func() {})
	if a, b := a.Status(), b.Status(); a.ServerVia != bodkin.ViaTLS || b.ServerVia != bodkin.ViaTCP ||
		len(a.ObservedTCP) != 1 || a.ObservedTCP[0].Addr() != proxy {
		t.Errorf("a by %s from %v, b by %s", a.ServerVia, a.ObservedTCP, b.ServerVia)
	}
	if n := p.Connected.Load(); n < 2 {
		t.Errorf("%d connections through the proxy", n)
	}
}

// UDP is blocked while a file moves over the relay, and then it is not any more.
func TestRelayMovesToTCPAndBack(t *testing.T) {
	t.Parallel()
	h := startStreams(t, natlab.Options{}, true, false)
	relayed := bodkin.Config{Transports: []string{}}
	a, b := h.node(t, "a", relayed), h.node(t, "b", relayed)
	ctx := testContext(t)
	via := func(n *bodkin.Node, want string) {
		t.Helper()
		events := n.Events(ctx)
		begin := time.Now()
		if n.Status().ServerVia == want {
			return
		}
		for e := range events {
			if e.Kind == bodkin.EventRegistered && e.Via == want {
				t.Logf("by %s after %v", want, time.Since(begin))
				return
			}
		}
		t.Fatalf("not by %s: %v", want, ctx.Err())
	}
	transfer(t, a, b, 4<<20, func() {
		via(a, bodkin.ViaUDP)
		unblock := h.Block(func(p natlab.Packet) bool { return p.Protocol == 17 })
		via(a, bodkin.ViaTCP)
		via(b, bodkin.ViaTCP)
		unblock()
		via(a, bodkin.ViaUDP)
	})
}
