package netbed

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// plain turns off what leaves work to a network card that is not there: checksums
// to be filled in and segments to be cut. AF_PACKET would see the unfinished
// packets.
func plain(n *ns, name string) error {
	return n.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("ethtool socket: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		for _, command := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SSG, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO} {
			// Without checksums by the card the kernel gives up the rest by itself.
			if err := ethtool(fd, name, command); err != nil && command == unix.ETHTOOL_STXCSUM {
				return fmt.Errorf("ethtool %s: %w", name, err)
			}
		}
		return nil
	})
}

// ethtool sets one value of an interface to 0.
func ethtool(fd int, name string, command uint32) error {
	value := struct{ cmd, data uint32 }{command, 0}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
