package sock

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// canBatch: recvmmsg(2).
	canBatch  = true
	batchSize = 16
	// controlSize is room for UDP_GRO's message, and for another that a socket of
	// the caller's making may have asked for.
	controlSize = 64
)

// arrivals is what recvmmsg(2) fills, made once a reader: golang.org/x/net makes an
// address for each message.
type arrivals struct {
	conn    syscall.RawConn
	headers [batchSize]mmsghdr
	iovecs  [batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet6 // the larger of the two families
	control [batchSize][controlSize]byte
	buffers [batchSize][]byte

	n       int
	errno   syscall.Errno
	receive func(fd uintptr) (done bool)
}

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	header unix.Msghdr
	size   uint32
}

func newArrivals(conn syscall.RawConn, size int) *arrivals {
	b := &arrivals{conn: conn}
	for i := range b.buffers {
		b.buffers[i] = make([]byte, size)
		h := &b.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.control[i][0]
		h.Iov = &b.iovecs[i]
		h.SetIovlen(1)
	}
	b.receive = b.call
	return b
}

// read waits for packets; there are b.n of them then.
func (b *arrivals) read() error {
	for i := range b.headers {
		h := &b.headers[i].header
		h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
		h.SetControllen(controlSize)
		b.iovecs[i].Base = &b.buffers[i][0]
		b.iovecs[i].SetLen(len(b.buffers[i]))
	}
	b.n = 0
	if err := b.conn.Read(b.receive); err != nil {
		return err
	}
	if b.errno != 0 {
		return b.errno
	}
	return nil
}

func (b *arrivals) call(fd uintptr) (done bool) {
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers)), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN {
		return false
	}
	b.n, b.errno = int(n), errno
	if errno != 0 {
		b.n = 0
	}
	return true
}

// data is packet i, or a run of joined ones.
func (b *arrivals) data(i int) []byte { return b.buffers[i][:b.headers[i].size] }

// segment is the size of the packets in it.
func (b *arrivals) segment(i int) int {
	size := segmentSize(b.control[i][:b.headers[i].header.Controllen])
	if size <= 0 {
		return int(b.headers[i].size)
	}
	return size
}

// from is where packet i came from.
func (b *arrivals) from(i int) netip.AddrPort {
	name := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	}
	a := netip.AddrFrom16(name.Addr).Unmap()
	if name.Scope_id != 0 && a.Is6() {
		a = a.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, port)
}

// readBatch reads up to batchSize packets, or runs of joined ones, in one call.
func (s *Socket) readBatch(deliver Deliver) func() error {
	conn, err := s.udp.SyscallConn()
	if err != nil {
		return func() error { return err }
	}
	size := packetSize
	if s.gro {
		size = runSize
	}
	b := newArrivals(conn, size)
	return func() error {
		err := b.read()
		for i := range b.n {
			kept := deliver(b.from(i), b.data(i), b.segment(i))
			b.buffers[i] = replaced(b.buffers[i], kept)
		}
		return err
	}
}
