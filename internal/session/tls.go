package session

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"bodkin/peer"
)

// alpn names the protocol (RFC 7301).
const alpn = "bodkin/1"

// ErrWrongPeer: whoever answered does not have the key of the peer asked for.
var ErrWrongPeer = errors.New("the peer proved another key than its own ID")

// certificate is the node key as TLS wants it. Nobody signs it: the key in it is
// compared with the peer ID.
func certificate(key peer.Key) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bodkin"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5: no expiry
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Private().Public(), key.Private())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key.Private()}, nil
}

// tlsConfig asks for a certificate of the one key that want names; with the zero
// ID any peer may come, and its key is read afterwards.
func tlsConfig(cert tls.Certificate, want peer.ID) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		NextProtos:             []string{alpn},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // there is no authority: VerifyConnection compares keys
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			id, err := identity(s)
			if err == nil && !want.IsZero() && id != want {
				err = ErrWrongPeer
			}
			return err
		},
	}
}

// identity is the peer ID of a connection's other end. TLS has proved that it
// holds the key.
func identity(s tls.ConnectionState) (peer.ID, error) {
	if len(s.PeerCertificates) != 1 {
		return peer.ID{}, ErrWrongPeer
	}
	public, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return peer.ID{}, ErrWrongPeer
	}
	id, err := peer.IDFromBytes(public)
	if err != nil {
		return peer.ID{}, fmt.Errorf("%w: %w", ErrWrongPeer, err)
	}
	return id, nil
}
