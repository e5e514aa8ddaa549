package natlab_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// RFC 4787 §4.1: "Endpoint-Independent Mapping: The NAT reuses the port mapping
// for subsequent packets sent from the same internal IP address and port (X:x) to
// any external IP address and port." Address-Dependent: "to the same external IP
// address, regardless of the external port." Address and Port-Dependent: "to the
// same external IP address and port while the mapping is still active."
func TestMapping(t *testing.T) {
	t.Parallel()
	for mapping, want := range map[nat.Behavior][3]bool{ // same port for: the same, another port, another address
		nat.EndpointIndependent:     {true, true, true},
		nat.AddressDependent:        {true, true, false},
		nat.AddressAndPortDependent: {true, false, false},
	} {
		b := newLoneBox(t, natlab.NAT{
			Mapping: mapping, Filtering: nat.EndpointIndependent, Ports: natlab.Ports{Allocation: natlab.Sequential},
		})
		from := endAt(hostA, 5000)
		first := b.mapped(from, endAt(peerX, 1))
		got := [3]bool{
			first == b.mapped(from, endAt(peerX, 1)),
			first == b.mapped(from, endAt(peerX, 2)),
			first == b.mapped(from, endAt(peerY, 1)),
		}
		if got != want {
			t.Errorf("%v: same mapping %v, want %v", mapping, got, want)
		}
	}
}

// RFC 4787 §5: Endpoint-Independent Filtering "filters out only packets not
// destined to the internal address and port X:x, regardless of the external IP
// address and port source"; Address-Dependent lets in whoever "X:x previously has
// sent packets to ... (independently of the port used)"; Address and
// Port-Dependent also looks at the port.
func TestFiltering(t *testing.T) {
	t.Parallel()
	for filtering, want := range map[nat.Behavior][3]bool{
		nat.EndpointIndependent:     {true, true, true},
		nat.AddressDependent:        {true, true, false},
		nat.AddressAndPortDependent: {true, false, false},
	} {
		for _, mapping := range []nat.Behavior{nat.None, nat.EndpointIndependent, nat.AddressAndPortDependent} {
			b := newLoneBox(t, natlab.NAT{Mapping: mapping, Filtering: filtering})
			if b.reaches(endAt(peerX, 1), endAt(ourAddress, 5000)) {
				t.Errorf("%v, %v: a packet came in without a mapping", mapping, filtering)
			}
			m := b.mapped(endAt(hostA, 5000), endAt(peerX, 1))
			got := [3]bool{b.reaches(endAt(peerX, 1), m), b.reaches(endAt(peerX, 2), m), b.reaches(endAt(peerY, 1), m)}
			if got != want {
				t.Errorf("%v, %v: lets in %v, want %v", mapping, filtering, got, want)
			}
		}
	}
}

// RFC 4787 REQ-2: "It is RECOMMENDED that a NAT have an 'IP address pooling'
// behavior of 'Paired'", which gives all sessions of a host the same address.
func TestPooling(t *testing.T) {
	t.Parallel()
	for pooling, want := range map[natlab.Pooling]int{natlab.Paired: 1, natlab.Arbitrary: 2} {
		b := newLoneBox(t, based(func(n *natlab.NAT) { n.Pooling = pooling }), ourAddress, otherAddress)
		seen := map[netip.Addr]bool{}
		for port := range uint16(50) {
			seen[b.mapped(endAt(hostA, 5000+port), x1).Addr()] = true
		}
		if len(seen) != want {
			t.Errorf("pooling %d: one host has %d addresses, want %d", pooling, len(seen), want)
		}
		if first, second := b.mapped(a5000, x1), b.mapped(b5000, x1); pooling == natlab.Paired && first.Addr() == second.Addr() {
			t.Errorf("two hosts have %v and %v", first, second)
		}
	}
}

// RFC 4787 REQ-5: "A NAT UDP mapping timer MUST NOT expire in less than two
// minutes", "a value of five minutes or more for the default ... is RECOMMENDED".
func TestMappingLivesFiveMinutes(t *testing.T) {
	t.Parallel()
	for idle, want := range map[time.Duration]bool{5*time.Minute - 1: true, 5 * time.Minute: false} {
		b := newLoneBox(t, plainBox)
		m := b.mapped(a5000, x1)
		b.wait(idle)
		if got := b.reaches(x1, m); got != want {
			t.Errorf("after %v a reply comes in: %v", idle, got)
		}
		if n := len(b.Mappings(b.now)); (n > 0) != want {
			t.Errorf("after %v there are %d mappings", idle, n)
		}
	}
}

// The two times are those before and after the first reply, and a reply counts
// even where it does not refresh.
func TestRepliesLengthenTheMapping(t *testing.T) {
	t.Parallel()
	box := based(func(n *natlab.NAT) {
		n.UDP.Unreplied, n.UDP.Replied = 30*time.Second, 3*time.Minute
	})
	b := newLoneBox(t, box)
	m := b.mapped(a5000, x1)
	b.wait(29 * time.Second)
	if !b.reaches(x1, m) {
		t.Fatal("no reply within 30 s")
	}
	b.wait(150 * time.Second)
	if !b.reaches(x1, m) {
		t.Error("the mapping ended 179 s after the last packet out, 3 minutes after a reply")
	}
	b.wait(2 * time.Second)
	if b.reaches(x1, m) {
		t.Error("it outlived 3 minutes without a packet out")
	}
}

// RFC 4787 REQ-6: "The NAT mapping Refresh Direction MUST have a 'NAT Outbound
// refresh behavior' of 'True'." REQ-6a: it "MAY have an 'NAT Inbound refresh
// behavior' of 'True'".
func TestRefresh(t *testing.T) {
	t.Parallel()
	for refresh, want := range map[natlab.Refresh][2]bool{ // kept alive by packets out, in
		natlab.RefreshOutbound: {true, false},
		natlab.RefreshInbound:  {false, true},
		natlab.RefreshBoth:     {true, true},
	} {
		for direction, want := range want {
			b := newLoneBox(t, based(func(n *natlab.NAT) {
				n.UDP.Refresh, n.Ports.Allocation = refresh, natlab.Random
			}))
			m := b.mapped(a5000, x1)
			b.reaches(x1, m)
			for range 4 {
				b.wait(2 * time.Minute)
				if direction == 0 {
					b.mapped(a5000, x1)
				} else {
					b.reaches(x1, m)
				}
			}
			if alive := b.mapped(a5000, x1) == m; alive != want {
				t.Errorf("refresh %d, packets in direction %d: alive %v, want %v", refresh, direction, alive, want)
			}
		}
	}
}

// A filter forgets each remote endpoint by itself: to keep one hole open does not
// keep the others.
func TestFilterForgetsEachRemote(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) { n.UDP.Refresh = natlab.RefreshBoth }))
	m := b.mapped(a5000, x1)
	b.mapped(a5000, y1)
	for range 5 {
		b.wait(2 * time.Minute)
		b.mapped(a5000, x1)
	}
	if !b.reaches(x1, m) || b.reaches(y1, m) {
		t.Error("after 10 minutes only the remote that was sent to may send")
	}
}

// RFC 4787 REQ-9: "A NAT MUST support 'Hairpinning'", with "an external source IP
// address and port".
func TestHairpinning(t *testing.T) {
	t.Parallel()
	for hairpinning, want := range map[natlab.Hairpinning]netip.AddrPort{
		natlab.NoHairpinning:  {},
		natlab.InternalSource: endAt(hostA, 5001),
		natlab.ExternalSource: endAt(ourAddress, 5001),
	} {
		b := newLoneBox(t, based(func(n *natlab.NAT) { n.Hairpinning = hairpinning }))
		b.send(natlab.Inside, packetUDP(b5000, endAt(ourAddress, 5001), "opens a hole for what A's port will be"))
		sent, verdict := b.send(natlab.Inside, packetUDP(endAt(hostA, 5001), endAt(ourAddress, 5000), "hairpin"))
		if !want.IsValid() {
			if len(sent) != 0 || verdict != (natlab.Verdict{Action: natlab.Drop, Reason: natlab.NoHairpin}) {
				t.Errorf("without hairpinning: %d packets, %v", len(sent), verdict)
			}
			continue
		}
		if len(sent) != 1 || sent[0].To != natlab.Inside || verdict.Action != natlab.Hairpin {
			t.Errorf("hairpinning %d: %d packets, %v", hairpinning, len(sent), verdict)
			continue
		}
		if p, _ := natlab.ParsePacket(sent[0].Data); p.From != want || p.To != b5000 {
			t.Errorf("hairpinning %d: %v to %v, want from %v", hairpinning, p.From, p.To, want)
		}
	}
}

// A hairpinned packet is filtered like any other.
func TestHairpinIsFiltered(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) { n.Hairpinning = natlab.ExternalSource }))
	m := b.mapped(b5000, x1)
	if sent, verdict := b.send(natlab.Inside, packetUDP(a5000, m, "?")); len(sent) != 0 || verdict.Reason != natlab.FilteredPort {
		t.Errorf("%d packets, %v", len(sent), verdict)
	}
}

// RFC 768: a checksum of zero says that there is none. It stays so.
func TestNoChecksumStaysNone(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, plainBox)
	ip := packetUDP(a5000, x1, "out")
	ip[26], ip[27] = 0, 0
	if out := b.out(ip).Data; out[26] != 0 || out[27] != 0 {
		t.Errorf("the checksum became %x", out[26:28])
	}
}

// RFC 768: a computed checksum of zero is transmitted as all ones.
func TestChecksumIsNeverZero(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, plainBox)
	m := b.out(packetUDP(a5000, x1, "??")).Data
	// The two bytes that make the sum of the translated packet come to zero.
	data := binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(m[28:])+binary.BigEndian.Uint16(m[26:]))
	for range 3 { // the carry
		if out := b.out(packetUDP(a5000, x1, string(data))).Data; bytes.Equal(out[26:28], []byte{0xff, 0xff}) {
			return
		} else if bytes.Equal(out[26:28], []byte{0, 0}) {
			t.Fatal("a checksum of zero was sent")
		} else {
			data = binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(data)+binary.BigEndian.Uint16(out[26:]))
		}
	}
	t.Fatal("no packet came to a checksum of zero")
}

// IPv6 is filtered as IPv4 is, and never translated.
func TestIPv6IsFilteredOnly(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, {Filtering: nat.AddressAndPortDependent}, natlab.Linux.NAT(), natlab.SymmetricRandom.NAT(), natlab.Firewall.NAT()} {
		b := newLoneBox(t, box)
		in, out := endAt(hostA6, 5000), endAt(peerX6, 1)
		if b.reaches(out, in) {
			t.Error("a stranger came in")
		}
		if got := b.mapped(in, out); got != in {
			t.Errorf("%v became %v", in, got)
		}
		if !b.reaches(out, in) || b.reaches(endAt(peerY6, 1), in) {
			t.Error("only who was sent to may reply")
		}
		if p := b.out(packetICMP(hostA6, peerX6, 128, 0, 7, []byte("ping"))); p.From.Addr() != hostA6 {
			t.Errorf("ping from %v", p.From)
		}
		if !b.in(packetICMP(peerX6, hostA6, 129, 0, 7, []byte("ping"))).IsValid() {
			t.Error("no reply to a ping")
		}
		seen := packetUDP(in, out, "out")
		if !b.in(packetICMP(peerY6, hostA6, 3, 0, 0, seen)).IsValid() {
			t.Error("no ICMP error about a known flow")
		}
	}
}

// What is not let in is answered as the box says, with well-formed packets.
func TestRefusedUDP(t *testing.T) {
	t.Parallel()
	b := newLoneBox(t, based(func(n *natlab.NAT) { n.UDP.Refusal = natlab.RefuseWithError }))
	ip := packetUDP(x1, endAt(ourAddress, 9), "anybody there?")
	sent, verdict := b.send(natlab.Outside, ip)
	if len(sent) != 1 || !sent[0].Own || sent[0].To != natlab.Outside || verdict != (natlab.Verdict{Action: natlab.Answer, Reason: natlab.NoMapping}) {
		t.Fatalf("%v, %v", sent, verdict)
	}
	p, _ := natlab.ParsePacket(sent[0].Data)
	if p.From.Addr() != ourAddress || p.To.Addr() != peerX || p.Data[20] != unreachable || p.Data[21] != 3 || !bytes.Equal(p.Data[28:], ip) {
		t.Errorf("answered with %v", see(p.Data))
	}
}
