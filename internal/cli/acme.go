package cli

import (
	"context"
	"crypto/tls"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// acmeCertificate is one that an authority gives for a host and that renews itself
// (RFC 8555). The authority looks for the proof at the TLS port (RFC 8737). Until it has
// given one the server shows its own.
type acmeCertificate struct {
	manager  autocert.Manager
	host     string
	own      tls.Certificate
	obtained atomic.Bool
}

func newACME(host, folder string, own tls.Certificate) *acmeCertificate {
	return &acmeCertificate{
		manager: autocert.Manager{
			Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(host), Cache: autocert.DirCache(folder),
		},
		host: host, own: own,
	}
}

func (a *acmeCertificate) config() *tls.Config {
	return &tls.Config{
		GetCertificate: a.get, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1", acme.ALPNProto},
	}
}

func (a *acmeCertificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	switch {
	case slices.Contains(hello.SupportedProtos, acme.ALPNProto):
		return a.manager.GetCertificate(hello)
	case hello.ServerName != a.host || !a.obtained.Load():
		return &a.own, nil
	}
	return a.ask()
}

// ask is the certificate for an ECDSA key, which every client can check: it is there,
// or the authority is asked.
func (a *acmeCertificate) ask() (*tls.Certificate, error) {
	return a.manager.GetCertificate(&tls.ClientHelloInfo{
		ServerName:       a.host,
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves:  []tls.CurveID{tls.CurveP256},
		CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	})
}

// Authorities take few failures an hour.
const (
	acmeFirstPause = 5 * time.Minute
	acmeMaxPause   = time.Hour
)

// obtain asks for a certificate until there is one, or ctx ends.
func (a *acmeCertificate) obtain(ctx context.Context, logger *slog.Logger) {
	for pause := acmeFirstPause; ; pause = min(2*pause, acmeMaxPause) {
		_, err := a.ask()
		if err == nil {
			a.obtained.Store(true)
			return
		}
		logger.Warn("no certificate yet: the server shows its own", "host", a.host, "again in", pause, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
