package bodkin_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"bodkin/natlab"
)

// names is a name service with one name in it.
type names struct {
	mu sync.Mutex
	at netip.Addr
}

func (n *names) set(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = a
}

// machine is a host that can move to another network: what its sockets send leaves
// there from then on.
type machine struct {
	names *names
	hosts []*natlab.LiveHost
	woken chan struct{} // as after a sleep its interfaces tell
	mu    sync.Mutex
	at    int
}

// nowhere is no network at all: what is sent is lost, as with a process that was
// killed.
const nowhere = -1

func (m *machine) move(to int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = to
}

// Changes implements what the system tells of its interfaces.
func (m *machine) Changes(ctx context.Context) (<-chan struct{}, error) {
	out := make(chan struct{})
	go func() {
		defer close(out)
		for {
			select {
			case <-m.woken:
				out <- struct{}{}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (m *machine) where() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// LookupNetIP is the name service of wherever the machine is.
func (m *machine) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	m.names.mu.Lock()
	defer m.names.mu.Unlock()
	if host != serverName {
		return nil, fmt.Errorf("no such name: %s", host)
	}
	return []netip.Addr{m.names.at}, nil
}

func (m *machine) Prefixes() ([]netip.Prefix, error) { return m.hosts[max(m.where(), 0)].Prefixes() }

func (m *machine) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	c := &movingConn{on: m, arrived: make(chan arrival, 1024), closed: make(chan struct{})}
	for i, h := range m.hosts {
		p, err := h.ListenPacket(ctx, network, local)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		c.conns = append(c.conns, p)
		local = p.LocalAddr().(*net.UDPAddr).AddrPort()
		go c.read(i, p)
	}
	return c, nil
}

// movingConn is a socket of a machine.
type movingConn struct {
	net.PacketConn
	on      *machine
	conns   []net.PacketConn
	arrived chan arrival
	once    sync.Once
	closed  chan struct{}
}

type arrival struct {
	b    []byte
	from net.Addr
}

func (c *movingConn) read(i int, p net.PacketConn) {
	for {
		b := make([]byte, 2048)
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		if c.on.where() != i {
			continue
		}
		select {
		case c.arrived <- arrival{b[:n], from}:
		case <-c.closed:
			return
		}
	}
}

func (c *movingConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case a := <-c.arrived:
		return copy(b, a.b), a.from, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *movingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	return c.WriteToTTL(b, to, 0)
}

func (c *movingConn) WriteToTTL(b []byte, to net.Addr, ttl uint8) (int, error) {
	at := c.on.where()
	if at == nowhere {
		return len(b), nil
	}
	return c.conns[at].(interface {
		WriteToTTL([]byte, net.Addr, uint8) (int, error)
	}).WriteToTTL(b, to, ttl)
}

func (c *movingConn) LocalAddr() net.Addr { return c.conns[0].LocalAddr() }

func (c *movingConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		for _, p := range c.conns {
			_ = p.Close()
		}
	})
	return nil
}
