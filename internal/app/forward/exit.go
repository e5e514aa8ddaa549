package forward

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// connect is the side that connects to the target: it answers, and carries what
// passes until that has ended. The error is what kept it from the target.
func connect(ctx context.Context, c Conn, to Endpoint) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	defer stop()
	s, err := dialTarget(ctx, to)
	if err != nil {
		refuse(c, replyTo(err))
		return err
	}
	if u, ok := s.(*net.UDPConn); ok {
		exitFlow(c, u)
		return nil
	}
	if _, err := c.Write(reply{}.bytes()); err != nil {
		reset(s.(socket))
		_ = c.Abort()
		return nil
	}
	return splice(s.(socket), c, func() error { return nil })
}

// dialTarget connects to the target.
func dialTarget(ctx context.Context, to Endpoint) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, targetTime)
	defer cancel()
	if to.Network == UDP {
		return dialUDP(ctx, to.Address)
	}
	return new(net.Dialer).DialContext(ctx, to.Network, to.Address)
}

// dialUDP is Dial, by IPv4 where a name has both: connecting finds out nothing, and
// most of what answers at localhost does at 127.0.0.1.
func dialUDP(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	at := found[0]
	for _, a := range found {
		if a.Unmap().Is4() {
			at = a.Unmap()
			break
		}
	}
	return new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(at.String(), port))
}

// refuse answers a request with no, and waits for nothing.
func refuse(c Conn, p reply) {
	_, _ = c.Write(p.bytes())
	_ = c.Close()
}

// replyTo says what kept us from the target.
func replyTo(err error) reply {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return reply{statusNoHost, dns.Name}
	case errors.As(err, &dns):
		return reply{statusNoHost, dns.Err}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return reply{status: statusRefused}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return reply{status: statusUnreachable, text: "no route to it"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return reply{status: statusUnreachable, text: "time is up"}
	case errors.Is(err, syscall.EADDRINUSE):
		return reply{status: statusTaken}
	}
	return reply{statusFailed, err.Error()}
}
