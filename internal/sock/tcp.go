package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// DialTCP connects from one of our ports, which may have a listener of [ListenTCP] and
// other connections too. A ttl other than 0 holds until the connection is there: what
// dies on the way opens our own NAT and does not reach the peer's. Where the system
// cannot do that, nothing is sent and the error is [errors.ErrUnsupported].
func DialTCP(ctx context.Context, network string, local, remote netip.AddrPort, ttl uint8) (net.Conn, error) {
	is4 := network == "tcp4"
	if ttl != 0 && !canLimitHops {
		return nil, fmt.Errorf("TTL of a connection's first packet: %w on this system", errors.ErrUnsupported)
	}
	usual := 0
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(local),
		// A route has probes of its own.
		KeepAliveConfig: net.KeepAliveConfig{Enable: false},
		KeepAlive:       -1,
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd uintptr) (err error) {
				if err = sharePort(fd); err == nil && ttl != 0 {
					usual, err = limitHops(fd, is4, int(ttl))
				}
				return err
			})
		},
	}
	conn, err := d.DialContext(ctx, network, remote.String())
	if err != nil {
		return nil, err
	}
	if ttl != 0 {
		if err := restoreHops(conn, is4, usual); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// PortTaken reports whether err, of [DialTCP], says that something else has the local
// port, or an older connection from there to the same endpoint.
func PortTaken(err error) bool { return isErrno(err, errnosPortTaken) }

// ListenTCP listens on a port from which others may connect with [DialTCP].
func ListenTCP(ctx context.Context, network string, local netip.AddrPort) (net.Listener, error) {
	c := net.ListenConfig{
		KeepAlive: -1,
		Control:   func(_, _ string, c syscall.RawConn) error { return control(c, sharePort) },
	}
	c.SetMultipathTCP(false) // its port is not shared with plain TCP alike everywhere
	address := ""
	if local.IsValid() {
		address = local.String()
	}
	return c.Listen(ctx, network, address)
}

// control does f with a descriptor.
func control(c syscall.RawConn, f func(fd uintptr) error) (err error) {
	if e := c.Control(func(fd uintptr) { err = f(fd) }); e != nil {
		return e
	}
	return err
}

func restoreHops(conn net.Conn, is4 bool, usual int) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd uintptr) error {
		_, err := limitHops(fd, is4, usual)
		return err
	})
}

// TuneTCP prepares a connection to carry packets.
func TuneTCP(conn net.Conn) {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetNoDelay(true)
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(limitUnsent)
	}
}

// UntuneTCP prepares it to carry a stream of bytes again.
func UntuneTCP(conn net.Conn) {
	if a, ok := conn.(*aheadConn); ok {
		conn = a.Conn
	}
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(unlimitUnsent)
	}
}

// Refused reports whether a connect ended in a reset.
func Refused(err error) bool { return isErrno(err, errnosRefused) }

// NoWay reports whether an ICMP error ended a connect, as it does if the TTL was
// too low.
func NoWay(err error) bool { return isErrno(err, errnosUnreachable) }

// NoRoom reports whether the process or the system has no descriptor left.
func NoRoom(err error) bool { return isErrno(err, errnosNoRoom) }
