package netbed

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is an AF_PACKET socket on the core's end of a link: whole Ethernet frames
// in and out. Frames come in through a ring that is shared with the kernel: no
// system call a packet, and room for a burst that does not depend on the
// system's limit of socket buffers, which an ordinary user cannot exceed.
type port struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	ring ring
	// header begins each frame that the port sends: the neighbour's address,
	// ours, and room for the type. An end of a pipe has none: its frames pass
	// unchanged.
	header *[frameHeader]byte
	// refused counts frames that the system had no room to send.
	refused atomic.Uint64
	// dropped sums what the kernel reports; it forgets at every report.
	dropped atomic.Uint64
}

const (
	frameHeader = 14
	maxFrame    = frameHeader + 1600
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd

	// sendBuffer is for bursts on the way out.
	sendBuffer = 8 << 20
)

// openPort opens a port on an interface of the namespace.
func openPort(n *ns, name string) (*port, error) {
	var p *port
	err := n.do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		// Protocol 0 receives nothing until the ring is there.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		if p, err = newPort(fd, name, i.Index); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("packet socket on %s: %w", name, err)
		}
		return nil
	})
	return p, err
}

func newPort(fd int, name string, index int) (*port, error) {
	p := &port{fd: fd}
	// Not what we send ourselves.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	if err := p.ring.open(fd); err != nil {
		return nil, err
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}
	if err := unix.Bind(fd, to); err != nil {
		p.ring.close()
		return nil, err
	}
	p.file = os.NewFile(uintptr(fd), "packet:"+name)
	var err error
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.ring.close()
		return nil, err
	}
	return p, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// read hands over the frames that have come, waiting for one at least. A frame is
// the handler's only until it returns; it may change it.
func (p *port) read(handle func(age int64, frame []byte)) error {
	return p.raw.Read(func(uintptr) bool { return p.ring.drain(handle) > 0 })
}

// send sends a frame, or loses it where the system has no room.
func (p *port) send(b []byte) {
	if p.header != nil {
		copy(b, p.header[:12])
		ether := uint16(etherIPv4)
		if b[frameHeader]>>4 == 6 {
			ether = etherIPv6
		}
		b[12], b[13] = byte(ether>>8), byte(ether)
	}
	if _, err := unix.Write(p.fd, b); err != nil {
		p.refused.Add(1)
	}
}

// lost is how many frames the machine was too slow for.
func (p *port) lost() uint64 {
	if s, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		p.dropped.Add(uint64(s.Drops))
	}
	return p.dropped.Load() + p.refused.Load()
}

// close ends reading. The ring is released when the reader has returned.
func (p *port) close() { _ = p.file.Close() }
