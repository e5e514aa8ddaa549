package sock

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Changes implements [Watcher]: a socket of the kernel's (rtnetlink) says that links,
// addresses or routes change. What exactly is of no interest: who is told looks.
func (System) Changes(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch network interfaces: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch network interfaces: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		defer stop()
		b := make([]byte, os.Getpagesize())
		for {
			// An overrun (ENOBUFS) is a change, too, and many of them.
			if _, err := f.Read(b); err != nil && !isErrno(err, []unix.Errno{unix.ENOBUFS, unix.EINTR}) {
				_ = f.Close()
				return
			}
			select {
			case changed <- struct{}{}:
			default: // it will look anyway
			}
		}
	}()
	return changed, nil
}
