package natlab_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"bodkin/natlab"
)

// Two hosts behind NATs that let only those in who were sent to: the first packet
// opens the way for the other side's.
func Example() {
	sim, err := natlab.NewSim(natlab.TwoHomes(natlab.Options{PresetA: natlab.PortRestricted, PresetB: natlab.Linux}))
	if err != nil {
		panic(err)
	}
	got := func(who string) natlab.Handler {
		return func(_ time.Time, from netip.AddrPort, data []byte) {
			fmt.Printf("%s got %q from %v\n", who, data, from)
		}
	}
	a, _ := sim.Host("a").Bind(5000, got("a"))
	b, _ := sim.Host("b").Bind(6000, got("b"))
	homeA, _ := sim.Place("home-a")
	homeB, _ := sim.Place("home-b")
	_ = a.Send(netip.AddrPortFrom(homeB.Addr[0].Addr(), 6000), 0, []byte("opens the way"))
	sim.Run(time.Second, nil)
	_ = b.Send(netip.AddrPortFrom(homeA.Addr[0].Addr(), 5000), 0, []byte("through"))
	sim.Run(time.Second, nil)
	// Output: a got "through" from 198.51.100.10:6000
}

// What a packet meets on its way.
func ExampleSim_Observe() {
	sim, err := natlab.NewSim(natlab.TwoHomes(natlab.Options{PresetB: natlab.PortRestricted}))
	if err != nil {
		panic(err)
	}
	begin := sim.Now()
	sim.Observe(func(e natlab.Event) { fmt.Printf("%v %v %s: %s\n", e.Time.Sub(begin), e.What, e.Where, e.Packet.From) })
	a, _ := sim.Host("a").Bind(5000, func(time.Time, netip.AddrPort, []byte) {})
	homeB, _ := sim.Place("home-b")
	_ = a.Send(netip.AddrPortFrom(homeB.Addr[0].Addr(), 6000), 0, []byte("a stranger's"))
	sim.Run(time.Second, nil)
	// Output:
	// 0s entered a: 192.168.1.2:5000
	// 0s translated home-a: 203.0.113.10:5000
	// 0s entered home-a: 203.0.113.10:5000
	// 20ms entered home-b: 203.0.113.10:5000
	// 50ms dropped home-b: 203.0.113.10:5000
}

// Sockets for a program with goroutines of its own. Here they take the time that
// they take; within synctest.Test waiting takes none.
func ExampleLive() {
	network, err := natlab.NewLive(natlab.TwoHomes(natlab.Options{}))
	if err != nil {
		panic(err)
	}
	defer network.Close()
	ctx, at := context.Background(), netip.AddrPortFrom(network.Host("server").Addr(), 7)
	server, _ := network.Host("server").ListenPacket(ctx, "udp4", at)
	a, _ := network.Host("a").ListenPacket(ctx, "udp4", netip.AddrPort{})
	_, _ = a.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(at))
	b := make([]byte, 100)
	n, from, _ := server.ReadFrom(b)
	home, _ := network.Place("home-a")
	fmt.Printf("%s from home-a: %v\n", b[:n], from.(*net.UDPAddr).AddrPort().Addr() == home.Addr[0].Addr())
	// Output: hello from home-a: true
}

// A NAT of one's own, as RFC 4787 has words for.
func ExampleNAT() {
	symmetric := natlab.SymmetricSequential.NAT()
	symmetric.Ports.Delta = 2
	sim, err := natlab.NewSim(natlab.Topology{
		Boxes: []natlab.Box{{Name: "home", NAT: symmetric}},
		Hosts: []natlab.Host{{Name: "inside", Behind: "home"}, {Name: "outside"}},
	})
	if err != nil {
		panic(err)
	}
	var last uint16
	see := func(_ time.Time, from netip.AddrPort, _ []byte) {
		if last != 0 {
			fmt.Println("the next port is", from.Port()-last, "further")
		}
		last = from.Port()
	}
	_, _ = sim.Host("outside").Bind(7, see)
	_, _ = sim.Host("outside").Bind(8, see)
	inside, _ := sim.Host("inside").Bind(5000, func(time.Time, netip.AddrPort, []byte) {})
	for port := uint16(7); port <= 8; port++ {
		_ = inside.Send(netip.AddrPortFrom(sim.Host("outside").Addr(), port), 0, []byte("?"))
	}
	sim.Run(time.Second, nil)
	// Output: the next port is 2 further
}
