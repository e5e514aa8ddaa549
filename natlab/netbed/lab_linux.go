package netbed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"

	"bodkin/internal/sock"
	"bodkin/natlab"

	"github.com/vishvananda/netlink"
)

// Lab is a network that is up. Its methods may be used from several goroutines.
type Lab struct {
	core    *core
	hosts   map[string]*Host
	boxes   map[string]*Box
	wires   map[string]bool // links that are the kernel's alone
	spaces  []*ns
	started bool
	once    sync.Once
	stop    func() bool

	mu    sync.Mutex
	pcaps map[*natlab.Capture]bool // to be ended at Close
}

// Start builds a topology with the kernel's own NAT in its boxes.
func Start(ctx context.Context, t natlab.Topology) (*Lab, error) { return Kernel.Start(ctx, t) }

// Start builds a topology. It ends when ctx does or at Close, with everything in
// it: also with the processes that run on its hosts. A topology without a seed
// gets one by chance.
func (bed Bed) Start(ctx context.Context, t natlab.Topology) (*Lab, error) {
	if missing != nil {
		return nil, missing
	}
	if t.Seed == 0 {
		t.Seed = rand.Uint64()
	}
	c, err := newCore(t, bed)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{
		core: c, hosts: map[string]*Host{}, boxes: map[string]*Box{}, wires: map[string]bool{},
		pcaps: map[*natlab.Capture]bool{},
	}
	b := builder{lab: l, topology: t, bed: bed}
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
	l.started = true
	c.start()
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
		l.core.close(l.started)
		l.mu.Lock()
		for c := range l.pcaps {
			_ = c.Close()
		}
		l.mu.Unlock()
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
// kernel's on the kernel bed, and cannot be changed.
func (l *Lab) SetLink(name string, link natlab.Link) (err error) {
	if l.wires[name] {
		return fmt.Errorf("lab: the link of %q cannot be changed: it is a plain wire inside a home; give it a delay in the topology, or use the model bed", name)
	}
	l.core.with(func(f *natlab.Fabric) { err = f.SetLink(name, link) })
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// Block drops what the function says of packets that come to the core, until
// unblock is called. The packet's data is the function's only until it returns;
// it must be quick, and not call the lab.
func (l *Lab) Block(drop func(natlab.Packet) bool) (unblock func()) {
	l.core.with(func(f *natlab.Fabric) { unblock = f.Block(drop) })
	return l.core.undo(unblock)
}

// BlockBetween drops UDP between two addresses, both ways.
func (l *Lab) BlockBetween(a, b netip.Addr) (unblock func()) {
	return l.Block(natlab.Between(a, b))
}

// Observe shows every event in the lab's fabric to the observer, until stop is
// called: on the kernel bed what happens on the links, on the model bed in the
// boxes, too. It must be quick, and not call the lab.
func (l *Lab) Observe(o natlab.Observer) (stop func()) {
	l.core.with(func(f *natlab.Fabric) { stop = f.Observe(o) })
	return l.core.undo(stop)
}

// Watch shows every packet that enters a link to the tap, until stop is called.
func (l *Lab) Watch(t Tap) (stop func()) {
	return l.Observe(func(e natlab.Event) {
		if e.What == natlab.Entered {
			t(e.Time, e.Where, e.Up, e.Packet)
		}
	})
}

// Pcap writes the packets of each link in the fabric to a file in dir, named
// after the box or host: home-a.pcap. Both directions are in it, as [Tap] sees
// them. Stop, or the lab's end, completes the files.
func (l *Lab) Pcap(dir string) (stop func() error, err error) {
	c, err := natlab.NewCapture(dir)
	if err != nil {
		return nil, err
	}
	unwatch := l.Observe(c.Observe)
	l.mu.Lock()
	l.pcaps[c] = true
	l.mu.Unlock()
	return func() error {
		unwatch()
		l.mu.Lock()
		delete(l.pcaps, c)
		l.mu.Unlock()
		return c.Close()
	}, nil
}

// Lost is how many packets the lab lost against the topology's will, because the
// machine was too slow: a test that counts packets is void if it is not 0.
func (l *Lab) Lost() uint64 { return l.core.lost() }

// Host is a machine in the lab.
type Host struct{ site *site }

// Name is the host's name.
func (h *Host) Name() string { return h.site.place.Name }

// Addr is the host's IPv4 address, Addr6 its IPv6 address, if any.
func (h *Host) Addr() netip.Addr { return h.site.place.Addr[0].Addr() }

// Addr6 is the host's IPv6 address; not valid without IPv6.
func (h *Host) Addr6() netip.Addr { return h.site.place.Addr[1].Addr() }

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

// ListenTCP is Listen on a port that others may share: see DialTCP.
func (h *Host) ListenTCP(ctx context.Context, network string, local netip.AddrPort) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = sock.ListenTCP(ctx, network, local)
		return err
	})
	return l, err
}

// DialTCP connects from one of the host's ports, which may have a listener of ListenTCP
// and other connections. A ttl other than 0 holds until the connection is there.
func (h *Host) DialTCP(ctx context.Context, network string, local, remote netip.AddrPort, ttl uint8) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = sock.DialTCP(ctx, network, local, remote, ttl)
		return err
	})
	return c, err
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
	for _, p := range h.site.place.Addr {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out, nil
}

// Box is a router in the lab.
type Box struct {
	lab  *Lab
	name string
	site *site // nil on the model bed
}

// Name is the box's name.
func (b *Box) Name() string { return b.name }

func (b *Box) place() (p natlab.Place) {
	b.lab.core.with(func(f *natlab.Fabric) { p, _ = f.Place(b.name) })
	return p
}

// Addr is the box's address outside, Addr6 the same in IPv6.
func (b *Box) Addr() netip.Addr { return b.place().Addr[0].Addr() }

// Addr6 is the box's IPv6 address outside; not valid without IPv6.
func (b *Box) Addr6() netip.Addr { return b.place().Addr[1].Addr() }

// Reboot makes the box forget its mappings. On the model bed it may have another
// public address afterwards, one that it never had.
func (b *Box) Reboot(another bool) (err error) {
	switch {
	case b.site == nil:
		b.lab.core.with(func(f *natlab.Fabric) { err = f.Reboot(b.name, another) })
	case another:
		err = fmt.Errorf("box %q keeps its address on the kernel bed; use the model bed", b.name)
	default:
		err = b.site.ns.links.ConntrackTableFlush(netlink.ConntrackTable)
	}
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// Do runs f on a thread of the box, as Host.Do does. On the model bed a box has
// none.
func (b *Box) Do(f func() error) error {
	if b.site == nil {
		return fmt.Errorf("lab: box %q is a model: nothing can run on it; use the kernel bed", b.name)
	}
	return b.site.ns.do(f)
}
