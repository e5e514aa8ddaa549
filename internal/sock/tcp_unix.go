//go:build unix

package sock

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// canLimitHops says that a connection's first packet can have a TTL of its own.
const canLimitHops = true

// sharePort lets a port have a listener and several connections at once: SO_REUSEPORT
// is for the listener, which SO_REUSEADDR leaves out.
func sharePort(fd uintptr) error {
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1); err != nil {
			return fmt.Errorf("share a TCP port: %w", err)
		}
	}
	return nil
}

// limitHops sets the TTL of what leaves by a connection, and returns what it was.
func limitHops(fd uintptr, is4 bool, hops int) (was int, err error) {
	level, option := unix.IPPROTO_IP, unix.IP_TTL
	if !is4 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	if was, err = unix.GetsockoptInt(int(fd), level, option); err == nil {
		err = unix.SetsockoptInt(int(fd), level, option, hops)
	}
	if err != nil {
		return 0, fmt.Errorf("set a connection's TTL: %w", err)
	}
	return was, nil
}
