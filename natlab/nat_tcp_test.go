package natlab_test

import (
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// RFC 5382 REQ-2: "A NAT MUST support all valid sequences of TCP packets
// (including simultaneous-open connections)".
func TestSimultaneousOpen(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT(), natlab.OpenWrt.NAT(), natlab.SymmetricSequential.NAT()} {
		b := newLoneBox(t, box)
		m := b.out(packetTCP(a5000, x1, "S")).From
		if !b.in(packetTCP(x1, m, "S")).IsValid() {
			t.Fatal("the peer's SYN did not pass")
		}
		b.out(packetTCP(a5000, x1, "SA"))
		if !b.in(packetTCP(x1, m, "SA")).IsValid() {
			t.Fatal("the peer's SYN-ACK did not pass")
		}
		b.out(packetTCP(a5000, x1, "A"))
		b.wait(time.Hour)
		if !b.in(packetTCP(x1, m, "A")).IsValid() {
			t.Error("an established connection ended within an hour")
		}
	}
}

// Some refuse it.
func TestNoSimultaneousOpen(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) { n.TCP.NoSimultaneousOpen = true }))
	m := b.out(packetTCP(a5000, x1, "S")).From
	if _, verdict := b.send(natlab.Outside, packetTCP(x1, m, "S")); verdict.Reason != natlab.NoSimultaneous {
		t.Errorf("a SYN for a SYN: %v", verdict)
	}
	if !b.in(packetTCP(x1, m, "SA")).IsValid() {
		t.Error("a SYN-ACK did not pass")
	}
}

// RFC 5382 REQ-3: TCP is mapped and filtered by itself, "Endpoint-Independent
// Filtering" where transparency matters: then a stranger may connect.
func TestTCPFiltering(t *testing.T) {
	t.Parallel()
	for filtering, want := range map[nat.Behavior][2]bool{ // another port of the peer, a stranger
		nat.EndpointIndependent:     {true, true},
		nat.AddressDependent:        {true, false},
		nat.AddressAndPortDependent: {false, false},
	} {
		b := newLoneBox(t, based(func(n *natlab.NAT) { n.TCP.Filtering = filtering }))
		m := openTCP(b, a5000, x1)
		got := [2]bool{b.in(packetTCP(x2, m, "S")).IsValid(), b.in(packetTCP(y1, m, "S")).IsValid()}
		if got != want {
			t.Errorf("%v lets in %v, want %v", filtering, got, want)
		}
		if b.in(packetTCP(endAt(peerY, 7), m, "A")).IsValid() {
			t.Errorf("%v: what is no SYN came in without a connection", filtering)
		}
		if want[1] {
			b.out(packetTCP(a5000, y1, "SA")) // and is answered
		}
	}
}

// RFC 5382 REQ-4: "A NAT MUST NOT respond to an unsolicited inbound SYN packet for
// at least 6 seconds after the packet is received. If during this interval the
// NAT receives and translates an outbound SYN for the connection the NAT MUST
// silently drop the original unsolicited inbound SYN packet. Otherwise, the NAT
// SHOULD send an ICMP Port Unreachable error".
func TestUnsolicitedSYNIsHeld(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) { n.TCP.Refusal = natlab.RefuseLate }))
	early := packetTCP(x1, endAt(ourAddress, 5000), "S")
	for range 3 { // and its retransmissions
		if sent, verdict := b.send(natlab.Outside, early); len(sent) != 0 || verdict != (natlab.Verdict{Action: natlab.Hold, Reason: natlab.HeldSYN}) {
			t.Fatalf("%d packets, %v", len(sent), verdict)
		}
		b.wait(time.Second)
	}
	unwanted := packetTCP(y1, endAt(ourAddress, 5000), "S")
	b.send(natlab.Outside, unwanted)
	b.wait(time.Second)
	if m := b.out(packetTCP(a5000, x1, "S")).From; m.Port() != 5000 {
		t.Errorf("mapped to %v", m)
	}
	out, next := b.Tick(b.now, nil)
	if len(out) != 0 || next.Sub(b.now) != 5*time.Second {
		t.Errorf("%d answers, next in %v", len(out), next.Sub(b.now))
	}
	b.now = next
	out, next = b.Tick(b.now, nil)
	if len(out) != 1 || !next.IsZero() {
		t.Fatalf("%d answers after 6 s, next %v", len(out), next)
	}
	wellFormed(t, out[0].Data)
	if p, _ := natlab.ParsePacket(out[0].Data); !out[0].Own || p.To.Addr() != peerY || p.Data[20] != unreachable || p.Data[21] != 3 {
		t.Errorf("the answer is %v", see(out[0].Data))
	}
}

// What is not let in may be answered at once: with a reset, with an error, not at
// all.
func TestUnsolicitedSYN(t *testing.T) {
	t.Parallel()
	for refusal, want := range map[natlab.Refusal]uint8{
		natlab.RefuseSilently: 0, natlab.RefuseWithReset: natlab.ProtocolTCP, natlab.RefuseWithError: natlab.ProtocolICMP,
	} {
		b := newLoneBox(t, based(func(n *natlab.NAT) { n.TCP.Refusal = refusal }))
		sent, verdict := b.send(natlab.Outside, packetTCP(x1, endAt(ourAddress, 5000), "S"))
		if want == 0 {
			if len(sent) != 0 || verdict.Action != natlab.Drop {
				t.Errorf("refused silently: %d packets, %v", len(sent), verdict)
			}
			continue
		}
		if len(sent) != 1 || verdict.Action != natlab.Answer {
			t.Fatalf("refusal %d: %d packets, %v", refusal, len(sent), verdict)
		}
		p, _ := natlab.ParsePacket(sent[0].Data)
		if p.Protocol != want {
			t.Errorf("refusal %d: answered with protocol %d", refusal, p.Protocol)
		}
		if s, ok := p.Segment(); want == natlab.ProtocolTCP && (!ok || s.Flags != natlab.RST|natlab.ACK || s.Ack != 1001) {
			t.Errorf("answered with %+v", s)
		}
		// RFC 9293 §3.10.7.1: a reset is not answered.
		if sent, _ := b.send(natlab.Outside, packetTCP(x1, endAt(ourAddress, 5000), "R")); want == natlab.ProtocolTCP && len(sent) != 0 {
			t.Error("a reset was answered with a reset")
		}
	}
}

// RFC 5382 REQ-5: "the value of the 'established connection idle-timeout' MUST NOT
// be less than 2 hours 4 minutes. The value of the 'transitory connection
// idle-timeout' MUST NOT be less than 4 minutes."
func TestTCPTimeouts(t *testing.T) {
	t.Parallel()
	const established, transitory = 2*time.Hour + 4*time.Minute, 4 * time.Minute
	for _, c := range []struct {
		name  string
		flags string // what A sends after the handshake; "S": there was none
		idle  time.Duration
		want  bool
	}{
		{"established", "", established - 1, true},
		{"established", "", established, false},
		{"being opened", "S", transitory - 1, true},
		{"being opened", "S", transitory, false},
		{"after a FIN", "FA", transitory - 1, true},
		{"after a FIN", "FA", transitory, false},
		{"after a RST", "R", transitory - 1, true},
		{"after a RST", "R", transitory, false},
	} {
		b := newLoneBox(t, plainBox)
		m := endAt(ourAddress, 5000)
		if c.flags == "S" {
			b.out(packetTCP(a5000, x1, "S"))
		} else if openTCP(b, a5000, x1); c.flags != "" {
			b.out(packetTCP(a5000, x1, c.flags))
		}
		b.wait(c.idle)
		if got := b.in(packetTCP(x1, m, "A")).IsValid(); got != c.want {
			t.Errorf("%s, after %v: %v", c.name, c.idle, got)
		}
	}
}

// What a RST or a FIN does, from either side.
func TestTCPClosing(t *testing.T) {
	t.Parallel()
	for closing, want := range map[natlab.Closing][3]bool{ // there at once, after 1 min, after 1 h
		natlab.CloseTransitory: {true, true, false},
		natlab.CloseAtOnce:     {false, false, false},
		natlab.CloseIgnored:    {true, true, true},
	} {
		for _, flags := range []string{"R", "FA"} {
			for _, fromInside := range []bool{true, false} {
				for i, idle := range []time.Duration{0, time.Minute, time.Hour} {
					b := newLoneBox(t, based(func(n *natlab.NAT) { n.TCP.OnReset, n.TCP.OnFIN = closing, closing }))
					m := openTCP(b, a5000, x1)
					if fromInside {
						b.out(packetTCP(a5000, x1, flags))
					} else if !b.in(packetTCP(x1, m, flags)).IsValid() {
						t.Fatalf("%s did not pass itself", flags)
					}
					b.wait(idle)
					if got := b.in(packetTCP(x1, m, "A")).IsValid(); got != want[i] {
						t.Errorf("closing %d, %s from inside %v, after %v: %v", closing, flags, fromInside, idle, got)
					}
				}
			}
		}
	}
}

// The next connection of the same endpoints is as good as the first.
func TestTCPReopens(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, plainBox)
	m := openTCP(b, a5000, x1)
	b.out(packetTCP(a5000, x1, "R"))
	if openTCP(b, a5000, x1) != m {
		t.Error("it has another port")
	}
	b.wait(time.Hour)
	if !b.in(packetTCP(x1, m, "A")).IsValid() {
		t.Error("it ended within an hour")
	}
}

// What is in the middle of a connection that the box does not know passes only
// where it is loose about it, and of a strict box it leaks or is dropped.
func TestTCPPickup(t *testing.T) {
	t.Parallel()
	middle := packetTCP(a5000, x1, "A")
	for _, c := range []struct {
		change func(*natlab.NAT)
		want   natlab.Verdict
	}{
		{func(*natlab.NAT) {}, natlab.Verdict{Action: natlab.Drop, Reason: natlab.BeginsNothing}},
		{func(n *natlab.NAT) { n.Leaks = true }, natlab.Verdict{Action: natlab.Forward, Reason: natlab.Leaked}},
		{func(n *natlab.NAT) { n.TCP.Loose = true }, natlab.Verdict{Action: natlab.Translate}},
	} {
		b := newLoneBox(t, based(c.change))
		if _, verdict := b.send(natlab.Inside, middle); verdict != c.want {
			t.Errorf("%v, want %v", verdict, c.want)
		}
	}
}
