package rendezvous

import (
	"net/netip"
	"testing"
)

func TestCloseEndsServe(t *testing.T) {
	t.Parallel()
	cfg := ServerConfig{Key: testKey(200), Listen: []netip.AddrPort{ap("127.0.0.1:0")}}
	s, err := NewServer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	if _, err := NewServer(t.Context(), ServerConfig{Key: testKey(200), Listen: s.Addrs()}); err == nil {
		t.Error("two servers on one port")
	}
	_ = s.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
