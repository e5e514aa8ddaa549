package sock

import (
	"math"

	"golang.org/x/sys/unix"
)

// notSent is how much the system takes of a connection before it is sent: more would
// only be late.
const notSent = 32 << 10

// limitUnsent bounds what the system takes before it is sent (tcp(7),
// TCP_NOTSENT_LOWAT).
func limitUnsent(fd uintptr) { setUnsent(fd, notSent) }

func unlimitUnsent(fd uintptr) { setUnsent(fd, math.MaxInt32) }

func setUnsent(fd uintptr, n int) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
}
