package bodkin_test

import (
	"net"
	"strings"
	"testing"

	"bodkin"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// Whoever sends a node what it does not believe is counted under a word that says
// why, and nothing else happens.
func TestIgnoredPacketsAreCounted(t *testing.T) {
	t.Parallel()
	s, _ := startServer(t, rendezvous.ServerConfig{})
	n := startNode(t, bodkin.Config{Server: s.URL("127.0.0.1").String()})
	ctx := testContext(t)
	if err := n.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	var port uint16
	for _, local := range n.Status().Local {
		if local.Addr().Is4() {
			port = local.Port()
		}
	}
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	binding := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, make([]byte, 12)...)
	for _, want := range []struct {
		word   string
		packet []byte
	}{
		{"malformed-probe", binding},
		{"stray", []byte("\x40 as if it were QUIC's")},
	} {
		for n.Status().Ignored[want.word] == 0 {
			if ctx.Err() != nil {
				t.Fatalf("not counted as %s: %v", want.word, n.Status().Ignored)
			}
			_, _ = c.Write(want.packet)
		}
	}
	if len(n.Status().Peers) > 0 {
		t.Error("the node knows a peer")
	}
}

func TestTooManyPeers(t *testing.T) {
	t.Parallel()
	cfg := bodkin.Config{Key: newKey(t), Server: "bodkin://192.0.2.1/" + newKey(t).ID().String()}
	for range rendezvous.MaxPeers {
		cfg.Peers = append(cfg.Peers, newKey(t).ID())
	}
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
	cfg.Peers = append(cfg.Peers, peer.ID{})
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "Config.Allow") {
		t.Errorf("one more: %v", err)
	}
}
