package bodkin_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/rendezvous"
)

// counting is a host's network that counts the sockets that are open.
type counting struct {
	bodkin.Network
	mu         sync.Mutex
	open, most int
}

func (n *counting) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	c, err := n.Network.ListenPacket(ctx, network, local)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open++
	n.most = max(n.most, n.open)
	return &countedConn{PacketConn: c, of: n}, nil
}

func (n *counting) sockets() (open, most int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open, n.most
}

type countedConn struct {
	net.PacketConn
	of   *counting
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.of.open--
	})
	return c.PacketConn.Close()
}

func (c *countedConn) WriteToTTL(b []byte, to net.Addr, ttl uint8) (int, error) {
	return c.PacketConn.(interface {
		WriteToTTL(b []byte, to net.Addr, ttl uint8) (int, error)
	}).WriteToTTL(b, to, ttl)
}

// A whole node behind a NAT with random ports finds that out, opens hundreds of
// sockets, is reached on one of them, and closes the others: the route carries on. In
// the end nothing is left of any.
func TestBirthdayInFakeTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := natlab.NewLive(natlab.TwoHomes(natlab.Options{PresetA: natlab.PortRestricted, PresetB: natlab.SymmetricRandom, Seed: 3}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		h := l.Host("server")
		s, _ := startServer(t, rendezvous.ServerConfig{
			Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478), netip.AddrPortFrom(h.Addr(), 3479)},
		})
		url := s.URL(h.Addr().String()).String()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		network := &counting{Network: l.Host("b")}
		a := startNode(t, bodkin.Config{Server: url, Network: l.Host("a")})
		b := startNode(t, bodkin.Config{Server: url, Network: network})
		echo(t, b, "echo")
		if err := a.WaitRegistered(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // in which both have measured
		ordinary, _ := network.sockets()
		events := a.Events(ctx)
		c, err := a.Dial(ctx, b.ID(), "echo")
		if err != nil {
			t.Fatal(err)
		}
		untilDirect(t, ctx, events)
		time.Sleep(12 * time.Second) // until the attempt is over
		if r := c.Route(); !r.Direct() {
			t.Fatalf("the route is %+v", r)
		}
		echoes(t, c)
		if r := c.Route(); !r.Direct() {
			t.Errorf("then the route is %+v", r)
		}
		open, most := network.sockets()
		if most < ordinary+50 || most > ordinary+256 || open <= ordinary || open > ordinary+10 {
			t.Errorf("%d sockets before, %d at the most, %d now", ordinary, most, open)
		}
		_ = c.Close()
		_ = a.Close()
		_ = b.Close()
		if open, _ := network.sockets(); open != 0 {
			t.Errorf("%d sockets are open after Close", open)
		}
	})
}
