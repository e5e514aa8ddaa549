package nat

import (
	"fmt"
	"slices"
	"time"
)

// mapped is one mapping, as far as allocation is concerned.
type mapped struct {
	local, port uint16
	sent        time.Time
	fresh       bool // the first of its socket
	clean       bool // one packet made it: its place in the order is sure
}

const (
	// enoughSamples tell a block from all ports, and its bounds.
	enoughSamples = 16
	// mostBlock is the largest block that is one: the birthday of two sides in a
	// larger one has no chance.
	mostBlock = 4096
	// neighbours are mappings within this time of each other.
	neighbours = 20 * time.Millisecond
	// mostStep is the largest step between neighbours in a sequence: others take
	// ports between.
	mostStep = 512
)

// allocation says how ports are chosen, by mappings in the order in which they were
// made (RFC 4787 §4.2). It is sure, or would be surer with more of them.
func allocation(all []mapped) (p Ports, evidence string, sure bool) {
	var fresh, kept int
	for _, x := range all {
		if x.fresh {
			fresh++
			if x.port == x.local {
				kept++
			}
		}
	}
	if fresh >= 2 && 4*kept >= 3*fresh {
		return Ports{Allocation: Preserving}, fmt.Sprintf("%d of %d fresh sockets kept their ports", kept, fresh), true
	}
	if delta, n, of := sequence(all); delta != 0 {
		return Ports{Allocation: Sequential, Delta: delta}, fmt.Sprintf("%d of %d neighbouring mappings were steps of %+d", n, of, delta), true
	}
	if len(all) < 3 {
		return Ports{}, fmt.Sprintf("%d mappings are too few", len(all)), false
	}
	var ports []uint16
	for _, x := range all {
		ports = append(ports, x.port)
	}
	low, high := slices.Min(ports), slices.Max(ports)
	spread := fmt.Sprintf("%d mappings had ports from %d to %d in no order", len(ports), low, high)
	if len(all) >= 5 && int(high)-int(low) < mostBlock {
		p.Allocation = Block
		p.Low, p.High = bounds(ports)
		return p, spread, len(all) >= enoughSamples
	}
	return Ports{Allocation: Random}, spread, len(all) >= enoughSamples || int(high)-int(low) > 2*mostBlock
}

// sequence finds the step of a sequence, 0 if it is none, and how many of how many
// neighbours are that step or a few of them apart: others take ports, too.
func sequence(all []mapped) (delta int16, n, of int) {
	var steps []int16
	var last *mapped
	for i := range all {
		x := &all[i]
		if !x.clean {
			continue
		}
		if last != nil && x.sent.Sub(last.sent) < neighbours {
			steps = append(steps, int16(x.port-last.port))
		}
		last = x
	}
	if of = len(steps); of < 2 {
		return 0, 0, of
	}
	mode, often := int16(0), 0
	for _, s := range steps {
		c := 0
		for _, x := range steps {
			if x == s {
				c++
			}
		}
		if c > often {
			mode, often = s, c
		}
	}
	up, down := 0, 0
	divisor := 0
	for _, s := range steps {
		switch {
		case s > 0 && s <= mostStep:
			up++
		case s < 0 && s >= -mostStep:
			down++
		}
	}
	sign := 1
	if n = up; down > up {
		n, sign = down, -1
	}
	for _, s := range steps {
		if s := sign * int(s); s > 0 && s <= mostStep {
			divisor = gcd(divisor, s)
		}
	}
	// One step may be out of order: the wrap at the end of the range, or two packets
	// that overtook each other. Where others take very many ports no step is the
	// usual one, but all of many go the same way.
	usual := int(mode)*sign > 0 && 2*often >= of && often >= 2
	if n < of-1 || !usual && (n < of || of < 5 || !shorterThan(steps, 32)) {
		return 0, 0, of
	}
	return int16(sign * divisor), n, of
}

func shorterThan(steps []int16, most int) bool {
	return !slices.ContainsFunc(steps, func(s int16) bool { return int(s) > most || int(s) < -most })
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// bounds estimates the block that ports are drawn from. Blocks are mostly powers of
// two in size and aligned so: the smallest such that holds all of many draws is
// right, if they fill it as draws do. Otherwise the outermost draws count, and twice
// what is between two of them on either side.
func bounds(ports []uint16) (low, high uint16) {
	low, high = slices.Min(ports), slices.Max(ports)
	spread := int(high) - int(low)
	size := 1
	for int(low)/size != int(high)/size {
		size *= 2
	}
	// The spread of 16 draws is 0.88 of the block, with a deviation of 0.08; that of a
	// block of half the size cannot be more than half.
	if len(ports) >= enoughSamples && size <= mostBlock && 2*spread > size {
		low -= low % uint16(size)
		return low, low + uint16(size-1)
	}
	gap := 2*spread/(len(ports)-1) + 1
	return uint16(max(int(low)-gap, 1)), uint16(min(int(high)+gap, 65535))
}
