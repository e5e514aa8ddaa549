// Package sock is the sockets: it opens them, reads them in batches, and sends
// from them. It knows nothing of what the packets mean.
//
//	sock.go    open, send, close
//	batch.go   many packets at a time
//	queue.go   one writer, who sends together what waits
//	read.go    readers, and what the kernel joined taken apart
//	system.go  the network of the machine that we run on
//	tcp.go     many TCP connections and a listener on one port
//	outbox.go  what waits for a connection, and never makes anybody wait
//	stream.go  packets over one connection
//	icmp_…     sockets for ICMP: what may be opened, and at what rate they send
//	watch_…    how it tells that it changes
//	sock_…     what only some systems can do
package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
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

// StreamNetwork is a Network that has TCP too.
type StreamNetwork interface {
	Network
	// Listen opens a TCP listener; network is tcp4 or tcp6.
	Listen(ctx context.Context, network string, local netip.AddrPort) (net.Listener, error)
	// ListenTCP opens one whose port others may share, and DialTCP connects from such a
	// port: see the functions of these names.
	ListenTCP(ctx context.Context, network string, local netip.AddrPort) (net.Listener, error)
	DialTCP(ctx context.Context, network string, local, remote netip.AddrPort, ttl uint8) (net.Conn, error)
}

// Resolver is a Network that has a name service of its own.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Watcher is a Network that tells when it changes.
type Watcher interface {
	// Changes sends a value after links, addresses or routes have changed, until
	// ctx ends.
	Changes(ctx context.Context) (<-chan struct{}, error)
}

// Lookup finds the addresses of a name on a network.
func Lookup(ctx context.Context, n Network, host string) ([]netip.Addr, error) {
	if r, ok := n.(Resolver); ok {
		return r.LookupNetIP(ctx, "ip", host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

const (
	// bufferSize asks the kernel for what a 200 Mbit/s path of 200 ms may have
	// under way; the kernel gives what it allows.
	bufferSize = 7 << 20
	// maxBurst and maxSegments bound what one call sends: the payload of one
	// UDP packet over IPv6, and the kernel's UDP_MAX_SEGMENTS.
	maxBurst    = 1<<16 - 1 - 8 - 40
	maxSegments = 64
	// gsoPause is how long packets leave one by one after the way out refused
	// to segment: routes change, so it is asked again.
	gsoPause = 10 * time.Second
)

// Socket is one UDP socket of one address family.
type Socket struct {
	conn  net.PacketConn
	udp   *net.UDPConn // nil for a simulated socket
	out   writer       // udp, to send from
	local netip.AddrPort
	gro   bool
	gso   bool
	// small says that the reader has yet to make room for much; grow tells it to.
	small bool
	grow  atomic.Bool
	// refused is when the way out last refused to segment, UnixNano.
	refused atomic.Int64
	// lastSegment is the latest control message that asked to segment.
	lastSegment atomic.Pointer[segmentation]
	queue       queue
	// Dropped counts packets that the system would not take.
	Dropped atomic.Uint64
}

// segmentation asks the system to cut what is sent into packets of size bytes.
type segmentation struct {
	size int
	oob  []byte
}

// segmentControl is the control message that does. One peer's packets have one size
// for long: the last one is kept.
func (s *Socket) segmentControl(size int) []byte {
	if m := s.lastSegment.Load(); m != nil && m.size == size {
		return m.oob
	}
	m := &segmentation{size, segmentMessage(size)}
	s.lastSegment.Store(m)
	return m.oob
}

// writer is what a Socket needs of a *net.UDPConn to send.
type writer interface {
	WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (n, oobn int, err error)
}

// Open makes a socket on n; network is udp4 or udp6.
func Open(ctx context.Context, n Network, network string, local netip.AddrPort) (*Socket, error) {
	s, err := OpenSmall(ctx, n, network, local)
	if err == nil && s.udp != nil {
		s.small = false
		s.enlarge()
	}
	return s, err
}

// OpenSmall is Open for one of many sockets that wait for a few packets: it takes
// little memory until Grow.
func OpenSmall(ctx context.Context, n Network, network string, local netip.AddrPort) (*Socket, error) {
	conn, err := n.ListenPacket(ctx, network, local)
	if err != nil {
		return nil, err
	}
	bound, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("socket of type %T: its address is not a UDP address", conn)
	}
	s := &Socket{conn: conn, local: unmap(bound.AddrPort())}
	if udp, ok := conn.(*net.UDPConn); ok {
		s.udp, s.out, s.small = udp, udp, true
		s.gso = canSegment(udp)
	}
	return s, nil
}

func (s *Socket) enlarge() {
	setBuffers(s.udp, bufferSize)
	s.gro = enableGRO(s.udp)
}

// Grow makes room for a peer's data on a socket of OpenSmall. It may be called
// again, and while Read runs, which does the work.
func (s *Socket) Grow() {
	if s.udp != nil && !s.grow.Swap(true) {
		_ = s.udp.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// Local is the endpoint that the socket is bound to.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Is4 reports whether the socket is of IPv4.
func (s *Socket) Is4() bool { return s.local.Addr().Is4() }

// Close ends Read, after what was queued has left.
func (s *Socket) Close() error {
	s.closeQueue()
	return s.conn.Close()
}

// SyscallConn is the system's handle of the socket, for QUIC to ask what it can
// do; an error where there is none.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if s.udp == nil {
		return nil, errors.ErrUnsupported
	}
	return s.udp.SyscallConn()
}

// Send sends one packet. A ttl other than 0 holds for this packet alone; where
// the system cannot do that, the packet is not sent and the error is
// [errors.ErrUnsupported]: with a full TTL it would do harm.
func (s *Socket) Send(to netip.AddrPort, ttl uint8, b []byte) error {
	if ttl == 0 {
		return s.sent(s.write(b, nil, to), 1)
	}
	if s.udp == nil {
		c, ok := s.conn.(ttlWriter)
		if !ok {
			return errors.ErrUnsupported
		}
		_, err := c.WriteToTTL(b, net.UDPAddrFromAddrPort(to), ttl)
		return s.sent(err, 1)
	}
	oob := ttlMessage(s.Is4(), ttl)
	if oob == nil {
		return errors.ErrUnsupported
	}
	return s.sent(s.write(b, oob, to), 1)
}

// ttlWriter is a simulated socket that can give a packet a TTL of its own.
type ttlWriter interface {
	WriteToTTL(b []byte, to net.Addr, ttl uint8) (int, error)
}

// SendSegments sends b as packets of segment bytes, the last one as long as is
// left: in one call where the system can (UDP_SEGMENT), one by one elsewhere.
// After an error it goes on with what is left, and returns the first one.
func (s *Socket) SendSegments(to netip.AddrPort, b []byte, segment int) error {
	if segment <= 0 || segment >= len(b) {
		return s.sent(s.write(b, nil, to), 1)
	}
	var first error
	for burst := range slices.Chunk(b, segment*max(1, min(maxSegments, maxBurst/segment))) {
		if err := s.sendBurst(to, burst, segment); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// sendBurst sends what one call can take. When that call fails for the reason
// that it is one, the packets leave one by one.
func (s *Socket) sendBurst(to netip.AddrPort, b []byte, segment int) error {
	if len(b) > segment && s.segments() {
		err := s.write(b, s.segmentControl(segment), to)
		switch {
		case refusesSegments(err):
			s.refused.Store(time.Now().UnixNano())
		case !refusesBurst(err):
			return s.sent(err, (len(b)+segment-1)/segment)
		}
	}
	var first error
	for packet := range slices.Chunk(b, segment) {
		if err := s.sent(s.write(packet, nil, to), 1); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// segments reports whether the kernel may be asked to segment.
func (s *Socket) segments() bool {
	if !s.gso {
		return false
	}
	refused := s.refused.Load()
	return refused == 0 || time.Now().UnixNano()-refused > int64(gsoPause)
}

func (s *Socket) write(b, oob []byte, to netip.AddrPort) error {
	if s.out == nil {
		_, err := s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
		return err
	}
	if s.Is4() != to.Addr().Unmap().Is4() {
		return syscall.EAFNOSUPPORT
	}
	_, _, err := s.out.WriteMsgUDPAddrPort(b, oob, to)
	return err
}

func (s *Socket) sent(err error, packets int) error {
	if err != nil {
		s.Dropped.Add(uint64(packets))
	}
	return err
}

// NoFamily reports whether err, of Open, says that the system lacks the address
// family.
func NoFamily(err error) bool { return isErrno(err, errnosNoFamily) }

func isErrno(err error, of []syscall.Errno) bool {
	var e syscall.Errno
	return errors.As(err, &e) && slices.Contains(of, e)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
