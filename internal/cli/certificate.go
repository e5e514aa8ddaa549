package cli

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificate is a certificate and its key in two files, which somebody renews
// while the server runs.
type certificate struct {
	cert, key string
	mu        sync.Mutex
	read      [2]time.Time // when the files that were read had been changed
	current   *tls.Certificate
}

// tlsConfig serves with the certificate in these files, which must be there.
func tlsConfig(cert, key string) (*tls.Config, error) {
	c := &certificate{cert: cert, key: key}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12}, nil
}

// get is the certificate as it is in the files now, or as it was while they are
// of no use: one is replaced before the other.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.load()
	return c.current, nil
}

// load reads the files if they have changed.
func (c *certificate) load() error {
	var changed [2]time.Time
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		changed[i] = info.ModTime()
	}
	if c.current != nil && changed == c.read {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("certificate in %s with the key in %s: %w", c.cert, c.key, err)
	}
	c.current, c.read = &pair, changed
	return nil
}
