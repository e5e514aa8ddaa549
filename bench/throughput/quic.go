package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"time"

	"bodkin/bench/throughput/end"

	"github.com/quic-go/quic-go"
)

// openQUIC is quic-go as it comes, on a UDP socket of its own: with its own packet
// size and search for a larger one. The windows are Bodkin's, for neither is to wait
// for the other's flow control.
func openQUIC(ctx context.Context, cfg end.Config, hello func(string)) (l end.Link, err error) {
	identity, err := certificate()
	if err != nil {
		return l, err
	}
	tlsConfig := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{identity}, NextProtos: []string{"bench"},
		InsecureSkipVerify: true, // the two ends are in one lab
	}
	config := &quic.Config{
		KeepAlivePeriod: 5 * time.Second, EnableDatagrams: true,
		InitialStreamReceiveWindow: 2 << 20, MaxStreamReceiveWindow: 32 << 20,
		InitialConnectionReceiveWindow: 4 << 20, MaxConnectionReceiveWindow: 64 << 20,
	}
	socket, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(cfg.Self))
	if err != nil {
		return l, err
	}
	t := &quic.Transport{Conn: socket}
	var conn *quic.Conn
	if cfg.Dial {
		conn, err = t.Dial(ctx, net.UDPAddrFromAddrPort(cfg.Peer), tlsConfig, config)
	} else {
		if _, err := socket.WriteToUDPAddrPort([]byte("opener"), cfg.Peer); err != nil {
			return l, err
		}
		listener, lerr := t.Listen(tlsConfig, config)
		if lerr != nil {
			return l, lerr
		}
		hello("quic")
		conn, err = listener.Accept(ctx)
	}
	if err != nil {
		return l, err
	}
	if cfg.Kind == kindQUICDatagram {
		return end.Link{Bulk: quicDatagrams{conn: conn}, Packet: datagramSize}, nil
	}
	for _, c := range []*net.Conn{&l.Bulk, &l.Echo} {
		var s *quic.Stream
		if cfg.Dial {
			s, err = conn.OpenStreamSync(ctx)
		} else {
			s, err = conn.AcceptStream(ctx)
		}
		if err != nil {
			return l, err
		}
		*c = quicStream{s, conn}
		if cfg.Dial { // the other end learns of it, and of this one first
			if _, err := s.Write([]byte{0}); err != nil {
				return l, err
			}
		} else if _, err := s.Read(make([]byte, 1)); err != nil {
			return l, err
		}
	}
	return l, nil
}

type quicStream struct {
	*quic.Stream
	conn *quic.Conn
}

func (s quicStream) LocalAddr() net.Addr  { return s.conn.LocalAddr() }
func (s quicStream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// quicDatagrams writes and reads datagrams, one a call.
type quicDatagrams struct {
	net.Conn
	conn *quic.Conn
}

func (d quicDatagrams) Write(b []byte) (int, error) {
	return len(b), d.conn.SendDatagram(append([]byte(nil), b...)) // it keeps what it is given
}

func (d quicDatagrams) Read(b []byte) (int, error) {
	p, err := d.conn.ReceiveDatagram(context.Background())
	return copy(b, p), err
}

func certificate() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}
