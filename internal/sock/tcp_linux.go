package sock

import "golang.org/x/sys/unix"

// limitUnsent bounds what the system takes before it is sent (tcp(7),
// TCP_NOTSENT_LOWAT).
func limitUnsent(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
}
