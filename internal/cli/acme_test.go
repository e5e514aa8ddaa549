package cli

import (
	"context"
	"crypto/tls"
	"log/slog"
	"testing"

	"bodkin/peer"
	"bodkin/rendezvous"

	"golang.org/x/crypto/acme"
)

// As long as the authority has given no certificate nodes are shown the server's own, at
// once, and the authority is not asked without end.
func TestServerShowsItsOwnCertificateMeanwhile(t *testing.T) {
	t.Parallel()
	own, err := rendezvous.Certificate(peer.NewKey([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	a := newACME("server.example", t.TempDir(), own)
	a.manager.Client = &acme.Client{DirectoryURL: "http://127.0.0.1:1/"} // nobody
	for _, name := range []string{"server.example", "", "other.example"} {
		c, err := a.config().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || string(c.Certificate[0]) != string(own.Certificate[0]) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := a.get(&tls.ClientHelloInfo{ServerName: "other.example", SupportedProtos: []string{acme.ALPNProto}}); err == nil {
		t.Error("a proof for somebody else's name")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.obtain(ctx, slog.New(slog.DiscardHandler)) // asks once, and ends with ctx
	if a.obtained.Load() {
		t.Error("a certificate from nobody")
	}
}
