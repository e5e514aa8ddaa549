package sock

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// packetSize is what a reader makes room for: more than any link's MTU that a
// peer may use, joined packets aside.
const packetSize = 2048

// Read hands every packet to deliver until the socket is closed. The bytes are
// deliver's only until it returns.
func (s *Socket) Read(deliver func(from netip.AddrPort, b []byte)) error {
	return s.ReadBatches(deliver, func() {})
}

// ReadBatches is Read for those who would rather do something with many packets at
// a time: done follows the packets that came in one call of the system's, and their
// bytes stay as they are until it returns.
func (s *Socket) ReadBatches(deliver func(from netip.AddrPort, b []byte), done func()) error {
	return s.read(func(from netip.AddrPort, b []byte, segment int) bool {
		split(from, b, segment, deliver)
		return false
	}, done)
}

// A Deliver takes packets that came in one piece from one source, all of segment
// bytes but the last. The bytes are its own only until it returns, or if it says that
// it keeps them until it gives them to [Release].
type Deliver func(from netip.AddrPort, b []byte, segment int) (kept bool)

// ReadRuns is Read for those who take packets as the kernel joined them.
func (s *Socket) ReadRuns(deliver Deliver) error { return s.read(deliver, func() {}) }

func (s *Socket) read(deliver Deliver, done func()) error {
	next := s.reader()(deliver)
	for {
		err := next()
		done()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && s.grow.Load():
			_ = s.udp.SetReadDeadline(time.Time{})
			s.small = false
			s.enlarge()
			next = s.reader()(deliver)
		case err == nil, isErrno(err, errnosPassing):
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			return err
		}
	}
}

// runSize is the largest piece that a Deliver gets.
const runSize = 1 << 16

var runBuffers = sync.Pool{New: func() any { return new([runSize]byte) }}

// Release gives bytes back that a Deliver has kept, as it got them.
func Release(b []byte) {
	if cap(b) == runSize {
		runBuffers.Put((*[runSize]byte)(b[:runSize]))
	}
}

// reader is how the socket is read best.
func (s *Socket) reader() func(Deliver) func() error {
	switch {
	case s.udp == nil:
		return s.readOne
	case s.small, !canBatch:
		return s.readUDP
	}
	return s.readBatch
}

// readUDP reads packet by packet: on a small socket, and where the system has no
// call for more.
func (s *Socket) readUDP(deliver Deliver) func() error {
	b := make([]byte, packetSize)
	return func() error {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		if err == nil {
			b = replaced(b, deliver(unmap(from), b[:n], n))
		}
		return err
	}
}

// readOne reads from a simulated socket.
func (s *Socket) readOne(deliver Deliver) func() error {
	b := make([]byte, packetSize)
	return func() error {
		n, from, err := s.conn.ReadFrom(b)
		if addr, ok := from.(*net.UDPAddr); ok && err == nil {
			b = replaced(b, deliver(unmap(addr.AddrPort()), b[:n], n))
		}
		return err
	}
}

// replaced is b, or where that was kept a buffer like it.
func replaced(b []byte, kept bool) []byte {
	switch {
	case !kept:
		return b
	case cap(b) == runSize:
		return runBuffers.Get().(*[runSize]byte)[:]
	}
	return make([]byte, len(b))
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
