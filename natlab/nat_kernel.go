package natlab

import (
	"errors"
	"slices"
	"time"
)

// Kernel finds why Linux itself cannot be such a box; nil if netfilter can.
func (n NAT) Kernel() error {
	if err := n.Check(); err != nil {
		return err
	}
	accepts := NAT{
		KeepsEarly: true, ICMP: ICMP{Pings: true},
		UDP: UDP{Refusal: RefuseWithError}, TCP: TCP{Refusal: RefuseWithReset},
	}
	switch {
	case n == NAT{} || n == NAT{Block: n.Block}:
		return nil
	case !n.Conntrack:
		return errors.New("NAT: Linux tracks connections; set Conntrack")
	case n.Limits != Limits{}:
		return errors.New("NAT: Linux limits sessions for all namespaces together; leave Limits alone")
	case n.Fragments != FragmentsReassembled:
		return errors.New("NAT: Linux reassembles; set Fragments to FragmentsReassembled")
	case n.TCP.Transitory != 0:
		return errors.New("NAT: Linux has a time for each state of TCP; leave Transitory 0")
	case n.KeepsEarly && (!n.ICMP.Pings || n.UDP.Refusal != accepts.UDP.Refusal || n.TCP.Refusal != accepts.TCP.Refusal || n.ICMP.Refusal != 0):
		return errors.New("NAT: Linux that keeps early packets answers pings, and the rest with a reset or ICMP error; set ICMP.Pings and the refusals")
	}
	for _, d := range []time.Duration{n.UDP.Unreplied, n.UDP.Replied, n.TCP.Established, n.ICMP.Timeout} {
		if d%time.Second != 0 {
			return errors.New("NAT: Linux's timeouts are whole seconds")
		}
	}
	return nil
}

// Kernel reports whether Linux itself can be what the preset says.
func (p Preset) Kernel() bool {
	boxes := p.Boxes()
	return len(boxes) > 0 && !slices.ContainsFunc(boxes, func(n NAT) bool { return n.Kernel() != nil })
}

// KernelPresets are the presets that Linux itself can be.
func KernelPresets() []Preset {
	return slices.DeleteFunc(Presets(), func(p Preset) bool { return !p.Kernel() })
}
