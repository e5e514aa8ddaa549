package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"golang.org/x/sys/unix"
)

// Net is a bed of network namespaces. UDP goes through ordinary sockets there, all
// else through packet sockets, and the hosts' own systems are silent.
type Net struct{ Bed netbed.Bed }

// Start implements [Bed].
func (n Net) Start(ctx context.Context, t natlab.Topology) (Lab, error) {
	lab, err := n.Bed.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	l := &netLab{lab: lab, hosts: make(map[string]*netHost)}
	for _, h := range t.Hosts {
		x := &netHost{Host: lab.Host(h.Name), lab: l, raw: -1, ports: make(map[uint16][2]int)}
		l.hosts[h.Name] = x
		if err := x.open(); err != nil {
			l.Close()
			return nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return l, nil
}

type netLab struct {
	lab   *netbed.Lab
	hosts map[string]*netHost
	socks []sock
	polls []unix.PollFd // of socks, in order
}

// sock is an open socket of a host. Those of UDP have a port.
type sock struct {
	host *netHost
	port uint16
}

func (l *netLab) Host(name string) Host         { return l.hosts[name] }
func (l *netLab) Outside(box string) netip.Addr { return l.lab.Box(box).Addr() }
func (l *netLab) Reboot(box string) error       { return l.lab.Box(box).Reboot(false) }
func (l *netLab) Virtual() bool                 { return false }
func (l *netLab) add(h *netHost, port uint16, fd int) {
	l.socks = append(l.socks, sock{h, port})
	l.polls = append(l.polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
}

func (l *netLab) Close() {
	for _, p := range l.polls {
		_ = unix.Close(int(p.Fd))
	}
	for _, h := range l.hosts {
		if h.raw >= 0 {
			_ = unix.Close(h.raw)
		}
	}
	l.lab.Close()
}

// Until reads what sockets have, and waits for more. Nobody else reads: once a
// sentinel is read, what came to the host before it is in a socket at least, and
// one more look finds it.
func (l *netLab) Until(cond func() bool, d time.Duration) bool {
	deadline := time.Now().Add(d)
	for {
		l.read()
		if cond != nil && cond() {
			l.read()
			return true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		timeout := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll(l.polls, &timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			panic(failure{fmt.Errorf("poll: %w", err)})
		}
	}
}

// read empties the sockets.
func (l *netLab) read() {
	b := make([]byte, 2048)
	for i, s := range l.socks {
		for {
			n, from, err := unix.Recvfrom(int(l.polls[i].Fd), b, 0)
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED):
				continue
			case err != nil:
			default:
				s.host.take(s.port, from, b[:n])
				continue
			}
			break
		}
	}
}

type netHost struct {
	*netbed.Host
	lab     *netLab
	ports   map[uint16][2]int // the sockets of IPv4 and IPv6
	raw     int               // to send IPv4 from; -1 without
	arrived []Arrival
}

func (h *netHost) Arrived() []Arrival { return h.arrived }

// open opens the host's packet sockets.
func (h *netHost) open() error {
	if err := h.Silence(); err != nil {
		return err
	}
	return h.Do(func() error {
		link, err := net.InterfaceByName("wan")
		if err != nil {
			return err
		}
		const kind = unix.SOCK_DGRAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
		fd, err := unix.Socket(unix.AF_PACKET, kind, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		h.lab.add(h, 0, fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		all := uint16(unix.ETH_P_ALL)
		to := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Index}
		if err := unix.Bind(fd, to); err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		if h.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return fmt.Errorf("raw socket: %w", err)
		}
		return nil
	})
}

// take takes what a socket has received.
func (h *netHost) take(port uint16, from unix.Sockaddr, b []byte) {
	a := Arrival{Payload: slices.Clone(b)}
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		a.From, a.To = netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port)), endpoint(h, port)
	case *unix.SockaddrInet6:
		a.From, a.To = netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port)), netip.AddrPortFrom(h.Addr6(), port)
	default:
		p, ok := natlab.ParsePacket(slices.Clone(b))
		if _, datagram := p.Datagram(); !ok || datagram || p.To.Addr() != h.Addr() {
			return // its socket has it
		}
		h.arrived = append(h.arrived, Arrival{Packet: p})
		return
	}
	a.Protocol = natlab.ProtocolUDP
	h.arrived = append(h.arrived, a)
}

func (h *netHost) Listen(port uint16) error {
	var fds [2]int
	err := h.Do(func() error {
		for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
			fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			h.lab.add(h, port, fd)
			fds[i] = fd
			var at unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
			if family == unix.AF_INET6 {
				at = &unix.SockaddrInet6{Port: int(port)}
				err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
			}
			if err == nil {
				err = unix.Bind(fd, at)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("UDP port %d on host %s: %w", port, h.Name(), err)
	}
	h.ports[port] = fds
	return nil
}

func (h *netHost) Send(port uint16, to netip.AddrPort, data []byte) error {
	fds := h.ports[port]
	at, fd := sockaddr(to)
	if err := unix.Sendto(fds[fd], data, 0, at); err != nil {
		return fmt.Errorf("send from %s to %v: %w", h.Name(), to, err)
	}
	return nil
}

// SendIP sends IPv4. The system may fill in the identifier.
func (h *netHost) SendIP(ip []byte) error {
	p, ok := natlab.ParsePacket(ip)
	if !ok || p.To.Addr().Is6() {
		return errNoAddress
	}
	at, _ := sockaddr(netip.AddrPortFrom(p.To.Addr(), 0))
	if err := unix.Sendto(h.raw, ip, 0, at); err != nil {
		return fmt.Errorf("send a packet from %s to %v: %w", h.Name(), p.To, err)
	}
	return nil
}

// sockaddr is an endpoint for the system, and its family: 0 is IPv4.
func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, 0
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, 1
}
