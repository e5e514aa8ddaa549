package natlab_test

import (
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// What Linux does is compared with Linux in the package netbed. Here is what of it
// matters most to a hole punch.

// Masquerade keeps the port for everybody, unless the very pair of endpoints is
// taken.
func TestMasqueradeKeepsPorts(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.Linux.NAT())
	want := endAt(ourAddress, 5000)
	if got := b.mapped(a5000, x1); got != want {
		t.Errorf("A to X is mapped to %v", got)
	}
	if got := b.mapped(b5000, y1); got != want {
		t.Errorf("B to Y is mapped to %v, though nobody else talks to Y", got)
	}
	sent, verdict := b.send(natlab.Inside, packetUDP(b5000, x1, ""))
	if p, _ := natlab.ParsePacket(sent[0].Data); p.From.Port() < 1024 || p.From == want || verdict.Reason != natlab.PortTaken {
		t.Errorf("B to X is mapped to %v: %v", p.From, verdict)
	}
	if got := b.in(packetUDP(x1, want, "")); got != a5000 {
		t.Errorf("what X sends arrives at %v", got)
	}
	if got := b.in(packetUDP(y1, want, "")); got != b5000 {
		t.Errorf("what Y sends arrives at %v", got)
	}
}

// A source that had to move stays where it was moved to, for who it talks to next
// (find_appropriate_src in nf_nat_core.c looks at its newest connection).
func TestMovedSourceStaysMoved(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.Linux.NAT())
	b.mapped(a5000, x1)
	moved := b.mapped(b5000, x1)
	if got := b.mapped(b5000, y1); got != moved {
		t.Errorf("moved to %v, then mapped to %v", moved, got)
	}
}

// The early packet. Where the box accepts what comes to itself, a stranger's
// packet takes the pair of endpoints that the host inside would have.
func TestEarlyPacket(t *testing.T) {
	t.Parallel()
	for preset, wantMoved := range map[natlab.Preset]bool{
		natlab.Linux: false, natlab.OpenWrt: false, natlab.LinuxAccept: true, natlab.PortRestricted: false,
	} {
		b := newLoneBox(t, preset.NAT())
		if b.reaches(x1, endAt(ourAddress, 5000)) {
			t.Fatalf("%s: a stranger came in", preset)
		}
		if moved := b.mapped(a5000, x1).Port() != 5000; moved != wantMoved {
			t.Errorf("%s: an early packet moves the mapping: %v", preset, moved)
		}
		if b.mapped(endAt(hostA, 5001), x1).Port() != 5001 {
			t.Errorf("%s: another port moved too", preset)
		}
	}
}

// It is over 30 seconds after the last one of the stranger's packets.
func TestEarlyPacketIsForgotten(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		b := newLoneBox(t, natlab.LinuxAccept.NAT())
		b.reaches(x1, endAt(ourAddress, 5000))
		b.wait(29 * time.Second)
		if again {
			b.reaches(x1, endAt(ourAddress, 5000))
		}
		b.wait(2 * time.Second)
		if moved := b.mapped(a5000, x1).Port() != 5000; moved != again {
			t.Errorf("the stranger tried again %v: moved %v", again, moved)
		}
	}
}

// A SYN to a box that resets it leaves nothing behind: the reset ends it.
func TestEarlySYN(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.LinuxAccept.NAT())
	b.in(packetTCP(x1, endAt(ourAddress, 5000), "S"))
	if got := b.out(packetTCP(a5000, x1, "S")).From.Port(); got != 5000 {
		t.Errorf("mapped to %d", got)
	}
}

// 30 seconds for a query, 120 for a stream: a flow with a reply that is older than
// two seconds (nf_conntrack_proto_udp.c).
func TestConntrackUDPTimeouts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		reply time.Duration // 0: none; the last packet is one more, at that time
		want  time.Duration
	}{
		{"unreplied", 0, 30 * time.Second},
		{"replied at once", time.Millisecond, 30 * time.Second},
		{"a stream", 3 * time.Second, 120 * time.Second},
	} {
		for _, after := range []time.Duration{c.want - 1, c.want} {
			b := newLoneBox(t, natlab.Linux.NAT())
			m := b.mapped(a5000, x1)
			if c.reply > 0 {
				b.wait(c.reply)
				b.reaches(x1, m)
				b.mapped(a5000, x1)
			}
			b.wait(after)
			if got := b.reaches(x1, m); got != (after < c.want) {
				t.Errorf("%s: alive after %v: %v", c.name, after, got)
			}
		}
	}
}

// Both directions refresh.
func TestConntrackRefresh(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.Linux.NAT())
	m := b.mapped(a5000, x1)
	for range 20 {
		b.wait(29 * time.Second)
		if !b.reaches(x1, m) {
			t.Fatal("it ended though packets came in")
		}
	}
}

// Fully random masquerade is a symmetric NAT.
func TestFullyRandomMasquerade(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.SymmetricRandom.NAT())
	seen := map[uint16]bool{}
	for i := range uint16(500) {
		seen[b.mapped(a5000, endAt(peerX, 1+i)).Port()] = true
	}
	if len(seen) < 490 || seen[5000] { // 2 of 500 of 64512 are the same, mostly
		t.Errorf("%d ports for 500 destinations", len(seen))
	}
}

// A listener inside that answers a SYN which came by another way, or an echo reply
// that nobody asked for, leaves untranslated; OpenWrt drops such packets.
func TestConntrackLeaks(t *testing.T) {
	t.Parallel()
	for preset, want := range map[natlab.Preset]natlab.Verdict{
		natlab.Linux:   {Action: natlab.Forward, Reason: natlab.Leaked},
		natlab.OpenWrt: {Action: natlab.Drop, Reason: natlab.Invalid},
	} {
		for _, ip := range [][]byte{packetTCP(a5000, x1, "SA"), pong(hostA, peerX, 7)} {
			b := newLoneBox(t, preset.NAT())
			if _, verdict := b.send(natlab.Inside, ip); verdict != want {
				t.Errorf("%s: %s: %v", preset, see(ip), verdict)
			}
		}
	}
}

// Pings of both sides never meet through Linux, each gets its own back from the
// other's box where that answers.
func TestConntrackPingsDoNotMeet(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.LinuxAccept.NAT())
	b.out(ping(hostA, peerX, 7))
	sent, _ := b.send(natlab.Outside, ping(peerX, ourAddress, 7))
	if len(sent) != 1 || !sent[0].Own || sent[0].To != natlab.Outside {
		t.Fatalf("%d packets", len(sent))
	}
}

// Who is inside and talks to the box's outside talks to the box.
func TestConntrackDoesNotHairpin(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.Linux.NAT())
	m := b.mapped(b5000, x1)
	sent, verdict := b.send(natlab.Inside, packetUDP(a5000, m, "?"))
	if len(sent) != 1 || !sent[0].Own || sent[0].To != natlab.Inside || verdict.Reason != natlab.ForBox {
		t.Errorf("%d packets, %v", len(sent), verdict)
	}
}

// TCP lives as long as the kernel lets it: 2 minutes for a SYN, 5 days for a
// connection, 10 s after a reset.
func TestConntrackTCPTimeouts(t *testing.T) {
	t.Parallel()
	left := func(flags ...string) time.Duration {
		b := newLoneBox(t, natlab.Linux.NAT())
		for _, f := range flags {
			if f[0] == '<' {
				b.in(packetTCP(x1, endAt(ourAddress, 5000), f[1:]))
			} else {
				b.out(packetTCP(a5000, x1, f))
			}
		}
		m := b.Mappings(b.now)
		if len(m) != 1 {
			return 0
		}
		return m[0].Expires.Sub(b.now)
	}
	const minute = time.Minute
	for _, c := range []struct {
		flags []string
		want  time.Duration
	}{
		{[]string{"S"}, 2 * minute},
		{[]string{"S", "<SA"}, minute},
		{[]string{"S", "<SA", "A"}, 5 * 24 * 60 * minute},
		{[]string{"S", "<SA", "A", "FA"}, 2 * minute},
		{[]string{"S", "<SA", "A", "FA", "<FA"}, 30 * time.Second},
		{[]string{"S", "<SA", "A", "<R"}, 10 * time.Second},
		{[]string{"S", "<S"}, 2 * minute},
		{[]string{"S", "<R"}, 0},
		{[]string{"A"}, 5 * minute},
	} {
		if got := left(c.flags...); got != c.want {
			t.Errorf("after %v it lives %v, want %v", c.flags, got, c.want)
		}
	}
}

// A firewall that tracks is a filter of its own kind: nothing moves.
func TestConntrackFirewall(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, natlab.Firewall.NAT())
	if b.reaches(x1, a5000) {
		t.Error("a stranger came in")
	}
	if got := b.mapped(a5000, x1); got != a5000 {
		t.Errorf("%v became %v", a5000, got)
	}
	if !b.reaches(x1, a5000) || b.reaches(x2, a5000) || b.reaches(y1, a5000) {
		t.Error("only who was sent to may reply")
	}
}

// What conntrack cannot be is refused with words.
func TestConntrackCheck(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*natlab.NAT){
		"mapping":   func(n *natlab.NAT) { n.Mapping = nat.AddressDependent },
		"filtering": letAllIn,
		"ports":     func(n *natlab.NAT) { n.Ports.Parity = true },
		"hairpin":   func(n *natlab.NAT) { n.Hairpinning = natlab.ExternalSource },
		"hold":      func(n *natlab.NAT) { n.TCP.Refusal = natlab.RefuseLate },
		"FIN":       func(n *natlab.NAT) { n.TCP.OnFIN = natlab.CloseAtOnce },
		"agnostic":  func(n *natlab.NAT) { n.ICMP.TypeAgnostic = true },
		"fragments": func(n *natlab.NAT) { n.Fragments = natlab.FragmentsInOrder },
		"busy":      func(n *natlab.NAT) { n.Busy = 1 },
	} {
		n := natlab.Linux.NAT()
		change(&n)
		if n.Check() == nil {
			t.Errorf("%s: nothing is wrong", name)
		}
	}
}
