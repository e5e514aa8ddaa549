package natlab_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"
)

// Every preset can be built, says where it is met, and makes two homes with any
// other.
func TestPresetsCanBeBuilt(t *testing.T) {
	t.Parallel()
	for _, p := range natlab.Presets() {
		if len(p.Boxes()) == 0 || p.Text() == "" || !strings.HasSuffix(p.Text(), ".") {
			t.Errorf("%s: %d boxes, %q", p, len(p.Boxes()), p.Text())
		}
		for _, n := range p.Boxes() {
			if err := n.Check(); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
		for _, other := range natlab.Presets() {
			topology := natlab.TwoHomes(natlab.Options{PresetA: p, PresetB: other})
			if err := topology.Check(); err != nil {
				t.Errorf("%s and %s: %v", p, other, err)
			}
			want := len(p.Boxes()) + len(other.Boxes())
			if p == other && p.Shared() {
				want--
			}
			if len(topology.Boxes) != want {
				t.Errorf("%s and %s: %d boxes, want %d", p, other, len(topology.Boxes), want)
			}
		}
	}
}

// No two presets are the same, but for those that differ in what is around the
// box.
func TestPresetsDiffer(t *testing.T) {
	t.Parallel()
	for i, p := range natlab.Presets() {
		for _, q := range natlab.Presets()[:i] {
			if slices.Equal(p.Boxes(), q.Boxes()) && p.Shared() == q.Shared() && p.IPv6() == q.IPv6() {
				t.Errorf("%s is %s", p, q)
			}
		}
	}
}

// Those that the lab of namespaces can make of the kernel's own NAT.
func TestKernelPresets(t *testing.T) {
	t.Parallel()
	want := []natlab.Preset{
		natlab.Open, natlab.Firewall, natlab.Linux, natlab.LinuxAccept, natlab.OpenWrt, natlab.SymmetricRandom,
		natlab.CGNAT, natlab.UDPBlocked, natlab.TCPOnly443, natlab.ShortTimeout, natlab.V6Firewall,
	}
	if got := natlab.KernelPresets(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What no box can be, and what Linux cannot be, is refused with words that say
// what to do.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*natlab.NAT){
		func(n *natlab.NAT) { n.Filtering = 0 },
		func(n *natlab.NAT) { n.Mapping = 9 },
		func(n *natlab.NAT) { n.Mapping, n.Ports.Parity = 0, true },
		func(n *natlab.NAT) { n.Ports.Delta = 2 },
		func(n *natlab.NAT) { n.Ports = natlab.Ports{Allocation: natlab.Sequential, Delta: 5000} },
		func(n *natlab.NAT) { n.Ports.Allocation = 9 },
		func(n *natlab.NAT) { n.Ports = natlab.Ports{Allocation: natlab.Random, Overloading: true} },
		func(n *natlab.NAT) { n.Ports.BlockSize = 65000 },
		func(n *natlab.NAT) { n.Ports.BlockSize = -1 },
		func(n *natlab.NAT) { n.Ports.BlockStart = 2000 },
		func(n *natlab.NAT) { n.TCP.Mapping = 1 },
		func(n *natlab.NAT) { n.UDP.Replied = -time.Second },
		func(n *natlab.NAT) { n.UDP.Refusal = natlab.RefuseWithReset },
		func(n *natlab.NAT) { n.ICMP.Refusal = natlab.RefuseLate },
		func(n *natlab.NAT) { n.Limits.Host = -1 },
		func(n *natlab.NAT) { n.Busy = -1 },
		func(n *natlab.NAT) { n.Busy = math.NaN() },
		func(n *natlab.NAT) { n.Busy = 1000 },
		func(n *natlab.NAT) { n.Block.TCPBut = 443 },
		func(n *natlab.NAT) { n.KeepsEarly = true },
		func(n *natlab.NAT) { n.Hairpinning = 9 },
		func(n *natlab.NAT) { n.TCP.OnFIN = 9 },
	} {
		n := plainBox
		change(&n)
		if err := n.Check(); err == nil || !strings.HasPrefix(err.Error(), "NAT: ") {
			t.Errorf("%+v: %v", n, err)
		}
		if n.Kernel() == nil {
			t.Errorf("%+v: the kernel can be what nothing can", n)
		}
	}
	for _, change := range []func(*natlab.NAT){
		func(n *natlab.NAT) { n.Limits.Host = 9 },
		func(n *natlab.NAT) { n.Fragments = natlab.FragmentsDropped },
		func(n *natlab.NAT) { n.TCP.Transitory = time.Second },
		func(n *natlab.NAT) { n.KeepsEarly = true }, // and answers nothing
		func(n *natlab.NAT) { n.ICMP.Timeout = time.Millisecond },
	} {
		n := natlab.Linux.NAT()
		change(&n)
		if n.Check() != nil || n.Kernel() == nil {
			t.Errorf("%+v: %v, and the kernel: %v", n, n.Check(), n.Kernel())
		}
	}
}
