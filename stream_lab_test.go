package bodkin_test

import (
	"crypto/tls"
	"net/netip"
	"testing"

	"bodkin"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"
)

// startStreams is startHomes with a server that takes connections too.
func startStreams(t *testing.T, o natlab.Options, tcp, secure bool) homes {
	t.Helper()
	netbed.Need(t)
	l, err := netbed.Start(t.Context(), natlab.TwoHomes(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	cfg := rendezvous.ServerConfig{
		Key: newKey(t), Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	}
	if tcp {
		cfg.ListenTCP = cfg.Listen
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
			transfer(t, a, b, 3<<20, func() {})
			for _, n := range []*bodkin.Node{a, b} {
				if s := n.Status(); s.ServerVia != name || len(s.Observed) != 0 {
					t.Errorf("the server is reached by %q and sees %v", s.ServerVia, s.Observed)
				}
			}
			if s := h.server.Stats(); s.RelayedBytes < 3<<20 {
				t.Errorf("%+v", s)
			}
		})
	}
}
