package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCertificate writes a certificate of that number, and its key, as they were
// at a time.
func writeCertificate(t *testing.T, cert, key string, number int64, at time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(number)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// A certificate that is renewed is served from then on; half of a new one is not.
func TestCertificateIsReadAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := tlsConfig(cert, key); err == nil {
		t.Error("there is no certificate")
	}
	begin := time.Now().Add(-time.Hour)
	writeCertificate(t, cert, key, 1, begin)
	c, err := tlsConfig(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want int64) {
		t.Helper()
		got, err := c.GetCertificate(nil)
		if err != nil || got.Leaf.SerialNumber.Int64() != want {
			t.Errorf("certificate %v, %v, want %d", got.Leaf.SerialNumber, err, want)
		}
	}
	check(1)
	writeCertificate(t, cert, key, 2, begin.Add(time.Minute))
	check(2)
	if err := os.WriteFile(cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check(2)
	writeCertificate(t, cert, key, 3, begin.Add(2*time.Minute))
	check(3)
}

// TLS flags come together.
func TestServeOverTLS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		f    serveFlags
		want int // endpoints; -1: an error
	}{
		{serveFlags{}, 0},
		{serveFlags{tlsCert: "c", tlsKey: "k"}, 2},
		{serveFlags{tlsCert: "c", tlsKey: "k", listenTLS: []string{"127.0.0.1:443"}}, 1},
		{serveFlags{tlsCert: "c"}, -1},
		{serveFlags{tlsKey: "k"}, -1},
		{serveFlags{listenTLS: []string{":443"}}, 2},
		{serveFlags{tls: true}, 2},
		{serveFlags{acme: "host.example"}, 2},
		{serveFlags{tlsCert: "c", tlsKey: "k", acme: "host.example"}, -1},
		{serveFlags{tlsCert: "c", tlsKey: "k", listenTLS: []string{"x"}}, -1},
	} {
		c.f.relayRate, c.f.totalRate = "1M", "0"
		cfg, err := c.f.config()
		if got := len(cfg.ListenTLS); (err != nil) != (c.want < 0) || err == nil && got != c.want {
			t.Errorf("%+v: %v, %v", c.f, cfg.ListenTLS, err)
		}
	}
}
