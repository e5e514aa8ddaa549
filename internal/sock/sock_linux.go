package sock

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enableGRO asks the kernel to join packets of one flow (udp(7), UDP_GRO).
func enableGRO(c *net.UDPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	_ = raw.Control(func(fd uintptr) {
		ok = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	})
	return ok
}

// segmentSize is the size of the packets that were joined, or 0.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 4 {
			return int(*(*int32)(unsafe.Pointer(&body[0])))
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

// isGSOError tells that the way out cannot segment: the interface has no
// checksum offload (EIO), or the kernel does not know the message (EINVAL).
func isGSOError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL)
}
