package path

import (
	"net"
	"time"
)

// plain is a Conn without what asks the system: QUIC would fail to ask a
// simulated socket whether it can segment, and without the methods does not ask.
type plain struct{ c *Conn }

// ReadFrom implements [net.PacketConn].
func (p plain) ReadFrom(b []byte) (int, net.Addr, error) { return p.c.ReadFrom(b) }

// WriteTo implements [net.PacketConn].
func (p plain) WriteTo(b []byte, to net.Addr) (int, error) { return p.c.WriteTo(b, to) }

// Close implements [net.PacketConn].
func (p plain) Close() error { return p.c.Close() }

// LocalAddr implements [net.PacketConn].
func (p plain) LocalAddr() net.Addr { return p.c.LocalAddr() }

// SetDeadline implements [net.PacketConn].
func (p plain) SetDeadline(t time.Time) error { return p.c.SetDeadline(t) }

// SetReadDeadline implements [net.PacketConn].
func (p plain) SetReadDeadline(t time.Time) error { return p.c.SetReadDeadline(t) }

// SetWriteDeadline implements [net.PacketConn].
func (p plain) SetWriteDeadline(t time.Time) error { return p.c.SetWriteDeadline(t) }

// SetReadBuffer does nothing, as that of Conn; without it QUIC would complain.
func (p plain) SetReadBuffer(n int) error { return p.c.SetReadBuffer(n) }

// SetWriteBuffer does nothing.
func (p plain) SetWriteBuffer(n int) error { return p.c.SetWriteBuffer(n) }
