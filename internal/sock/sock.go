// Package sock is the sockets: it opens them, reads them in batches, and sends
// from them. It knows nothing of what the packets mean.
package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/ipv4"
)

// Network makes a node's sockets and knows its addresses: the system's by
// default, a lab host's in tests.
type Network interface {
	// ListenPacket opens an unconnected UDP socket; network is udp4 or udp6.
	ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error)
	// Prefixes are the addresses of the interfaces that are up, with the length
	// of their link's prefix; loopback ones are left out.
	Prefixes() ([]netip.Prefix, error)
}

const (
	// bufferSize asks the kernel for what a 200 Mbit/s path of 200 ms may have
	// under way; the kernel gives what it allows.
	bufferSize = 7 << 20
	batchSize  = 16
)

// Socket is one UDP socket of one address family.
type Socket struct {
	conn  net.PacketConn
	udp   *net.UDPConn // nil for a simulated socket
	local netip.AddrPort
	gro   bool
	noGSO atomic.Bool
	// Dropped counts packets that the system would not take.
	Dropped atomic.Uint64
}

// Open makes a socket on n; network is udp4 or udp6.
func Open(ctx context.Context, n Network, network string, local netip.AddrPort) (*Socket, error) {
	conn, err := n.ListenPacket(ctx, network, local)
	if err != nil {
		return nil, err
	}
	bound, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("socket of type %T: its address is not a UDP address", conn)
	}
	s := &Socket{conn: conn}
	a := bound.AddrPort()
	s.local = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if udp, ok := conn.(*net.UDPConn); ok {
		s.udp = udp
		_ = udp.SetReadBuffer(bufferSize)
		_ = udp.SetWriteBuffer(bufferSize)
		s.gro = enableGRO(udp)
	}
	return s, nil
}

// Local is the endpoint that the socket is bound to.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Is4 reports whether the socket is of IPv4.
func (s *Socket) Is4() bool { return s.local.Addr().Is4() }

// Close ends Read.
func (s *Socket) Close() error { return s.conn.Close() }

// SyscallConn is the system's handle of the socket, for QUIC to ask what it can
// do; an error where there is none.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if s.udp == nil {
		return nil, errors.ErrUnsupported
	}
	return s.udp.SyscallConn()
}

// Read hands every packet to deliver until the socket is closed. The bytes are
// deliver's only until it returns.
func (s *Socket) Read(deliver func(from netip.AddrPort, b []byte)) error {
	if s.udp == nil {
		return s.readOne(deliver)
	}
	size := 2048
	if s.gro {
		size = 1 << 16
	}
	messages := make([]ipv4.Message, batchSize)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, size)}
		messages[i].OOB = make([]byte, 64)
	}
	batch := ipv4.NewPacketConn(s.udp)
	for {
		n, err := batch.ReadBatch(messages, 0)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if temporary(err) {
				continue
			}
			return err
		}
		for i := range messages[:n] {
			m := &messages[i]
			if addr, ok := m.Addr.(*net.UDPAddr); ok {
				split(unmap(addr.AddrPort()), m.Buffers[0][:m.N], segmentSize(m.OOB[:m.NN]), deliver)
			}
			m.OOB = m.OOB[:cap(m.OOB)]
		}
	}
}

// split cuts what the kernel joined (UDP_GRO) into the packets that came.
func split(from netip.AddrPort, b []byte, segment int, deliver func(netip.AddrPort, []byte)) {
	if segment <= 0 {
		deliver(from, b)
		return
	}
	for len(b) > 0 {
		n := min(segment, len(b))
		deliver(from, b[:n])
		b = b[n:]
	}
}

func (s *Socket) readOne(deliver func(netip.AddrPort, []byte)) error {
	b := make([]byte, 2048)
	for {
		n, from, err := s.conn.ReadFrom(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if temporary(err) {
				continue
			}
			return err
		}
		if addr, ok := from.(*net.UDPAddr); ok {
			deliver(unmap(addr.AddrPort()), b[:n])
		}
	}
}

// Send sends one packet. A ttl other than 0 holds for this packet alone; where
// the system cannot do that, the packet is not sent and the error is
// [errors.ErrUnsupported]: with a full TTL it would do harm.
func (s *Socket) Send(to netip.AddrPort, ttl uint8, b []byte) error {
	if ttl == 0 {
		return s.sent(s.write(b, nil, to))
	}
	oob := ttlMessage(s.Is4(), ttl)
	if oob == nil || s.udp == nil {
		return errors.ErrUnsupported
	}
	return s.sent(s.write(b, oob, to))
}

// SendSegments sends b as packets of segment bytes, the last one as long as is
// left: in one call where the system can (UDP_SEGMENT), one by one elsewhere.
func (s *Socket) SendSegments(to netip.AddrPort, b []byte, segment int) error {
	if segment <= 0 || segment >= len(b) {
		return s.sent(s.write(b, nil, to))
	}
	if s.udp != nil && !s.noGSO.Load() {
		if oob := segmentMessage(segment); oob != nil {
			err := s.write(b, oob, to)
			if !isGSOError(err) {
				return s.sent(err)
			}
			s.noGSO.Store(true)
		}
	}
	var first error
	for len(b) > 0 {
		n := min(segment, len(b))
		if err := s.sent(s.write(b[:n], nil, to)); err != nil && first == nil {
			first = err
		}
		b = b[n:]
	}
	return first
}

func (s *Socket) write(b, oob []byte, to netip.AddrPort) error {
	if s.udp == nil {
		_, err := s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
		return err
	}
	if !s.Is4() && to.Addr().Is4() {
		return syscall.EAFNOSUPPORT
	}
	_, _, err := s.udp.WriteMsgUDPAddrPort(b, oob, to)
	return err
}

func (s *Socket) sent(err error) error {
	if err != nil {
		s.Dropped.Add(1)
	}
	return err
}

// temporary reports whether reading can go on after err: an ICMP error that the
// system hands to the socket says nothing about the next packet.
func temporary(err error) bool {
	var e syscall.Errno
	return errors.As(err, &e) && (e == syscall.ECONNREFUSED || e == syscall.EHOSTUNREACH ||
		e == syscall.ENETUNREACH || e == syscall.ECONNRESET || e == syscall.EMSGSIZE || e == syscall.EINTR)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
