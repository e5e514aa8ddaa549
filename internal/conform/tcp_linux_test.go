package conform_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/conform"
	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// each runs a test on both beds of namespaces for the presets that these can be.
func each(t *testing.T, test func(t *testing.T, bed netbed.Bed, p natlab.Preset)) {
	t.Helper()
	for _, bed := range []netbed.Bed{netbed.Model, netbed.Kernel} {
		presets := natlab.Presets()
		if bed == netbed.Kernel {
			presets = natlab.KernelPresets()
		}
		for _, p := range presets {
			t.Run(bed.String()+" "+string(p), func(t *testing.T) {
				t.Parallel()
				netbed.Need(t)
				test(t, bed, p)
			})
		}
	}
}

func homes(t *testing.T, bed netbed.Bed, p natlab.Preset) *netbed.Lab {
	t.Helper()
	l, err := bed.Start(t.Context(), natlab.TwoHomes(natlab.Options{
		PresetA: p, PresetB: p, DelayA: time.Millisecond, DelayB: time.Millisecond, DelayS: time.Millisecond,
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// dial connects as any program does; before is for how long it is tried.
func dial(t *testing.T, h *netbed.Host, to netip.AddrPort, before time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), before)
	defer cancel()
	c, err := h.Dial(ctx, "tcp4", to)
	if err == nil {
		_ = c.Close()
	}
	return err
}

func TestOrdinaryTCPPassesWhereItShould(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, bed netbed.Bed, p natlab.Preset) {
		if !slices.Contains([]natlab.Preset{natlab.Open, natlab.SymmetricSequential, natlab.Linux, natlab.CGNATBlock, natlab.TCPOnly443}, p) {
			return // one of each kind
		}
		l, want := homes(t, bed, p), conform.Expect(p.Boxes()).TCP
		for port, passes := range map[uint16]bool{443: want.PassesTo443, 4443: want.Passes} {
			at := netip.AddrPortFrom(l.Host("server").Addr(), port)
			listener, err := l.Host("server").Listen(t.Context(), "tcp4", at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = listener.Close() })
			// Nothing is measured by the time that a blocked one is given.
			patience := 10 * time.Second
			if !passes {
				patience = 50 * time.Millisecond
			}
			if err := dial(t, l.Host("a"), at, patience); (err == nil) != passes {
				t.Errorf("TCP to port %d passes: measured %v, the NAT says %v", port, err, passes)
			}
		}
	})
}

// Two stacks open one connection from both ends, through boxes that keep ports
// and are silent: each first SYN that comes too early is lost, and the next one
// meets a way that is open.
func TestOrdinaryTCPOpensFromBothSides(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, bed netbed.Bed, p natlab.Preset) {
		want := conform.Expect(p.Boxes())
		if len(p.Boxes()) > 1 || p.Shared() || want.TCP.Mapping != nat.EndpointIndependent || want.TCP.Refusal != natlab.RefuseSilently {
			return // the endpoint outside is not known beforehand, or a reset ends the attempt
		}
		l := homes(t, bed, p)
		const port = 7000
		a := netip.AddrPortFrom(l.Box("home-a").Addr(), port)
		b := netip.AddrPortFrom(l.Box("home-b").Addr(), port)
		open := make(chan error, 2)
		connect := func(h *netbed.Host, to netip.AddrPort) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			open <- h.Do(func() error {
				d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
				c, err := d.DialContext(ctx, "tcp4", to.String())
				if err == nil {
					t.Cleanup(func() { _ = c.Close() })
				}
				return err
			})
		}
		go connect(l.Host("a"), b)
		go connect(l.Host("b"), a)
		for range 2 {
			if err := <-open; err != nil {
				t.Error(err)
			}
		}
	})
}
