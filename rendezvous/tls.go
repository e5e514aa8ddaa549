package rendezvous

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
)

// TLS hides what is said from those on the way, and looks like what passes everywhere.
// It proves nothing that is needed: what node and server say to each other is sealed
// under X25519 of their keys, over TLS as over UDP.

// Certificate is a server's own certificate: its key is that which the server's URL
// names, so that nobody else has to vouch for it.
func Certificate(key peer.Key) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // none (RFC 5280 §4.1.2.5)
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Private().Public(), key.Private())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key.Private()}, nil
}

// ClientTLS is how a node talks TLS to its server: with its own certificate, or with
// one that is good for the host by the system's authorities.
func ClientTLS(u URL) *tls.Config {
	return &tls.Config{
		ServerName:         u.Host,
		InsecureSkipVerify: true, // VerifyConnection does
		VerifyConnection: func(s tls.ConnectionState) error {
			return verify(s.PeerCertificates, u)
		},
	}
}

// ErrCertificate is wrapped by the errors about a server's certificate.
var ErrCertificate = errors.New("certificate not accepted")

// verify checks the certificates of a server.
func verify(chain []*x509.Certificate, u URL) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: there is none", ErrCertificate)
	}
	if key, ok := chain[0].PublicKey.(ed25519.PublicKey); ok && string(key) == string(u.ID[:]) {
		return nil
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: u.Host, Intermediates: others})
	if err != nil {
		return fmt.Errorf("%w: it is neither the server's own nor good for %s: %w", ErrCertificate, u.Host, err)
	}
	return nil
}

// AskStream asks a server over a connection where it sees its other end.
func AskStream(conn net.Conn) (netip.AddrPort, error) {
	var id wire.TransactionID
	_, _ = rand.Read(id[:])
	if _, err := conn.Write(wire.BindingRequest{ID: id}.Append(nil)); err != nil {
		return netip.AddrPort{}, err
	}
	b, err := wire.ReadFrame(bufio.NewReaderSize(conn, wire.MaxFrame))
	if err != nil {
		return netip.AddrPort{}, err
	}
	m, err := wire.Decode(b)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, err := wire.ParseBindingAnswer(m)
	if err == nil && (a.ID != id || !a.Mapped.IsValid()) {
		err = fmt.Errorf("%w: not the answer that was asked for", wire.ErrMalformed)
	}
	return a.Mapped, err
}
