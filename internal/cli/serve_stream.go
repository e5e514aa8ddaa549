package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"bodkin/peer"
	"bodkin/rendezvous"
)

// streams is what the flags say of TCP and TLS.
func (f serveFlags) streams(c *rendezvous.ServerConfig) (err error) {
	if slices.Equal(f.listenTCP, []string{"none"}) {
		c.ListenTCP = []netip.AddrPort{}
	} else if c.ListenTCP, err = listenAddrs("--listen-tcp", f.listenTCP); err != nil {
		return err
	}
	switch {
	case (f.tlsCert == "") != (f.tlsKey == ""):
		return errors.New("a certificate needs both --tls-cert and --tls-key")
	case f.tlsCert != "" && f.acme != "":
		return errors.New("there is one certificate: of --tls-cert or of --acme")
	case !f.tls && f.tlsCert == "" && f.acme == "" && len(f.listenTLS) == 0:
		return nil
	}
	if len(f.listenTLS) == 0 {
		f.listenTLS = []string{fmt.Sprintf(":%d", rendezvous.TLSPort)}
	}
	c.ListenTLS, err = listenAddrs("--listen-tls", f.listenTLS)
	return err
}

// certificate is with what the server talks TLS, until ctx ends.
func (f serveFlags) certificate(ctx context.Context, key peer.Key, logger *slog.Logger) (*tls.Config, error) {
	if f.tlsCert != "" {
		return tlsConfig(f.tlsCert, f.tlsKey)
	}
	own, err := rendezvous.Certificate(key)
	if err != nil {
		return nil, err
	}
	if f.acme == "" {
		return &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("--acme: %w; set HOME", err)
	}
	a := newACME(f.acme, filepath.Join(cache, "bodkin", "acme"), own)
	go a.obtain(ctx, logger)
	return a.config(), nil
}
