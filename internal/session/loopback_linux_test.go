package session_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"bodkin/internal/path"

	"golang.org/x/sys/unix"
)

// counting looks at what QUIC writes.
type counting struct {
	*path.Conn
	bursts, packets *atomic.Int64
}

func (c counting) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	c.packets.Add(1)
	for rest := oob; len(rest) > 0; {
		h, _, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_SEGMENT {
			c.bursts.Add(1)
		}
		rest = next
	}
	return c.Conn.WriteMsgUDP(b, oob, to)
}

// QUIC hands over many packets at once: it has found that the socket beneath can
// segment.
func TestQUICSendsBursts(t *testing.T) {
	t.Parallel()
	probe, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = probe.Close() }()
	raw, err := probe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	known := false
	_ = raw.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		known = err == nil
	})
	if !known {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	var bursts, packets atomic.Int64
	a, b := overLoopback(t, func(c net.PacketConn) net.PacketConn {
		return counting{c.(*path.Conn), &bursts, &packets}
	})
	const size = 4 << 20
	go func() { _, _ = a.Write(make([]byte, size)) }()
	if _, err := io.ReadFull(b, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if bursts.Load() == 0 || packets.Load() > size/1228 {
		t.Errorf("%d calls, of which %d are bursts, for %d packets", packets.Load(), bursts.Load(), size/1228)
	}
}
