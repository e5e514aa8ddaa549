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
}

// Start builds a topology. It ends, with everything in it but the processes,
// when ctx does or at Close; processes are killed with the context of their
// command.
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
		l.Close()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOENT) {
			return nil, &UnavailableError{"part of a lab", "the kernel needs veth, bridge, packet sockets and nftables with NAT", err}
		}
		return nil, err
	}
	l.stop = context.AfterFunc(ctx, l.Close)
	return l, nil
}

// Close takes the network down.
func (l *Lab) Close() {
	l.once.Do(func() {
		l.core.close()
		for _, n := range l.spaces {
			n.close()
		}
	})
	if l.stop != nil {
		l.stop()
	}
}

// Host is the host of that name, nil if there is none.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Box is the box of that name, nil if there is none.
func (l *Lab) Box(name string) *Box { return l.boxes[name] }

// SetLink changes what happens on the link of a box or host that has one which
// is more than a wire, or leads to the core.
func (l *Lab) SetLink(name string, link natlab.Link) error {
	s := l.spokes[name]
	if s == nil {
		return fmt.Errorf("lab: the link of %q is none that can be changed", name)
	}
	s.up.set(link)
	s.down.set(link)
	return nil
}

// Block drops what the function says of packets that cross the core, until
// unblock is called. It must be quick.
func (l *Lab) Block(drop func(Packet) bool) (unblock func()) { return l.core.block(drop) }

// BlockBetween drops UDP between two addresses, both ways.
func (l *Lab) BlockBetween(a, b netip.Addr) (unblock func()) {
	return l.Block(func(p Packet) bool {
		x, y := p.From.Addr(), p.To.Addr()
		return p.Protocol == 17 && (x == a && y == b || x == b && y == a)
	})
}

// Watch shows every packet in the core to the tap, or with nil to nobody. The
// packet's data is the tap's only until it returns.
func (l *Lab) Watch(t Tap) {
	if t == nil {
		l.core.tap.Store(nil)
		return
	}
	l.core.tap.Store(&t)
}

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

// Start starts a command on the host.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// ListenPacket opens a UDP socket on the host; network is udp4 or udp6.
func (h *Host) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (c net.PacketConn, err error) {
	address := ""
	if local.IsValid() {
		address = local.String()
	}
	err = h.Do(func() error {
		var config net.ListenConfig
		c, err = config.ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a TCP listener on the host.
func (h *Host) Listen(ctx context.Context, network string, local netip.AddrPort) (l net.Listener, err error) {
	err = h.Do(func() error {
		var config net.ListenConfig
		l, err = config.Listen(ctx, network, local.String())
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
