package natlab_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// RFC 5508 REQ-1: "Unless explicitly overridden by local policy, a NAT device MUST
// permit ICMP Queries and their associated responses, when the Query is initiated
// from a private host to the external hosts."
func TestPing(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT(), natlab.SymmetricRandom.NAT(), natlab.FullCone.NAT()} {
		b := newLoneBox(t, box)
		out := b.out(ping(hostA, peerX, 7))
		if out.From.Addr() != ourAddress {
			t.Errorf("it left from %v", out.From)
		}
		sent, _ := b.send(natlab.Outside, pong(peerX, ourAddress, idOf(out)))
		if len(sent) != 1 {
			t.Fatal("no reply")
		}
		if p, _ := natlab.ParsePacket(sent[0].Data); p.To.Addr() != hostA || idOf(p) != 7 {
			t.Errorf("the reply is %v", see(p.Data))
		}
	}
}

// Two hosts with the same identifier have two outside.
func TestPingsOfTwoHosts(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT()} {
		b := newLoneBox(t, box)
		first, second := idOf(b.out(ping(hostA, peerX, 7))), idOf(b.out(ping(hostB, peerX, 7)))
		if first != 7 || second == 7 {
			t.Errorf("identifiers %d and %d", first, second)
		}
		if got := b.in(pong(peerX, ourAddress, second)); got.Addr() != hostB {
			t.Errorf("the second one's reply arrives at %v", got)
		}
	}
}

// RFC 5508 REQ-2: "An ICMP Query session timer MUST NOT expire in less than 60
// seconds."
func TestPingTimeout(t *testing.T) {
	t.Parallel()
	for idle, want := range map[time.Duration]bool{time.Minute - 1: true, time.Minute: false} {
		b := newLoneBox(t, plainBox)
		b.out(ping(hostA, peerX, 7))
		b.wait(idle)
		if got := b.in(pong(peerX, ourAddress, 7)).IsValid(); got != want {
			t.Errorf("after %v a reply comes in: %v", idle, got)
		}
	}
}

// A strict box lets in replies to the type that was asked, from whom it was asked.
// A type-agnostic one looks at the identifier alone: pings of both sides meet.
func TestQueryTypes(t *testing.T) {
	t.Parallel()
	queries := map[string][]byte{
		"a reply":                   pong(peerX, ourAddress, 7),
		"a stranger's reply":        pong(peerY, ourAddress, 7),
		"a reply of another type":   packetICMP(peerX, ourAddress, timestampReply, 0, 7, make([]byte, 12)),
		"a request":                 ping(peerX, ourAddress, 7),
		"a stranger's request":      ping(peerY, ourAddress, 7),
		"a reply to another's ping": pong(peerX, ourAddress, 8),
	}
	for _, c := range []struct {
		name   string
		change func(*natlab.NAT)
		want   []string
	}{
		{"strict", func(*natlab.NAT) {}, []string{"a reply"}},
		{"strict, no filter", letAllIn, []string{"a reply", "a stranger's reply"}},
		{"agnostic", func(n *natlab.NAT) { n.ICMP.TypeAgnostic = true }, []string{"a reply", "a reply of another type", "a request"}},
		{"agnostic, no filter", func(n *natlab.NAT) {
			letAllIn(n)
			n.ICMP.TypeAgnostic = true
		}, []string{"a reply", "a stranger's reply", "a reply of another type", "a request", "a stranger's request"}},
	} {
		for name, query := range queries {
			b := newLoneBox(t, based(c.change))
			b.out(ping(hostA, peerX, 7))
			if got := b.in(query).IsValid(); got != slices.Contains(c.want, name) {
				t.Errorf("%s: %s comes in: %v", c.name, name, got)
			}
		}
	}
}

// An echo reply that nobody asked for leaves untranslated or not at all; of a
// type-agnostic box translated.
func TestUnsolicitedReply(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		box  natlab.NAT
		want netip.Addr
	}{
		{plainBox, netip.Addr{}},
		{based(func(n *natlab.NAT) { n.Leaks = true }), hostA},
		{natlab.Linux.NAT(), hostA},
		{natlab.OpenWrt.NAT(), netip.Addr{}},
		{natlab.ICMPLoose.NAT(), ourAddress},
	} {
		b := newLoneBox(t, c.box)
		var from netip.Addr
		sent, verdict := b.send(natlab.Inside, pong(hostA, peerX, 7))
		for _, s := range sent {
			p, _ := natlab.ParsePacket(s.Data)
			from = p.From.Addr()
		}
		if from != c.want {
			t.Errorf("it left from %v (%v), want %v", from, verdict, c.want)
		}
	}
}

// RFC 5508 REQ-4: "If a NAT device receives an ICMP Error packet from the external
// realm, and the NAT device does not have an active mapping for the embedded
// payload, the NAT SHOULD silently drop the ICMP Error packet"; else it must
// "revert the IP and transport headers of the embedded IP packet to their
// original form" and "leave the ICMP error type and code unchanged".
func TestErrorsFromOutside(t *testing.T) {
	t.Parallel()
	originals := map[string][]byte{
		"UDP":  packetUDP(a5000, x1, "some data to be quoted"),
		"TCP":  packetTCP(a5000, x1, "S"),
		"ICMP": ping(hostA, peerX, 7),
	}
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT(), natlab.SymmetricRandom.NAT(), natlab.FullCone.NAT(), natlab.CGNATBlock.NAT()} {
		for name, original := range originals {
			for _, quoted := range []int{28, len(original)} {
				b := newLoneBox(t, box)
				seen := b.out(original).Data
				about := errorAbout(peerY, seen[:quoted])
				sent, verdict := b.send(natlab.Outside, about)
				if len(sent) != 1 || verdict.Action != natlab.Translate {
					t.Fatalf("%s: an error about it: %v", name, verdict)
				}
				p, _ := natlab.ParsePacket(sent[0].Data)
				got := p.Data[28:]
				if p.From.Addr() != peerY || p.To.Addr() != hostA || p.Data[20] != timeExceeded {
					t.Errorf("%s: the error is %v", name, see(p.Data))
				}
				want := original[:quoted]
				if name == "TCP" && quoted == 28 {
					want = want[:28] // its checksum is not quoted
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s: it quotes\n%x, was\n%x", name, got, want)
				}
				// About what was never sent.
				stranger := slices.Clone(seen[:quoted])
				copy(stranger[16:], []byte{9, 9, 9, 9})
				if filtering := box.Filtering; filtering != nat.EndpointIndependent && b.in(errorAbout(peerY, stranger)).IsValid() {
					t.Errorf("%s: an error about what was never sent came in", name)
				}
			}
		}
	}
}

func TestErrorsFromStrangers(t *testing.T) {
	t.Parallel()
	for errors, want := range map[natlab.Errors][2]natlab.Reason{ // from the peer, from a stranger
		natlab.ErrorsMapped:   {"", ""},
		natlab.ErrorsFromPeer: {"", natlab.FromStranger},
		natlab.ErrorsNone:     {natlab.ErrorsOff, natlab.ErrorsOff},
	} {
		b := newLoneBox(t, based(func(n *natlab.NAT) { n.ICMP.Errors = errors }))
		seen := b.out(packetUDP(a5000, x1, "out")).Data
		for i, from := range []netip.Addr{peerX, peerY} {
			if _, verdict := b.send(natlab.Outside, errorAbout(from, seen)); verdict.Reason != want[i] {
				t.Errorf("errors %d, from %v: %v", errors, from, verdict)
			}
		}
	}
}

// RFC 5508 REQ-5: an error that a host inside sends leaves with the address that
// the quoted packet was sent to, outside and inside of it.
func TestErrorsFromInside(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT(), natlab.FullCone.NAT()} {
		b := newLoneBox(t, box)
		m := b.mapped(a5000, x1)
		reply := packetUDP(x1, m, "to a closed port")
		sent, _ := b.send(natlab.Outside, reply)
		about := packetICMP(hostA, peerX, unreachable, 3, 0, sent[0].Data)
		p := b.out(about)
		if p.From.Addr() != ourAddress || p.To.Addr() != peerX || !bytes.Equal(p.Data[28:], reply) {
			t.Errorf("it left as %v, quoting %x, want %x", see(p.Data), p.Data[28:], reply)
		}
		_, verdict := b.send(natlab.Inside, packetICMP(hostA, peerX, unreachable, 3, 0, packetUDP(y1, a5000, "never came")))
		if want := box.Leaks; (verdict.Reason == natlab.Leaked) != want {
			t.Errorf("about what never came: %v", verdict)
		}
	}
}

// RFC 5508 REQ-6: "While processing an ICMP Error packet ... a NAT device MUST NOT
// refresh or delete the NAT Session that pertains to the embedded payload".
func TestErrorsChangeNothing(t *testing.T) {
	t.Parallel()
	for _, original := range [][]byte{packetUDP(a5000, x1, "out"), packetTCP(a5000, x1, "S"), ping(hostA, peerX, 7)} {
		b := newLoneBox(t, plainBox)
		seen := b.out(original).Data
		before := b.Mappings(b.now)
		b.wait(30 * time.Second)
		if !b.in(packetICMP(peerX, ourAddress, unreachable, 1, 0, seen)).IsValid() {
			t.Fatal("the error did not come in")
		}
		if after := b.Mappings(b.now); !slices.Equal(before, after) {
			t.Errorf("%v became %v", before, after)
		}
	}
}

// RFC 5508 REQ-7: errors about hairpinned packets are hairpinned.
func TestErrorsAboutHairpinnedPackets(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) {
		letAllIn(n)
		n.Hairpinning = natlab.ExternalSource
	}))
	m := b.mapped(b5000, x1)
	original := packetUDP(endAt(hostA, 5001), m, "hairpin")
	sent, _ := b.send(natlab.Inside, original)
	about := packetICMP(hostB, ourAddress, unreachable, 3, 0, sent[0].Data)
	sent, verdict := b.send(natlab.Inside, about)
	if len(sent) != 1 || sent[0].To != natlab.Inside || verdict.Action != natlab.Hairpin {
		t.Fatalf("%d packets, %v", len(sent), verdict)
	}
	p, _ := natlab.ParsePacket(sent[0].Data)
	if p.From.Addr() != ourAddress || p.To.Addr() != hostA || !bytes.Equal(p.Data[28:], original) {
		t.Errorf("it arrives as %v, quoting %x, want %x", see(p.Data), p.Data[28:], original)
	}
}

// An error that is not intact is nobody's.
func TestBrokenErrors(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT()} {
		b := newLoneBox(t, box)
		seen := b.out(packetUDP(a5000, x1, "out")).Data
		broken := errorAbout(peerX, seen)
		broken[23]++
		if b.in(broken).IsValid() {
			t.Error("an error with a wrong checksum came in")
		}
		for cut := range 28 {
			if b.in(packetICMP(peerX, ourAddress, timeExceeded, 0, 0, seen[:cut])).IsValid() {
				t.Errorf("an error that quotes %d bytes came in", cut)
			}
		}
		if b.in(errorAbout(peerX, errorAbout(peerX, seen))).IsValid() {
			t.Error("an error about an error came in")
		}
	}
}

func TestRefusedPing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*natlab.ICMP)
		want   int // ICMP type; -1: none
	}{
		{func(*natlab.ICMP) {}, -1},
		{func(i *natlab.ICMP) { i.Pings = true }, echoReply},
		{func(i *natlab.ICMP) { i.Refusal = natlab.RefuseWithError }, unreachable},
	} {
		b := newLoneBox(t, based(func(n *natlab.NAT) { c.change(&n.ICMP) }))
		got := -1
		sent, _ := b.send(natlab.Outside, ping(peerX, ourAddress, 7))
		for _, s := range sent {
			got = int(s.Data[20])
		}
		if got != c.want {
			t.Errorf("a ping is answered with type %d, want %d", got, c.want)
		}
	}
}
