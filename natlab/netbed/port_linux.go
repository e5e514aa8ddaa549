package netbed

import (
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// port is an AF_PACKET socket on the core's end of a link: whole Ethernet frames
// in and out.
type port struct {
	file *os.File
	fd   int
	// header begins each frame that the port sends: the neighbour's address,
	// ours, and room for the type. Without it, frames pass unchanged.
	header [14]byte
}

const (
	frameHeader = 14
	maxFrame    = frameHeader + 1600
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
)

// openPort opens a port on an interface of the namespace.
func openPort(n *ns, name string) (*port, error) {
	var p *port
	err := n.do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		all := int(htons(unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		// Not what we send ourselves, and room for a burst.
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: i.Index}); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("packet socket on %s: %w", name, err)
		}
		p = &port{file: os.NewFile(uintptr(fd), "packet:"+name), fd: fd}
		return nil
	})
	return p, err
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// read waits for a frame.
func (p *port) read(b []byte) (int, error) { return p.file.Read(b) }

// write sends a frame, or loses it where the system has no room.
func (p *port) write(b []byte) { _, _ = unix.Write(p.fd, b) }

func (p *port) close() { _ = p.file.Close() }

// plain turns off what leaves work to a network card that is not there: checksums
// to be filled in and segments to be cut. AF_PACKET would see the unfinished
// packets.
func plain(n *ns, name string) error {
	return n.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, command := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SSG, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO} {
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
