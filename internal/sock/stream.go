package sock

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// Framing is how packets stand one behind the other on a connection.
type Framing struct {
	// Room is the size of the largest frame.
	Room int
	// Read reads the next packet, which is a part of the reader's buffer until the
	// next read.
	Read func(*bufio.Reader) ([]byte, error)
	// Append appends a packet with what its frame adds, and Size is how much that is
	// for a packet of n bytes.
	Append func(b, packet []byte) []byte
	Size   func(n int) int
}

// Stream is packets over one connection: what [Socket] is over UDP, to one endpoint
// alone. It never blocks a sender: what the connection does not take is dropped.
type Stream struct {
	conn    net.Conn
	remote  netip.AddrPort
	framing Framing
	out     outbox
	over    chan struct{}
	ahead   *bufio.Reader // what Read had read when it ended
	// Dropped counts packets that the connection did not take.
	Dropped atomic.Uint64
}

// NewStream carries packets over conn, which is TCP, or something above it. The
// budget, if not nil, bounds what waits in several streams together.
func NewStream(conn net.Conn, remote netip.AddrPort, f Framing, budget *Budget) *Stream {
	return &Stream{conn: conn, remote: unmap(remote), framing: f, over: make(chan struct{}), out: outbox{conn: conn, budget: budget}}
}

// Remote is the endpoint at the other end.
func (s *Stream) Remote() netip.AddrPort { return s.remote }

// Send sends a packet of the control plane: it leaves also where data is dropped. A
// ttl other than 0 is [errors.ErrUnsupported].
func (s *Stream) Send(_ netip.AddrPort, ttl uint8, b []byte) error {
	if ttl != 0 {
		return errors.ErrUnsupported
	}
	return s.put(b, len(b), true)
}

// Queue sends packets of segment bytes, the last one as long as is left.
func (s *Stream) Queue(_ netip.AddrPort, b []byte, segment int) {
	if len(b) > 0 {
		_ = s.put(b, segment, false)
	}
}

// put takes packets in, all that fit.
func (s *Stream) put(b []byte, segment int, urgent bool) error {
	if segment <= 0 || segment > len(b) {
		segment = max(1, len(b))
	}
	for {
		n := min(segment, len(b))
		packet := b[:n]
		err := s.out.put(s.framing.Size(n), urgent, func(out []byte) []byte { return s.framing.Append(out, packet) })
		if err != nil {
			s.Dropped.Add(uint64(max(1, (len(b)+segment-1)/segment)))
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
}

// SyscallConn implements path's Sender: QUIC has nothing to ask a connection.
func (s *Stream) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// Detach sends a last packet, and no other one any more. The connection stays open: once
// Read has ended, too, it is the caller's, as [Stream.Conn] has it.
func (s *Stream) Detach(last []byte) error {
	return s.out.finish(func(out []byte) []byte { return s.framing.Append(out, last) })
}

// Over is closed when Read has ended.
func (s *Stream) Over() <-chan struct{} { return s.over }

// Conn is the connection, with what Read has read ahead.
func (s *Stream) Conn() net.Conn {
	_ = s.conn.SetDeadline(time.Time{})
	if s.ahead == nil || s.ahead.Buffered() == 0 {
		return s.conn
	}
	return &aheadConn{Conn: s.conn, ahead: s.ahead}
}

// aheadConn is a connection of which something has been read.
type aheadConn struct {
	net.Conn
	ahead *bufio.Reader
}

// Read implements [net.Conn].
func (c *aheadConn) Read(b []byte) (int, error) {
	if c.ahead.Buffered() > 0 {
		return c.ahead.Read(b)
	}
	return c.Conn.Read(b)
}

// SetLinger is the connection's, if it has one.
func (c *aheadConn) SetLinger(seconds int) error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// Close ends Read, after what was queued has left.
func (s *Stream) Close() error { return s.out.close(closeTime) }

// Abort ends Read at once.
func (s *Stream) Abort() error { return s.out.close(0) }

// readAhead is the size of the buffer of a stream that carries much.
const readAhead = 16 << 10

// Read hands every packet to deliver until the connection ends, or deliver has had
// enough. Before it waits for more it calls idle, which says until when it may wait:
// for ever, if that is zero. It can be called once. The error is io.EOF at an end between two packets and
// net.ErrClosed after Close.
func (s *Stream) Read(deliver func(b []byte) bool, idle func() time.Time) error {
	defer close(s.over)
	r := bufio.NewReaderSize(s.conn, s.framing.Room)
	for {
		if r.Buffered() < s.framing.Room {
			// The next packet may not be there as a whole.
			_ = s.conn.SetReadDeadline(idle()) // of a closed connection, reading tells
		}
		b, err := s.framing.Read(r)
		if err != nil {
			return err
		}
		full := r.Buffered()+len(b) >= r.Size()-4
		if !deliver(b) {
			s.ahead = r
			return nil
		}
		if full && r.Size() < readAhead {
			r = bufio.NewReaderSize(r, readAhead) // more waits
		}
	}
}
