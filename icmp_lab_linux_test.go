package bodkin_test

import (
	"context"
	"iter"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"

	"golang.org/x/sys/unix"
)

// unprivileged is a lab host on which a process may open ping sockets, and no raw ones.
type unprivileged struct{ *netbed.Host }

// Do takes the capability from the thread that f runs on, which ends with it.
func (u unprivileged) Do(f func() error) error {
	return u.Host.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
			return err
		}
		if err := dropRaw(); err != nil {
			return err
		}
		return f()
	})
}

func dropRaw() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	return unix.Capset(&header, &data[0])
}

// icmpLab is two homes, of which nothing but ICMP gets from one to the other: the core
// drops UDP between them.
func icmpLab(t *testing.T, bed netbed.Bed, o natlab.Options) homes {
	t.Helper()
	netbed.Need(t)
	l, err := bed.Start(t.Context(), natlab.TwoHomes(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	listen := []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)}
	if h.Addr6().IsValid() {
		listen = append(listen, netip.AddrPortFrom(h.Addr6(), 3478))
	}
	s, stop := startServer(t, rendezvous.ServerConfig{Network: h, Listen: listen})
	server := map[netip.Addr]bool{h.Addr(): true, h.Addr6(): true}
	l.Block(func(p natlab.Packet) bool {
		return p.Protocol == natlab.ProtocolUDP && !server[p.From.Addr()] && !server[p.To.Addr()]
	})
	return homes{l, s, stop, s.URL(h.Addr().String()).String()}
}

// A file that begins by ICMP goes on by UDP when that gets through, and by ICMP again when
// it does not any more.
func TestFileMovesBetweenICMPAndUDP(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	l, err := netbed.Start(t.Context(), natlab.TwoHomes(natlab.Options{
		DelayA: 2 * time.Millisecond, DelayB: 2 * time.Millisecond, DelayS: 2 * time.Millisecond, Rate: 6_000_000,
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	host := l.Host("server")
	s, stop := startServer(t, rendezvous.ServerConfig{Network: host, Listen: []netip.AddrPort{netip.AddrPortFrom(host.Addr(), 3478)}})
	h := homes{l, s, stop, s.URL(host.Addr().String()).String()}
	home := [2]netip.Addr{h.Box("home-a").Addr(), h.Box("home-b").Addr()}
	unblock := h.BlockBetween(home[0], home[1])
	cfg := bodkin.Config{Transports: []string{"udp", "icmp"}}
	a, b := h.node(t, "a", cfg), h.node(t, "b", cfg)
	echo(t, b, "echo")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next, done := iter.Pull(a.Events(ctx))
	defer done()
	until := func(transport string) {
		t.Helper()
		for e, ok := next(); ok; e, ok = next() {
			if e.Kind == bodkin.EventSwitched && e.Route.Transport == transport {
				t.Logf("by %s: %s", transport, e.Reason)
				return
			}
		}
		t.Fatalf("not by %s: %v", transport, ctx.Err())
	}
	if _, err := a.Ping(ctx, b.ID()); err != nil {
		t.Fatal(err)
	}
	until("icmp")
	transfer(t, a, b, 6<<20, func() {
		unblock()
		until("udp")
		h.BlockBetween(home[0], home[1])
		until("icmp")
	})
}

// Which pairs of networks ICMP gets through, with which tactic, and which it does not.
func TestHolesByICMP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		a, b         natlab.Preset
		pingA, pingB bool // no raw socket there
		bed          netbed.Bed
		won          string // "": the relay
	}{
		"public with linux":              {a: "open", b: "linux", won: "icmp echo"},
		"linux with public":              {a: "linux", b: "open", won: "icmp echo"},
		"public with unprivileged linux": {a: "open", b: "linux", pingB: true, won: "icmp echo"},
		"unprivileged linux with public": {a: "linux", b: "open", pingA: true, won: "icmp echo"},
		"linux with linux":               {a: "linux", b: "linux", won: "icmp errors"},
		"linux with openwrt":             {a: "linux", b: "openwrt", won: "icmp errors"},
		"firewall with linux-accept":     {a: "firewall", b: "linux-accept", won: "icmp errors"},
		"linux with linux, echo alone":   {a: "linux", b: "linux", pingA: true},
		"loose with loose":               {a: "icmp-loose", b: "icmp-loose", pingA: true, bed: netbed.Model, won: "icmp echo"},
		"loose with public":              {a: "icmp-loose", b: "open", pingA: true, bed: netbed.Model, won: "icmp echo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := icmpLab(t, c.bed, natlab.Options{PresetA: c.a, PresetB: c.b})
			node := func(host string, ping bool) *bodkin.Node {
				cfg := bodkin.Config{Transports: []string{"icmp"}, Server: h.url, Network: h.Host(host)}
				if ping {
					cfg.Network = unprivileged{h.Host(host)}
				}
				return startNode(t, cfg)
			}
			a, b := node("a", c.pingA), node("b", c.pingB)
			echo(t, b, "echo")
			ctx := testContext(t)
			if err := b.WaitRegistered(ctx); err != nil {
				t.Fatal(err)
			}
			x, err := a.Explain(ctx, b.ID())
			if err != nil {
				t.Fatal(err)
			}
			if c.won == "" {
				if x.Way != "relay" || x.Attempt.Won != "" || !strings.Contains(x.Reason, "ping") {
					t.Errorf("%s: %s, %+v", x.Way, x.Reason, x.Attempt)
				}
				return
			}
			if x.Way != "direct" || x.Route.Transport != "icmp" || x.Attempt.Won != c.won && !strings.Contains(name, "public") {
				t.Fatalf("%s by %v: %s, %+v", x.Way, x.Route, x.Reason, x.Attempt)
			}
			t.Logf("direct after %v: %v", x.Attempt.First, x.Route)
			if x.Attempt.First < 90*time.Millisecond {
				t.Error("that is sooner than light")
			}
			transfer(t, a, b, 256<<10, func() {})
		})
	}
}

// pingLab is a lab whose home a lets nothing out but pings, and whose server speaks by
// them.
func pingLab(t *testing.T, preset natlab.Preset) homes {
	t.Helper()
	netbed.Need(t)
	top := natlab.TwoHomes(natlab.Options{PresetB: preset})
	for i := range top.Boxes {
		if top.Boxes[i].Name == "home-a" {
			top.Boxes[i].Preset, top.Boxes[i].NAT = "", natlab.Linux.NAT()
			top.Boxes[i].NAT.Block = natlab.Block{UDP: true, TCP: true}
		}
	}
	l, err := netbed.Model.Start(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := l.Host("server")
	s, stop := startServer(t, rendezvous.ServerConfig{
		Network: h, ICMP: true, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)},
	})
	return homes{l, s, stop, s.URL(h.Addr().String()).String()}
}

// A home that lets nothing out but pings: its node registers by them, and reaches a public
// peer directly by them, and one behind another NAT over the relay.
func TestNothingButPings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b   natlab.Preset
		way string
	}{
		"a public peer":       {natlab.Open, "direct"},
		"a peer behind a NAT": {natlab.Linux, "relay"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := pingLab(t, c.b)
			a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
			echo(t, b, "echo")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := a.WaitRegistered(ctx); err != nil {
				t.Fatal(err)
			}
			if s := a.Status(); s.ServerVia != bodkin.ViaICMP {
				t.Errorf("the server is reached by %q", s.ServerVia)
			}
			x, err := a.Explain(ctx, b.ID())
			if err != nil || x.Way != c.way {
				t.Fatalf("%s by %v: %s, %v", x.Way, x.Route, x.Reason, err)
			}
			t.Logf("%s by %v: %s", x.Way, x.Route, x.Reason)
			transfer(t, a, b, 256<<10, func() {})
			transfer(t, b, a, 256<<10, func() {})
		})
	}
}
