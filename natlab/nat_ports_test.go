package natlab_test

import (
	"net/netip"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

func allocating(p natlab.Ports) natlab.NAT { return based(func(n *natlab.NAT) { n.Ports = p }) }

// RFC 4787 §4.2.1: "some NATs attempt to preserve the port number used internally
// when assigning a mapping to an external IP address and port". If it is taken,
// another one is: REQ-3 forbids overloading.
func TestPortPreservation(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, plainBox)
	if got := b.mapped(a5000, x1); got != endAt(ourAddress, 5000) {
		t.Errorf("mapped to %v", got)
	}
	sent, verdict := b.send(natlab.Inside, packetUDP(b5000, x1, ""))
	if p, _ := natlab.ParsePacket(sent[0].Data); p.From.Port() == 5000 || verdict.Reason != natlab.PortTaken {
		t.Errorf("the second host got %v: %v", p.From, verdict)
	}
}

// RFC 4787 REQ-3a: "If the host's source port was in the range 0-1023, it is
// RECOMMENDED the NAT's source port be in the same range"; the others likewise.
func TestWellKnownPortsStaySo(t *testing.T) {
	t.Parallel()
	for _, allocation := range []natlab.Allocation{natlab.Preserving, natlab.Sequential, natlab.Random} {
		b := newLoneBox(t, allocating(natlab.Ports{Allocation: allocation}))
		for range uint16(50) {
			for _, from := range []uint16{500, 5000} {
				b.wait(time.Hour)
				b.mapped(endAt(hostB, from), x1)
				if got := b.mapped(endAt(hostA, from), x1).Port(); (got < 1024) != (from < 1024) {
					t.Fatalf("port %d became %d", from, got)
				}
			}
		}
	}
}

func TestSequentialPorts(t *testing.T) {
	t.Parallel()
	for _, delta := range []int{0, 1, 2, 7, -3} {
		b := newLoneBox(t, allocating(natlab.Ports{Allocation: natlab.Sequential, Delta: delta}))
		want := delta
		if delta == 0 {
			want = 1
		}
		last := int(b.mapped(endAt(hostA, 2000), x1).Port())
		for i := range uint16(2000) {
			got := int(b.mapped(endAt(hostA, 2001+i), x1).Port())
			if got-last != want && got > 1024+10 && got < 65535-10 && last > 1024+10 && last < 65535-10 {
				t.Fatalf("delta %d: %d after %d", delta, got, last)
			}
			last = got
		}
	}
}

// A sequence goes around at its end, past the ports that are in use.
func TestSequentialPortsGoAround(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, allocating(natlab.Ports{Allocation: natlab.Sequential, BlockSize: 8}))
	seen := map[uint16]bool{}
	for i := range uint16(20) {
		seen[b.mapped(endAt(hostA, 2000+i), x1).Port()] = true
		b.wait(time.Minute)
	}
	if len(seen) != 8 {
		t.Errorf("%d ports in use of a block of 8", len(seen))
	}
}

func TestRandomPorts(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, allocating(natlab.Ports{Allocation: natlab.Random}))
	seen := map[uint16]bool{}
	low := 0
	for i := range uint16(5000) {
		p := b.mapped(endAt(hostA, 2000+i), x1).Port()
		if seen[p] || p < 1024 {
			t.Fatalf("port %d, seen before: %v", p, seen[p])
		}
		if seen[p] = true; p < 32768 {
			low++
		}
	}
	if low < 2200 || low > 2700 { // of 5000, 2461 ± 35
		t.Errorf("%d of 5000 ports in the lower half", low)
	}
}

// RFC 4787 §4.2.2: "an even port will be mapped to an even port, and an odd port
// will be mapped to an odd port."
func TestPortParity(t *testing.T) {
	t.Parallel()
	for _, p := range []natlab.Ports{
		{Allocation: natlab.Preserving, Parity: true},
		{Allocation: natlab.Sequential, Parity: true},
		{Allocation: natlab.Sequential, Delta: 3, Parity: true},
		{Allocation: natlab.Random, Parity: true},
	} {
		b := newLoneBox(t, allocating(p))
		for i := range uint16(200) {
			for _, h := range []uint16{5000 + i, 6000 - i} {
				if got := b.mapped(endAt(hostA, h), x1).Port(); got%2 != h%2 {
					t.Fatalf("%+v: port %d became %d", p, h, got)
				}
				b.mapped(endAt(hostB, h), y1)
			}
		}
	}
}

// RFC 4787 §4.2.1: "Some NATs use 'Port overloading', i.e., they always use port
// preservation even in the case of collision". Who inside gets what comes back is
// then told by the remote endpoint.
func TestPortOverloading(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, allocating(natlab.Ports{Overloading: true}))
	m := b.mapped(a5000, x1)
	if other := b.mapped(b5000, y1); other != m {
		t.Fatalf("mapped to %v and %v", m, other)
	}
	if got := b.in(packetUDP(x1, m, "")); got != a5000 {
		t.Errorf("what comes from A's peer arrives at %v", got)
	}
	if got := b.in(packetUDP(y1, m, "")); got != b5000 {
		t.Errorf("what comes from B's peer arrives at %v", got)
	}
	b.wait(4 * time.Minute)
	b.mapped(a5000, x1)
	b.wait(2 * time.Minute) // B's mapping ends, A's does not
	if got := b.in(packetUDP(x1, m, "")); got != a5000 || b.reaches(y1, m) {
		t.Errorf("then what comes from A's peer arrives at %v", got)
	}
}

// RFC 7422 §2: each subscriber has a range of ports that follows from its address
// by an algorithm.
func TestPortBlocks(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, allocating(natlab.Ports{Allocation: natlab.Random, BlockSize: 100, BlockStart: 2000}))
	for n, from := range []netip.Addr{hostA, hostB} {
		host := uint16(10 + n) // the last byte of its address
		seen := map[uint16]bool{}
		for i := range uint16(100) {
			p := b.mapped(endAt(from, 3000+i), x1).Port()
			if p/100 != (2000+host*100)/100 || seen[p] {
				t.Fatalf("host %d has port %d, seen before: %v", host, p, seen[p])
			}
			seen[p] = true
		}
		if _, verdict := b.send(natlab.Inside, packetUDP(endAt(from, 4000), x1, "")); verdict.Reason != natlab.NoPort {
			t.Errorf("beyond its block: %v", verdict)
		}
	}
	b.Reboot(b.now, nil)
	if p := b.mapped(a5000, x1).Port(); p < 3000 || p >= 3100 {
		t.Errorf("after a reboot its block is elsewhere: %d", p)
	}
}

// Blocks go on at the next address; who has none is cut off.
func TestPortBlocksOverAddresses(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, allocating(natlab.Ports{BlockSize: 8000}), ourAddress, otherAddress)
	// (65536-1024)/8000 is 8 blocks an address; hosts 10 and 11 are in the second.
	if got := b.mapped(a5000, x1); got.Addr() != otherAddress || got.Port() < 1024+2*8000 || got.Port() >= 1024+3*8000 {
		t.Errorf("host 10 is mapped to %v", got)
	}
	b = newLoneBox(t, allocating(natlab.Ports{BlockSize: 8000}))
	if _, verdict := b.send(natlab.Inside, packetUDP(a5000, x1, "")); verdict.Reason != natlab.NoBlock {
		t.Errorf("without a block: %v", verdict)
	}
}

// Other hosts take ports at a rate: a sequence moves on by that much.
func TestBusyBoxMovesOn(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.SymmetricBusy.NAT())
	last := b.mapped(a5000, x1).Port()
	sum := 0
	for i := range uint16(100) {
		b.wait(time.Second)
		now := b.mapped(a5000, endAt(peerX, 2+i)).Port()
		gap := int(now-last) - 1
		if now < last {
			gap = int(now-1024) + int(65535-last)
		}
		sum, last = sum+gap, now
	}
	if sum < 1850 || sum > 2150 { // 2000 ± 45
		t.Errorf("others took %d ports in 100 s at 20 a second", sum)
	}
	// Nobody comes in by the mappings of others.
	for port := 1024; port < 65536; port++ {
		if at := b.in(packetUDP(endAt(peerY, 9), endAt(ourAddress, uint16(port)), "")); at.IsValid() {
			t.Fatalf("a stranger reached %v", at)
		}
	}
}

// A long silence costs no more than what is still there after it.
func TestBusyBoxAfterALongSilence(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) { n.Busy, n.UDP.Unreplied = 100, 10*time.Second }))
	b.mapped(a5000, x1)
	b.wait(365 * 24 * time.Hour)
	b.mapped(b5000, x1)
}

// Mappings of an address and port-dependent NAT each have a port of their own, and
// give it back.
func TestPortsAreGivenBack(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.NAT{
		Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent,
		Ports: natlab.Ports{Allocation: natlab.Random, BlockSize: 64},
	})
	for range 5 {
		for i := range uint16(64) {
			b.mapped(a5000, endAt(peerX, 1+i))
		}
		if _, verdict := b.send(natlab.Inside, packetUDP(a5000, y1, "")); verdict.Reason != natlab.NoPort {
			t.Fatalf("%v", verdict)
		}
		b.wait(5 * time.Minute)
	}
}
