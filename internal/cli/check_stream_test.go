package cli

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"bodkin/nat"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// Where UDP is blocked `check` says what else leads to the server.
func TestCheckOverTCPAndTLS(t *testing.T) {
	key := peer.NewKey([32]byte{7})
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "")
	}
	own, err := rendezvous.Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	s, err := rendezvous.NewServer(t.Context(), rendezvous.ServerConfig{
		Key: key, Listen: local, ListenTCP: []netip.AddrPort{}, ListenTLS: local,
		TLS: &tls.Config{Certificates: []tls.Certificate{own}},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	blocked := nat.Report{Blocked: nat.Finding[nat.Answer]{Value: nat.Yes}}
	c := diagnose("the server", blocked, nil, nil)
	c.byStreams(checkStreams(t.Context(), s.URL("127.0.0.1")))
	if tcp, tls := c.Streams[0], c.Streams[1]; tcp.Works || tcp.Error == "" || !tls.Works || !tls.Endpoint.Addr().IsLoopback() {
		t.Errorf("%+v", c.Streams)
	}
	text := c.text(false)
	for _, want := range []string{
		"reach the server by TLS instead", "\n  TCP             does not work: ", "\n  TLS             works\n",
		"  - Allow UDP to leave this network: more connections would be direct",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// Somebody else's server is none, and then there is nothing but to allow UDP.
	u := s.URL("127.0.0.1")
	u.ID = peer.NewKey([32]byte{8}).ID()
	c = diagnose("the server", blocked, nil, nil)
	c.byStreams(checkStreams(t.Context(), u))
	if c.Streams[1].Works || !strings.Contains(c.Streams[1].Error, "certificate not accepted") ||
		!strings.Contains(c.text(false), "or the server does not run") {
		t.Errorf("another server: %+v", c.Streams)
	}
}
