package natlab_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// record is a packet in the input of FuzzTranslate: side and time, length, bytes.
func record(side natlab.Side, seconds byte, ip []byte) []byte {
	b := []byte{byte(side) | seconds<<1}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(ip))), ip...)
}

// Whatever comes from either side, a box neither panics nor sends what is no
// packet, nor much more than it got.
func FuzzTranslate(f *testing.F) {
	var all []byte
	for _, ip := range [][]byte{
		packetUDP(a5000, x1, "out"), packetTCP(a5000, x1, "S"), packetTCP(a5000, x1, "FA"), ping(hostA, peerX, 7),
		packetUDP(endAt(hostA6, 5000), endAt(peerX6, 1), "out"), packetUDP(b5000, endAt(ourAddress, 5000), "hairpin"),
		cut(packetUDP(a5000, x2, strings.Repeat("x", 100)), 64)[0],
		cut(packetUDP(a5000, x2, strings.Repeat("x", 100)), 64)[1],
		packetICMP(hostA, peerX, unreachable, 3, 0, packetUDP(x1, a5000, "in")),
	} {
		all = append(all, record(natlab.Inside, 1, ip)...)
	}
	m := endAt(ourAddress, 5000)
	for _, ip := range [][]byte{
		packetUDP(x1, m, "in"), packetTCP(x1, m, "SA"), packetTCP(y1, m, "S"), pong(peerX, ourAddress, 7), ping(peerX, ourAddress, 7),
		errorAbout(peerY, packetUDP(m, x1, "out")), packetUDP(endAt(peerX6, 1), endAt(hostA6, 5000), "in"),
		packetICMP(peerX6, hostA6, 1, 4, 0, packetUDP(endAt(hostA6, 5000), endAt(peerX6, 1), "out")),
	} {
		all = append(all, record(natlab.Outside, 1, ip)...)
	}
	for i := range natlab.Presets() {
		f.Add(byte(i), all)
	}
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		presets := natlab.Presets()
		box := presets[int(which)%len(presets)].NAT()
		box.Limits.Box = 64
		x := box.Translator([]netip.Addr{ourAddress}, []netip.Prefix{insideNet, insideNet6}, nil)
		now := time.Unix(0, 0)
		taken, given := 0, 0
		for len(input) >= 3 {
			side, wait := natlab.Side(input[0]&1), time.Duration(input[0]>>1)*time.Second
			n := min(int(binary.BigEndian.Uint16(input[1:])), len(input)-3)
			ip := slices.Clone(input[3 : 3+n])
			input = input[3+n:]
			now = now.Add(wait)
			taken += n
			out, _ := x.Translate(now, side, ip, nil)
			ticked, _ := x.Tick(now, nil)
			for _, s := range append(out, ticked...) {
				given += len(s.Data)
				checkShape(t, s.Data)
			}
			// An answer quotes at most what came, and has headers of its own.
			if given > 3*taken+1000 {
				t.Fatalf("%d bytes out for %d in", given, taken)
			}
		}
		if got := len(x.Mappings(now)); got > 64 {
			t.Errorf("%d mappings", got)
		}
	})
}

// checkShape checks that a packet is as long as it says.
func checkShape(t *testing.T, b []byte) {
	t.Helper()
	if _, ok := natlab.ParsePacket(b); !ok {
		t.Fatalf("%x is no packet", b)
	}
	want := 40
	if b[0]>>4 == 4 {
		want = int(binary.BigEndian.Uint16(b[2:]))
	} else {
		want += int(binary.BigEndian.Uint16(b[4:]))
	}
	if want != len(b) {
		t.Fatalf("%d bytes say that they are %d", len(b), want)
	}
}

// randomNAT is some box that translates; Check says whether it can be.
func randomNAT(r *rand.Rand) natlab.NAT {
	behavior := func() nat.Behavior { return nat.EndpointIndependent + nat.Behavior(r.IntN(3)) }
	flip := func() bool { return r.IntN(2) == 0 }
	n := natlab.NAT{
		Mapping: behavior(), Filtering: behavior(), Conntrack: r.IntN(3) == 0,
		Ports:       natlab.Ports{Allocation: natlab.Allocation(r.IntN(3)), Parity: flip(), Overloading: r.IntN(4) == 0},
		Hairpinning: natlab.Hairpinning(r.IntN(3)),
		Leaks:       flip(), Fragments: natlab.Fragments(r.IntN(3)),
		ICMP: natlab.ICMP{TypeAgnostic: flip()},
		TCP:  natlab.TCP{Loose: flip(), OnReset: natlab.Closing(r.IntN(3))},
	}
	if flip() {
		n.Ports.BlockSize = 8 + r.IntN(1000)
	}
	if flip() {
		n.TCP.Mapping, n.TCP.Filtering = behavior(), behavior()
	}
	if n.Conntrack {
		n = natlab.Linux.NAT()
		n.KeepsEarly, n.Leaks = flip(), flip()
		if flip() {
			n.Mapping = nat.AddressAndPortDependent
		}
	}
	return n
}

// Through any box: what a host sends leaves whole and with right checksums; what
// the peer answers to where it came from arrives at the host as if there were no
// box; and an error about it quotes what the host sent, to the byte.
func TestThereAndBack(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 5))
	boxes := 0
	for boxes < 500 {
		box := randomNAT(r)
		if box.Check() != nil {
			continue
		}
		boxes++
		b := newLoneBox(t, box)
		for range 6 {
			thereAndBack(b, r)
			b.wait(time.Duration(r.IntN(100)) * time.Second)
		}
		if t.Failed() {
			t.Fatalf("%+v", box)
		}
	}
}

func thereAndBack(b *loneBox, r *rand.Rand) {
	b.t.Helper()
	from := endAt([]netip.Addr{hostA, hostB}[r.IntN(2)], uint16(1024+r.IntN(64000)))
	to := endAt([]netip.Addr{peerX, peerY}[r.IntN(2)], uint16(1+r.IntN(65535)))
	data := strings.Repeat(fmt.Sprint(r.Uint64()), r.IntN(20))
	var original []byte
	var reply, want func(m natlab.Packet) []byte
	switch r.IntN(3) {
	case 0:
		original = packetUDP(from, to, data)
		reply = func(m natlab.Packet) []byte { return packetUDP(to, m.From, data) }
		want = func(natlab.Packet) []byte { return packetUDP(to, from, data) }
	case 1:
		original = packetTCP(from, to, "S")
		reply = func(m natlab.Packet) []byte { return packetTCP(to, m.From, "SA") }
		want = func(natlab.Packet) []byte { return packetTCP(to, from, "SA") }
	default:
		original = packetICMP(from.Addr(), to.Addr(), echo, 0, from.Port(), []byte(data))
		reply = func(m natlab.Packet) []byte {
			return packetICMP(to.Addr(), m.From.Addr(), echoReply, 0, idOf(m), []byte(data))
		}
		want = func(natlab.Packet) []byte {
			return packetICMP(to.Addr(), from.Addr(), echoReply, 0, from.Port(), []byte(data))
		}
	}
	left := b.out(original)
	if left.From.Addr() != ourAddress || left.To.Addr() != to.Addr() || len(left.Data) != len(original) {
		b.t.Fatalf("%s left as %s", see(original), see(left.Data))
	}
	sent, verdict := b.send(natlab.Outside, errorAbout(peerY, left.Data))
	if len(sent) != 1 || !slices.Equal(sent[0].Data[28:], original) {
		b.t.Fatalf("an error about %s: %v", see(original), verdict)
	}
	sent, verdict = b.send(natlab.Outside, reply(left))
	if len(sent) != 1 || sent[0].To != natlab.Inside || !slices.Equal(sent[0].Data, want(left)) {
		b.t.Fatalf("the reply to %s: %v", see(original), verdict)
	}
}
