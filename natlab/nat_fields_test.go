package natlab_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// fieldCase shows what a field does: run sees something else once it is changed.
type fieldCase struct {
	base   natlab.NAT
	change func(*natlab.NAT)
	run    func(*loneBox) any
}

// plainBox is a port-restricted home router.
var plainBox = natlab.NAT{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent}

func based(change func(*natlab.NAT)) natlab.NAT {
	n := plainBox
	change(&n)
	return n
}

func letAllIn(n *natlab.NAT) { n.Filtering = nat.EndpointIndependent }

var (
	a5000 = endAt(hostA, 5000)
	b5000 = endAt(hostB, 5000)
	x1    = endAt(peerX, 1)
	x2    = endAt(peerX, 2)
	y1    = endAt(peerY, 1)
)

// ports are what sources become that send in turn.
func ports(from ...netip.AddrPort) func(*loneBox) any {
	return func(b *loneBox) any {
		var got []uint16
		for _, f := range from {
			got = append(got, b.mapped(f, x1).Port())
		}
		return got
	}
}

// verdict is that of the last of some packets from a side.
func verdicts(from natlab.Side, packets ...[]byte) func(*loneBox) any {
	return func(b *loneBox) any {
		var last natlab.Verdict
		for _, p := range packets {
			_, last = b.send(from, p)
		}
		return last
	}
}

// answers are the protocols of what the box answers to strangers.
func answers(packets ...[]byte) func(*loneBox) any {
	return func(b *loneBox) any {
		var got []uint8
		for _, p := range packets {
			sent, _ := b.send(natlab.Outside, p)
			for _, s := range sent {
				p, _ := natlab.ParsePacket(s.Data)
				got = append(got, p.Protocol)
			}
		}
		return got
	}
}

// openTCP is a handshake from inside; it returns the endpoint outside.
func openTCP(b *loneBox, from, to netip.AddrPort) netip.AddrPort {
	b.t.Helper()
	m := b.out(packetTCP(from, to, "S")).From
	b.in(packetTCP(to, m, "SA"))
	b.out(packetTCP(from, to, "A"))
	return m
}

// after says whether a TCP connection is still known after a time, when the last
// thing that happened was the flags, from inside.
func after(d time.Duration, flags string) func(*loneBox) any {
	return func(b *loneBox) any {
		m := openTCP(b, a5000, x1)
		if flags != "" {
			b.out(packetTCP(a5000, x1, flags))
		}
		b.wait(d)
		return b.in(packetTCP(x1, m, "A")).IsValid()
	}
}

var fieldCases = map[string]fieldCase{
	"Mapping": {plainBox, func(n *natlab.NAT) { n.Mapping = nat.AddressAndPortDependent }, func(b *loneBox) any {
		return b.mapped(a5000, x1) == b.mapped(a5000, y1)
	}},
	"Filtering": {plainBox, func(n *natlab.NAT) { n.Filtering = nat.EndpointIndependent }, func(b *loneBox) any {
		return b.reaches(y1, b.mapped(a5000, x1))
	}},
	"Conntrack": { // keeps the port for one pair of endpoints, not for all
		based(func(n *natlab.NAT) { n.Fragments = natlab.FragmentsReassembled }),
		func(n *natlab.NAT) { n.Conntrack = true },
		func(b *loneBox) any { return b.mapped(a5000, x1) == b.mapped(b5000, y1) },
	},
	"Ports.Allocation": {plainBox, func(n *natlab.NAT) { n.Ports.Allocation = natlab.Sequential }, ports(a5000)},
	"Ports.Delta": {
		based(func(n *natlab.NAT) { n.Ports.Allocation = natlab.Sequential }),
		func(n *natlab.NAT) { n.Ports.Delta = 4 },
		func(b *loneBox) any { return b.mapped(b5000, x1).Port() - b.mapped(a5000, x1).Port() },
	},
	"Ports.Parity": {
		based(func(n *natlab.NAT) { n.Ports.Allocation = natlab.Sequential }),
		func(n *natlab.NAT) { n.Ports.Parity = true },
		func(b *loneBox) any { return (b.mapped(b5000, x1).Port() + b.mapped(a5000, x1).Port()) % 2 },
	},
	"Ports.Overloading": {plainBox, func(n *natlab.NAT) { n.Ports.Overloading = true }, ports(a5000, b5000)},
	"Ports.BlockSize": {
		based(func(n *natlab.NAT) { n.Ports.Allocation = natlab.Random }),
		func(n *natlab.NAT) { n.Ports.BlockSize = 64 },
		func(b *loneBox) any { return b.mapped(a5000, x1).Port()/64 == (1024+10*64)/64 },
	},
	"Ports.BlockStart": {
		based(func(n *natlab.NAT) { n.Ports.BlockSize = 64 }),
		func(n *natlab.NAT) { n.Ports.BlockStart = 2048 },
		func(b *loneBox) any { return b.mapped(a5000, x1).Port()/64 == (1024+10*64)/64 },
	},
	"Pooling": {plainBox, func(n *natlab.NAT) { n.Pooling = natlab.Arbitrary }, func(b *loneBox) any {
		seen := map[netip.Addr]bool{}
		for port := range uint16(20) {
			seen[b.mapped(endAt(hostA, 5000+port), x1).Addr()] = true
		}
		return len(seen)
	}},
	"Hairpinning": {based(letAllIn), func(n *natlab.NAT) { n.Hairpinning = natlab.ExternalSource }, func(b *loneBox) any {
		m := b.mapped(b5000, x1)
		_, verdict := b.send(natlab.Inside, packetUDP(endAt(hostA, 5001), m, "hairpin"))
		return verdict.Action
	}},
	"UDP.Unreplied": {plainBox, func(n *natlab.NAT) { n.UDP.Unreplied = 30 * time.Second }, func(b *loneBox) any {
		m := b.mapped(a5000, x1)
		b.wait(time.Minute)
		return b.reaches(x1, m)
	}},
	"UDP.Replied": {plainBox, func(n *natlab.NAT) { n.UDP.Replied = 30 * time.Second }, func(b *loneBox) any {
		m := b.mapped(a5000, x1)
		b.reaches(x1, m)
		b.wait(time.Minute)
		return b.reaches(x1, m)
	}},
	"UDP.Refresh": {plainBox, func(n *natlab.NAT) { n.UDP.Refresh = natlab.RefreshBoth }, func(b *loneBox) any {
		m := b.mapped(a5000, x1)
		b.wait(4 * time.Minute)
		b.reaches(x1, m)
		b.wait(4 * time.Minute)
		return b.reaches(x1, m)
	}},
	"UDP.Refusal": {plainBox, func(n *natlab.NAT) { n.UDP.Refusal = natlab.RefuseWithError }, answers(packetUDP(x1, endAt(ourAddress, 9), "?"))},
	"TCP.Mapping": {plainBox, func(n *natlab.NAT) { n.TCP.Mapping = nat.AddressAndPortDependent }, func(b *loneBox) any {
		return b.out(packetTCP(a5000, x1, "S")).From == b.out(packetTCP(a5000, y1, "S")).From
	}},
	"TCP.Filtering": {plainBox, func(n *natlab.NAT) { n.TCP.Filtering = nat.EndpointIndependent }, func(b *loneBox) any {
		return b.in(packetTCP(y1, b.out(packetTCP(a5000, x1, "S")).From, "S")).IsValid()
	}},
	"TCP.Refusal": {plainBox, func(n *natlab.NAT) { n.TCP.Refusal = natlab.RefuseWithReset }, answers(packetTCP(x1, endAt(ourAddress, 9), "S"))},
	"TCP.NoSimultaneousOpen": {plainBox, func(n *natlab.NAT) { n.TCP.NoSimultaneousOpen = true }, func(b *loneBox) any {
		return b.in(packetTCP(x1, b.out(packetTCP(a5000, x1, "S")).From, "S")).IsValid()
	}},
	"TCP.Loose":       {plainBox, func(n *natlab.NAT) { n.TCP.Loose = true }, verdicts(natlab.Inside, packetTCP(a5000, x1, "A"))},
	"TCP.OnReset":     {plainBox, func(n *natlab.NAT) { n.TCP.OnReset = natlab.CloseAtOnce }, after(time.Second, "R")},
	"TCP.OnFIN":       {plainBox, func(n *natlab.NAT) { n.TCP.OnFIN = natlab.CloseIgnored }, after(time.Hour, "FA")},
	"TCP.Established": {plainBox, func(n *natlab.NAT) { n.TCP.Established = time.Minute }, after(time.Hour, "")},
	"TCP.Transitory":  {plainBox, func(n *natlab.NAT) { n.TCP.Transitory = time.Minute }, after(2*time.Minute, "FA")},
	"ICMP.TypeAgnostic": {plainBox, func(n *natlab.NAT) { n.ICMP.TypeAgnostic = true }, func(b *loneBox) any {
		m := b.out(ping(hostA, peerX, 7))
		return b.in(ping(peerX, ourAddress, idOf(m))).IsValid()
	}},
	"ICMP.Timeout": {plainBox, func(n *natlab.NAT) { n.ICMP.Timeout = time.Second }, func(b *loneBox) any {
		m := b.out(ping(hostA, peerX, 7))
		b.wait(30 * time.Second)
		return b.in(pong(peerX, ourAddress, idOf(m))).IsValid()
	}},
	"ICMP.Errors": {plainBox, func(n *natlab.NAT) { n.ICMP.Errors = natlab.ErrorsFromPeer }, func(b *loneBox) any {
		p := b.out(packetUDP(a5000, x1, "out"))
		return b.in(errorAbout(peerY, p.Data)).IsValid()
	}},
	"ICMP.Pings":   {plainBox, func(n *natlab.NAT) { n.ICMP.Pings = true }, answers(ping(peerX, ourAddress, 7))},
	"ICMP.Refusal": {plainBox, func(n *natlab.NAT) { n.ICMP.Refusal = natlab.RefuseWithError }, answers(ping(peerX, ourAddress, 7))},
	"Limits.Host": {plainBox, func(n *natlab.NAT) { n.Limits.Host = 1 }, verdicts(natlab.Inside,
		packetUDP(a5000, x1, "1"), packetUDP(a5000, x2, "2"))},
	"Limits.Box": {plainBox, func(n *natlab.NAT) { n.Limits.Box = 1 }, verdicts(natlab.Inside,
		packetUDP(a5000, x1, "1"), packetUDP(b5000, x1, "2"))},
	"Fragments": {plainBox, func(n *natlab.NAT) { n.Fragments = natlab.FragmentsDropped }, verdicts(natlab.Inside,
		cut(packetUDP(a5000, x1, "a long enough packet"), 16)[0])},
	"Block.UDP":  {plainBox, func(n *natlab.NAT) { n.Block.UDP = true }, verdicts(natlab.Inside, packetUDP(a5000, x1, ""))},
	"Block.TCP":  {plainBox, func(n *natlab.NAT) { n.Block.TCP = true }, verdicts(natlab.Inside, packetTCP(a5000, x1, "S"))},
	"Block.ICMP": {plainBox, func(n *natlab.NAT) { n.Block.ICMP = true }, verdicts(natlab.Inside, ping(hostA, peerX, 7))},
	"Block.TCPBut": {
		based(func(n *natlab.NAT) { n.Block.TCP = true }),
		func(n *natlab.NAT) { n.Block.TCPBut = 443 },
		verdicts(natlab.Inside, packetTCP(a5000, endAt(peerX, 443), "S")),
	},
	"KeepsEarly": {natlab.Linux.NAT(), func(n *natlab.NAT) { n.KeepsEarly = true }, func(b *loneBox) any {
		b.reaches(x1, endAt(ourAddress, 5000))
		return b.mapped(a5000, x1).Port() == 5000
	}},
	"Leaks": {plainBox, func(n *natlab.NAT) { n.Leaks = true }, verdicts(natlab.Inside, pong(hostA, peerX, 7))},
	"Busy": {
		based(func(n *natlab.NAT) { n.Ports.Allocation = natlab.Sequential }),
		func(n *natlab.NAT) { n.Busy = 10 },
		func(b *loneBox) any {
			first := b.mapped(a5000, x1).Port()
			b.wait(10 * time.Second)
			return b.mapped(b5000, x1).Port() - first
		},
	},
}

// Every field of a NAT does something that can be seen from outside. A new field
// needs a case here.
func TestEveryFieldMatters(t *testing.T) {
	t.Parallel()
	fields := leaves(reflect.TypeFor[natlab.NAT](), "")
	for _, field := range fields {
		c, ok := fieldCases[field]
		if !ok {
			t.Errorf("field %s: no case shows what it does", field)
			continue
		}
		changed := c.base
		c.change(&changed)
		if got := differing(reflect.ValueOf(c.base), reflect.ValueOf(changed), ""); len(got) != 1 || got[0] != field {
			t.Errorf("case %s changes %v", field, got)
		}
		outside := []netip.Addr{ourAddress, otherAddress}
		if field != "Pooling" {
			outside = outside[:1]
		}
		before := fmt.Sprint(c.run(newLoneBox(t, c.base, outside...)))
		after := fmt.Sprint(c.run(newLoneBox(t, changed, outside...)))
		if before == after {
			t.Errorf("field %s makes no difference: %s", field, before)
		}
	}
	if len(fields) != len(fieldCases) {
		t.Errorf("%d fields and %d cases", len(fields), len(fieldCases))
	}
}

// leaves are the paths of a struct's fields that are no structs themselves.
func leaves(t reflect.Type, path string) (out []string) {
	if t.Kind() != reflect.Struct {
		return []string{strings.TrimPrefix(path, ".")}
	}
	for f := range t.Fields() {
		out = append(out, leaves(f.Type, path+"."+f.Name)...)
	}
	return out
}

// differing are the paths of the leaves in which two structs differ.
func differing(a, b reflect.Value, path string) (out []string) {
	if a.Kind() != reflect.Struct {
		if a.Equal(b) {
			return nil
		}
		return []string{strings.TrimPrefix(path, ".")}
	}
	for i := range a.NumField() {
		out = append(out, differing(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name)...)
	}
	return out
}
