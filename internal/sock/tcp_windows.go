package sock

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// canLimitHops: IP_TTL holds for a SYN here, too.
const canLimitHops = true

// sharePort: SO_REUSEADDR is all that there is, and all that it takes.
func sharePort(fd uintptr) error {
	if err := windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("share a TCP port: %w", err)
	}
	return nil
}

// limitHops sets the TTL of what leaves by a connection, and returns what it was.
func limitHops(fd uintptr, is4 bool, hops int) (was int, err error) {
	const unicastHops = 4 // IPV6_UNICAST_HOPS and IP_TTL have the same number
	level := windows.IPPROTO_IP
	if !is4 {
		level = windows.IPPROTO_IPV6
	}
	if was, err = windows.GetsockoptInt(windows.Handle(fd), level, unicastHops); err == nil {
		err = windows.SetsockoptInt(windows.Handle(fd), level, unicastHops, hops)
	}
	if err != nil {
		return 0, fmt.Errorf("set a connection's TTL: %w", err)
	}
	return was, nil
}
