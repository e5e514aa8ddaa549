package netbed_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

func TestMain(m *testing.M) { netbed.Main(m) }

func start(tb testing.TB, bed netbed.Bed, topology natlab.Topology) *netbed.Lab {
	tb.Helper()
	netbed.Need(tb)
	l, err := bed.Start(tb.Context(), topology)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Close)
	return l
}

var beds = []netbed.Bed{netbed.Kernel, netbed.Model}

func listen(tb testing.TB, h *netbed.Host) *net.UDPConn {
	tb.Helper()
	c, err := h.ListenPacket(tb.Context(), "udp4", netip.AddrPort{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

func listen6(t *testing.T, h *netbed.Host) *net.UDPConn {
	t.Helper()
	c, err := h.ListenUDP(t.Context(), "udp6", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func port(c *net.UDPConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func send(t *testing.T, c *net.UDPConn, to netip.AddrPort, what string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(what), to); err != nil {
		t.Fatal(err)
	}
}

// receive waits for a packet with that in it. On a loaded machine one that was
// sent before, and found its way closed then, may come first.
func receive(t *testing.T, c *net.UDPConn, what string) netip.AddrPort {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 2000)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatalf("no %q: %v", what, err)
		}
		if string(b[:n]) == what {
			return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		}
		t.Logf("got %q before %q", b[:n], what)
	}
}

// silent checks that nothing arrives: with a packet that does, sent afterwards.
func silent(t *testing.T, c *net.UDPConn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	b := make([]byte, 2000)
	if n, from, err := c.ReadFromUDPAddrPort(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q from %v, %v", b[:n], from, err)
	}
}

func at(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }

func TestHomesAreTranslatedFilteredAndDelayed(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			l := start(t, bed, natlab.TwoHomes(natlab.Options{}))
			s, a := listen(t, l.Host("server")), listen(t, l.Host("a"))
			server := at(l.Host("server").Addr(), port(s))
			begin := time.Now()
			send(t, a, server, "hello")
			from := receive(t, s, "hello")
			if want := at(l.Box("home-a").Addr(), port(a)); from != want {
				t.Errorf("the server sees %v, want %v", from, want)
			}
			send(t, s, from, "answer")
			receive(t, a, "answer")
			if rtt := time.Since(begin); rtt < 60*time.Millisecond || rtt > 500*time.Millisecond {
				t.Errorf("round trip %v, want 60ms", rtt)
			}
			stranger := listen(t, l.Host("server"))
			send(t, stranger, from, "stranger")
			silent(t, a)
		})
	}
}

func TestHolePunching(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			for _, sameLAN := range []bool{false, true} {
				l := start(t, bed, natlab.TwoHomes(natlab.Options{DelayA: time.Millisecond, DelayB: time.Millisecond, SameLAN: sameLAN}))
				a, b := listen(t, l.Host("a")), listen(t, l.Host("b"))
				pa, pb := at(l.Box("home-a").Addr(), port(a)), at(l.Box("home-b").Addr(), port(b))
				send(t, a, pb, "lost, but it opens")
				silent(t, b)
				send(t, b, pa, "through")
				receive(t, a, "through")
				send(t, a, pb, "back")
				receive(t, b, "back")
				unblock := l.BlockBetween(pa.Addr(), pb.Addr())
				send(t, a, pb, "blocked")
				silent(t, b)
				unblock()
				send(t, a, pb, "again")
				receive(t, b, "again")
			}
		})
	}
}

func TestOpenersDieInTheCore(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			l := start(t, bed, natlab.TwoHomes(natlab.Options{DelayA: time.Millisecond, DelayB: time.Millisecond}))
			seen := make(chan natlab.Packet, 16)
			stop := l.Watch(func(_ time.Time, link string, toCore bool, p natlab.Packet) {
				if link == "home-b" && !toCore || link == "home-a" && !toCore {
					p.Data = nil
					select {
					case seen <- p:
					default:
					}
				}
			})
			defer stop()
			to := at(l.Box("home-b").Addr(), 9)
			for _, ttl := range []string{"2", "3"} {
				c := listen(t, l.Host("a"))
				setTTL(t, c, int(ttl[0]-'0'))
				send(t, c, to, "opener")
				p := <-seen
				if ttl == "2" && p.Protocol != 1 || ttl == "3" && p.Protocol != 17 {
					t.Errorf("TTL %s: the core sent protocol %d to %v", ttl, p.Protocol, p.To)
				}
			}
		})
	}
}

// Both ends of the count are in the core, so that a packet which the machine was
// too slow for is in neither.
func TestLoss(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			l := start(t, bed, natlab.Topology{Seed: 7, Hosts: []natlab.Host{
				{Name: "x", Link: natlab.Link{Loss: 0.3}}, {Name: "y"},
			}})
			x := listen(t, l.Host("x"))
			counted, last := at(l.Host("y").Addr(), 1), at(l.Host("y").Addr(), 2)
			var entered, left atomic.Int64
			done := make(chan struct{})
			var once sync.Once
			stop := l.Watch(func(_ time.Time, link string, toCore bool, p natlab.Packet) {
				switch {
				case p.To == counted && link == "x" && toCore:
					entered.Add(1)
				case p.To == counted && link == "y" && !toCore:
					left.Add(1)
				case p.To == last && link == "y" && !toCore: // all before it have left
					once.Do(func() { close(done) })
				}
			})
			defer stop()
			for range 2000 {
				send(t, x, counted, "packet")
			}
			again := time.NewTicker(10 * time.Millisecond)
			defer again.Stop()
			for waiting := true; waiting; {
				send(t, x, last, "end")
				select {
				case <-done:
					waiting = false
				case <-again.C:
				}
			}
			if in, out := entered.Load(), left.Load(); in < 500 || out < in*60/100 || out > in*80/100 {
				t.Errorf("%d of %d packets passed a link that loses 30%%", out, in)
			}
		})
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			// 8 Mbit/s is 1,000 packets of 1,000 bytes a second; the queue holds all, and
			// so does the receiver's buffer, if it is slow to read.
			const packets = 60
			l := start(t, bed, natlab.Topology{Hosts: []natlab.Host{
				{Name: "x", Link: natlab.Link{Rate: 8_000_000, Queue: time.Minute}}, {Name: "y"},
			}})
			x, y := listen(t, l.Host("x")), listen(t, l.Host("y"))
			begin := time.Now()
			packet := string(make([]byte, 1000-42))
			for range packets {
				send(t, x, at(l.Host("y").Addr(), port(y)), packet)
			}
			for range packets {
				receive(t, y, packet)
			}
			if d := time.Since(begin); d < (packets-1)*time.Millisecond {
				t.Errorf("%d packets took %v, at a thousand a second", packets, d)
			}
		})
	}
}

func TestPresets(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			presets := natlab.Presets()
			if bed == netbed.Kernel {
				presets = natlab.KernelPresets()
			}
			for _, preset := range presets {
				t.Run(string(preset), func(t *testing.T) {
					t.Parallel()
					l := start(t, bed, natlab.TwoHomes(natlab.Options{PresetA: preset, DelayA: time.Millisecond}))
					if preset.NAT().Block.UDP {
						return
					}
					s1, s2, a := listen(t, l.Host("server")), listen(t, l.Host("server")), listen(t, l.Host("a"))
					server := l.Host("server").Addr()
					send(t, a, at(server, port(s1)), "one")
					send(t, a, at(server, port(s2)), "two")
					m1, m2 := receive(t, s1, "one"), receive(t, s2, "two")
					if same := m1 == m2; same == (preset.NAT().Mapping == nat.AddressAndPortDependent) {
						t.Errorf("mapped to %v and %v", m1, m2)
					}
				})
			}
		})
	}
}

func TestIPv6IsFilteredNotTranslated(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			l := start(t, bed, natlab.TwoHomes(natlab.Options{IPv6: true, DelayA: time.Millisecond, DelayB: time.Millisecond}))
			a, b := listen6(t, l.Host("a")), listen6(t, l.Host("b"))
			ea, eb := at(l.Host("a").Addr6(), port(a)), at(l.Host("b").Addr6(), port(b))
			send(t, a, eb, "lost, but it opens")
			silent(t, b)
			send(t, b, ea, "through")
			if from := receive(t, a, "through"); from != eb {
				t.Errorf("from %v, want %v", from, eb)
			}
		})
	}
}

func TestInsideDelayAndNesting(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			l := start(t, bed, natlab.Topology{
				IPv6:  true,
				Boxes: []natlab.Box{{Name: "carrier"}, {Name: "home", Behind: "carrier"}},
				Hosts: []natlab.Host{
					{Name: "s"},
					{Name: "h", Behind: "home", Link: natlab.Link{Delay: 10 * time.Millisecond}},
					{Name: "neighbour", Behind: "home"},
				},
			})
			s, h, n := listen(t, l.Host("s")), listen(t, l.Host("h")), listen(t, l.Host("neighbour"))
			begin := time.Now()
			send(t, h, at(l.Host("s").Addr(), port(s)), "out")
			from := receive(t, s, "out")
			if from.Addr() != l.Box("carrier").Addr() {
				t.Errorf("the server sees %v, want the carrier's address", from)
			}
			send(t, s, from, "in")
			receive(t, h, "in")
			if d := time.Since(begin); d < 20*time.Millisecond {
				t.Errorf("round trip %v with 10ms inside the home", d)
			}
			send(t, h, at(l.Host("neighbour").Addr(), port(n)), "lan")
			receive(t, n, "lan")
			// IPv6 is routed to the innermost home, and filtered twice.
			s6, h6 := listen6(t, l.Host("s")), listen6(t, l.Host("h"))
			send(t, h6, at(l.Host("s").Addr6(), port(s6)), "out")
			if from := receive(t, s6, "out"); from != at(l.Host("h").Addr6(), port(h6)) {
				t.Errorf("the server sees %v", from)
			}
			send(t, s6, at(l.Host("h").Addr6(), port(h6)), "in")
			receive(t, h6, "in")
		})
	}
}

func TestRebootForgetsMappings(t *testing.T) {
	t.Parallel()
	for _, bed := range beds {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			l := start(t, bed, natlab.TwoHomes(natlab.Options{DelayA: time.Millisecond}))
			s, a := listen(t, l.Host("server")), listen(t, l.Host("a"))
			server := at(l.Host("server").Addr(), port(s))
			send(t, a, server, "out")
			from := receive(t, s, "out")
			if err := l.Box("home-a").Reboot(false); err != nil {
				t.Fatal(err)
			}
			send(t, s, from, "forgotten")
			silent(t, a)
			err := l.Box("home-a").Reboot(true)
			if bed == netbed.Kernel {
				if err == nil {
					t.Error("the kernel's box has another address")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			send(t, a, server, "again")
			if now := receive(t, s, "again"); now.Addr() == from.Addr() || now.Addr() != l.Box("home-a").Addr() {
				t.Errorf("from %v, and before from %v", now, from)
			}
		})
	}
}

// The model bed shows what happens in a box, too, and its links can all be set.
func TestModelBedShowsItsBoxes(t *testing.T) {
	t.Parallel()
	l := start(t, netbed.Model, natlab.TwoHomes(natlab.Options{DelayA: time.Millisecond, PresetA: natlab.PortRestricted}))
	if err := l.Box("home-a").Do(func() error { return nil }); err == nil {
		t.Error("something ran on a model")
	}
	translated := make(chan natlab.Event, 1)
	defer l.Observe(func(e natlab.Event) {
		if e.What == natlab.Translated && e.Where == "home-a" {
			e.Packet.Data = nil
			select {
			case translated <- e:
			default:
			}
		}
	})()
	if err := l.SetLink("a", natlab.Link{Delay: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	s, a := listen(t, l.Host("server")), listen(t, l.Host("a"))
	begin := time.Now()
	send(t, a, at(l.Host("server").Addr(), port(s)), "hello")
	from := receive(t, s, "hello")
	if d := time.Since(begin); d < 31*time.Millisecond {
		t.Errorf("one way in %v, want 31ms at least", d)
	}
	if e := <-translated; e.Was.From != at(l.Host("a").Addr(), port(a)) || e.Packet.From != from {
		t.Errorf("translated %v to %v, want %v", e.Was.From, e.Packet.From, from)
	}
}

func TestManyStartsAreQuick(t *testing.T) {
	netbed.Need(t)
	for _, bed := range []netbed.Bed{netbed.Kernel, netbed.Model} {
		begin := time.Now()
		const n = 10
		for range n {
			ctx, cancel := context.WithCancel(t.Context())
			l, err := bed.Start(ctx, natlab.TwoHomes(natlab.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			cancel()
		}
		t.Logf("a lab on the %v bed starts and ends in %v", bed, time.Since(begin)/n)
	}
}
