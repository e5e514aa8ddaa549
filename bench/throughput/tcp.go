package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"bodkin/bench/throughput/end"
)

// openTCP is the kernel's own TCP, with TLS 1.3 if it is asked for: one connection
// for the data, and one for the round trips.
func openTCP(ctx context.Context, cfg end.Config, hello func(string)) (l end.Link, err error) {
	next := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }
	bulk, echo := meet(ctx, cfg.Self, cfg.Peer), meet(ctx, next(cfg.Self), next(cfg.Peer))
	if !cfg.Dial {
		time.Sleep(openTime)
		hello("tcp")
	}
	for c, m := range map[*net.Conn]<-chan met{&l.Bulk: bulk, &l.Echo: echo} {
		got := <-m
		if got.err != nil {
			return l, got.err
		}
		*c = got.conn
	}
	if cfg.Kind == kindTCP {
		return l, nil
	}
	identity, err := certificate()
	if err != nil {
		return l, err
	}
	tlsConfig := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{identity},
		InsecureSkipVerify: true, // the two ends are in one lab
	}
	for _, c := range []*net.Conn{&l.Bulk, &l.Echo} {
		secured := tls.Server(*c, tlsConfig)
		if cfg.Dial {
			secured = tls.Client(*c, tlsConfig)
		}
		if err := secured.HandshakeContext(ctx); err != nil {
			return l, err
		}
		*c = secured
	}
	return l, nil
}

const (
	// openTime is for a SYN to have left: the NAT is open then.
	openTime = 50 * time.Millisecond
	meetTime = 10 * time.Second
)

type met struct {
	conn net.Conn
	err  error
}

// meet connects through two NATs, whose owners both dial (RFC 9293 §3.5, simultaneous
// open). A listener would not do: its own answer is not the SYN that its NAT has seen.
func meet(ctx context.Context, self, peer netip.AddrPort) <-chan met {
	out := make(chan met, 1)
	go func() {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(self), Timeout: meetTime}
		c, err := d.DialContext(ctx, "tcp4", peer.String())
		out <- met{c, err}
	}()
	return out
}
