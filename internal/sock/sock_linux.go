package sock

import (
	"encoding/binary"
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// option does f with the descriptor of a socket and reports whether it worked.
func option(c *net.UDPConn, f func(fd int) error) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	_ = raw.Control(func(fd uintptr) { ok = f(int(fd)) == nil })
	return ok
}

// setBuffers asks for buffers of that size: beyond the system's limit where we
// have the right to.
func setBuffers(c *net.UDPConn, size int) {
	for name, set := range map[int]func(int) error{
		unix.SO_RCVBUFFORCE: c.SetReadBuffer, unix.SO_SNDBUFFORCE: c.SetWriteBuffer,
	} {
		if !option(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, size) }) {
			_ = set(size)
		}
	}
}

// enableGRO asks the kernel to join packets of one flow (udp(7), UDP_GRO).
func enableGRO(c *net.UDPConn) bool {
	return option(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
}

// canSegment reports whether the kernel knows UDP_SEGMENT. One that does not
// would ignore it and send a single packet.
func canSegment(c *net.UDPConn) bool {
	return option(c, func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		return err
	})
}

// segmentSize is the size of the packets that were joined, or 0.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(body)))
		}
		oob = rest
	}
	return 0
}

// controlMessage is a control message of one value, in the system's byte order.
func controlMessage[T uint16 | int32](level, kind int32, v T) []byte {
	n := int(unsafe.Sizeof(v))
	b := make([]byte, unix.CmsgSpace(n))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	*(*T)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = v
	return b
}

func segmentMessage(size int) []byte {
	return controlMessage(unix.SOL_UDP, unix.UDP_SEGMENT, uint16(size))
}

// ttlMessage sets the TTL of one packet: setsockopt on a shared socket would set
// that of its neighbours too.
func ttlMessage(is4 bool, ttl uint8) []byte {
	if is4 {
		return controlMessage(unix.IPPROTO_IP, unix.IP_TTL, int32(ttl))
	}
	return controlMessage(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, int32(ttl))
}

// refusesSegments: the way out cannot segment, since its device does not compute
// checksums or IPsec is on it.
func refusesSegments(err error) bool { return errors.Is(err, unix.EIO) }

// refusesBurst: this burst cannot be segmented, for example because a segment is
// larger than the path's MTU. The next burst may.
func refusesBurst(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}
