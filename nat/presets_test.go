package nat_test

import (
	"fmt"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// want is what is to be measured of boxes in series, given from the inside out.
func want(boxes []natlab.NAT) (p nat.Profile) {
	outer := boxes[len(boxes)-1]
	p.Mapping, p.Filtering = nat.None, nat.None
	keeps := true
	for _, n := range boxes {
		if n.Block.UDP {
			return nat.Profile{}
		}
		p.Mapping, p.Filtering = max(p.Mapping, n.Mapping), max(p.Filtering, n.Filtering)
		keeps = keeps && (n.Conntrack && n.Mapping != nat.AddressAndPortDependent ||
			!n.Conntrack && n.Ports.Allocation == natlab.Preserving && n.Ports.BlockSize == 0)
	}
	answer := func(yes bool) nat.Answer {
		if yes {
			return nat.Yes
		}
		return nat.No
	}
	switch {
	case keeps:
		p.Ports.Allocation = nat.Preserving
	case outer.Ports.Allocation == natlab.Sequential:
		p.Ports.Allocation, p.Ports.Delta = nat.Sequential, int16(outer.Ports.Delta)
		if p.Ports.Delta == 0 {
			p.Ports.Delta = 1
		}
	case outer.Ports.BlockSize > 0:
		p.Ports.Allocation = nat.Block
	default:
		p.Ports.Allocation = nat.Random
	}
	if p.Mapping != nat.None {
		p.Hairpin = answer(outer.Hairpinning != natlab.NoHairpinning && (p.Mapping == nat.EndpointIndependent || p.Filtering == nat.EndpointIndependent))
	}
	if p.Mapping <= nat.EndpointIndependent {
		p.KeepsEarly = answer(outer.KeepsEarly && p.Mapping == nat.EndpointIndependent && keeps)
	}
	return p
}

// differs says what was not measured right.
func differs(got, want nat.Profile, boxes []natlab.NAT) string {
	ports := got.Ports
	got.Ports, want.Ports = nat.Ports{Allocation: got.Ports.Allocation, Delta: got.Ports.Delta}, nat.Ports{Allocation: want.Ports.Allocation, Delta: want.Ports.Delta}
	if got != want {
		return fmt.Sprintf("measured %+v, want %+v", got, want)
	}
	outer := boxes[len(boxes)-1]
	if want.Ports.Allocation == nat.Sequential {
		if noise := float64(ports.Noise) / 100; noise < outer.Busy*0.3-1 || noise > outer.Busy*2+3 {
			return fmt.Sprintf("%v ports a second are taken by others, of %v", noise, outer.Busy)
		}
		if ports.Last == 0 {
			return "no last port"
		}
	}
	if want.Ports.Allocation == nat.Block {
		size := outer.Ports.BlockSize
		low := 1024 + 2*size // the host has the third address
		if start := int(outer.Ports.BlockStart); start > 0 {
			low += start - 1024
		}
		high := low + size - 1
		if slack := size / 5; int(ports.Low) < low-slack || int(ports.Low) > low+slack || int(ports.High) > high+slack || int(ports.High) < high-slack {
			return fmt.Sprintf("block %d-%d, want %d-%d", ports.Low, ports.High, low, high)
		}
	}
	return ""
}

func TestEveryPreset(t *testing.T) {
	t.Parallel()
	for _, preset := range natlab.Presets() {
		for kind, server := range []string{"two addresses", "one address"} {
			for _, loss := range []float64{0, 0.1} {
				t.Run(fmt.Sprintf("%s, %s, loss %v", preset, server, loss), func(t *testing.T) {
					t.Parallel()
					boxes := preset.Boxes()
					for seed := range uint64(5) {
						top := topology(boxes, natlab.Link{Delay: 20 * time.Millisecond, Loss: loss}, seed)
						r, l := measure(t, top, serverKind(kind), seed)
						w := want(boxes)
						if serverKind(kind) == oneAddress {
							if w.Mapping == nat.AddressDependent {
								w.Mapping = nat.EndpointIndependent
							}
							if w.Filtering == nat.None || w.Filtering == nat.EndpointIndependent {
								w.Filtering = nat.AddressDependent
							}
							if w.Mapping == nat.EndpointIndependent && w.Filtering == nat.AddressDependent {
								w.KeepsEarly = nat.NotMeasured
							}
						}
						if boxes[0].Block.UDP {
							w = nat.Profile{}
						}
						if d := differs(r.Profile, w, boxes); d != "" {
							t.Errorf("seed %d: %s\n%+v", seed, d, r)
						}
						if testing.Verbose() {
							t.Logf("first report after %v, complete after %v, %d sockets, %d packets; %+v", l.at[0], l.at[len(l.at)-1], l.opened, l.sent, r.Profile)
						}
					}
				})
			}
		}
	}
}
