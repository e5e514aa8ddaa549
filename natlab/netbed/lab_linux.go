package netbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"

	"bodkin/natlab"
)

// Lab is a network that is up. Its methods may be used from several goroutines.
type Lab struct {
	core   *core
	hosts  map[string]*Host
	boxes  map[string]*Box
	spokes map[string]*spoke
	spaces []*ns
	once   sync.Once
	stop   func() bool
	// pcaps are ended at Close.
	pcaps list[func()]
}

// Start builds a topology. It ends when ctx does or at Close, with everything in
// it: also with the processes that run on its hosts.
func Start(ctx context.Context, t natlab.Topology) (*Lab, error) {
	if missing != nil {
		return nil, missing
	}
	if err := t.Check(); err != nil {
		return nil, err
	}
	c, err := newCore()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{core: c, hosts: map[string]*Host{}, boxes: map[string]*Box{}, spokes: map[string]*spoke{}}
	b := builder{lab: l, topology: t}
	if err := b.build(); err != nil {
		l.end()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOENT) {
			return nil, &UnavailableError{
				Missing: "part of a lab", Err: err,
				Hint: "the kernel needs veth, bridge, packet sockets and nftables with NAT (modules veth, bridge, af_packet, nft_masq, nft_ct)",
			}
		}
		return nil, err
	}
	l.stop = context.AfterFunc(ctx, l.end)
	return l, nil
}

// Close takes the network down and kills the processes on its hosts. Sockets that
// were opened on hosts stay open, and cut off. It returns when all is gone.
func (l *Lab) Close() {
	l.stop()
	l.end()
}

func (l *Lab) end() {
	l.once.Do(func() {
		l.core.close()
		for _, flush := range l.pcaps.all() {
			(*flush)()
		}
		killAll(l.spaces)
		for _, n := range l.spaces {
			n.close()
		}
	})
}

// Host is the host of that name, nil if there is none.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Box is the box of that name, nil if there is none.
func (l *Lab) Box(name string) *Box { return l.boxes[name] }

// SetLink changes what happens on the link of a box or host, to packets that
// enter it from now on. A link inside a home that began as a wire is the
// kernel's, and cannot be changed.
func (l *Lab) SetLink(name string, link natlab.Link) error {
	if err := link.Check(); err != nil {
		return fmt.Errorf("lab: link of %q: %w", name, err)
	}
	s := l.spokes[name]
	if s == nil {
		return fmt.Errorf("lab: the link of %q cannot be changed: it is not there, or a plain wire inside a home; give it a delay in the topology", name)
	}
	l.core.set(s, link)
	return nil
}

// Block drops what the function says of packets that come to the core, until
// unblock is called. The packet's data is the function's only until it returns;
// it is called from several goroutines at once, and must be quick.
func (l *Lab) Block(drop func(natlab.Packet) bool) (unblock func()) { return l.core.filters.add(drop) }

// BlockBetween drops UDP between two addresses, both ways.
func (l *Lab) BlockBetween(a, b netip.Addr) (unblock func()) {
	return l.Block(func(p natlab.Packet) bool {
		x, y := p.From.Addr(), p.To.Addr()
		return p.Protocol == natlab.ProtocolUDP && (x == a && y == b || x == b && y == a)
	})
}

// Watch shows every packet in the core to the tap, until stop is called.
func (l *Lab) Watch(t Tap) (stop func()) { return l.core.taps.add(t) }

// Pcap writes the packets of each link in the core to a file in dir, named after
// the box or host: home-a.pcap. Both directions are in it, as [Tap] sees them.
// Stop, or the lab's end, completes the files.
func (l *Lab) Pcap(dir string) (stop func() error, err error) {
	c, err := newCapture(dir)
	if err != nil {
		return nil, err
	}
	unwatch := l.Watch(c.tap)
	forget := l.pcaps.add(func() { _ = c.end() })
	return func() error {
		unwatch()
		forget()
		return c.end()
	}, nil
}

// Lost is how many packets the lab lost against the topology's will, because the
// machine was too slow: a test that counts packets is void if it is not 0.
func (l *Lab) Lost() uint64 { return l.core.lost() }

// Host is a machine in the lab.
type Host struct {
	name string
	site *site
}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// Addr is the host's IPv4 address, Addr6 its IPv6 address, if any.
func (h *Host) Addr() netip.Addr { return h.site.wan[0].Addr() }

// Addr6 is the host's IPv6 address; not valid without IPv6.
func (h *Host) Addr6() netip.Addr { return h.site.wan[1].Addr() }

// Do runs f on a thread of the host: sockets and processes that f makes are the
// host's. Goroutines that f starts are not.
func (h *Host) Do(f func() error) error { return h.site.ns.do(f) }

// Start starts a command on the host. Its output arrives as usual; it is killed,
// with all that it started, when the lab ends. SysProcAttr.Pdeathsig must not be
// set: it would strike when the thread ends that starts the command.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Pdeathsig != 0 {
		return errors.New("lab: a command with Pdeathsig cannot run on a host; leave it out, the lab's end kills the command")
	}
	return h.Do(cmd.Start)
}

// ListenPacket opens a UDP socket on the host; network is udp4 or udp6. With no
// valid address the system chooses one and a port.
func (h *Host) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	c, err := h.ListenUDP(ctx, network, local)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ListenUDP is ListenPacket for those who need the type.
func (h *Host) ListenUDP(ctx context.Context, network string, local netip.AddrPort) (c *net.UDPConn, err error) {
	err = h.Do(func() error {
		var config net.ListenConfig
		p, err := config.ListenPacket(ctx, network, address(local))
		if err != nil {
			return err
		}
		var ok bool
		if c, ok = p.(*net.UDPConn); !ok {
			_ = p.Close()
			return fmt.Errorf("lab: %s is no UDP network; use udp4 or udp6", network)
		}
		return nil
	})
	return c, err
}

// Listen opens a TCP listener on the host; network is tcp4 or tcp6. With no valid
// address the system chooses one and a port.
func (h *Host) Listen(ctx context.Context, network string, local netip.AddrPort) (l net.Listener, err error) {
	err = h.Do(func() error {
		var config net.ListenConfig
		l, err = config.Listen(ctx, network, address(local))
		return err
	})
	return l, err
}

// Dial connects from the host, by IP address.
func (h *Host) Dial(ctx context.Context, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = h.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return c, err
}

func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Prefixes are the host's addresses with the length of their link's prefix.
func (h *Host) Prefixes() (out []netip.Prefix, _ error) {
	for _, p := range h.site.wan {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out, nil
}

// Box is a router in the lab.
type Box struct {
	name string
	site *site
}

// Addr is the box's address outside, Addr6 the same in IPv6.
func (b *Box) Addr() netip.Addr { return b.site.wan[0].Addr() }

// Addr6 is the box's IPv6 address outside; not valid without IPv6.
func (b *Box) Addr6() netip.Addr { return b.site.wan[1].Addr() }

// Do runs f on a thread of the box, as Host.Do does.
func (b *Box) Do(f func() error) error { return b.site.ns.do(f) }
