package natlab_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"
)

func joined(t *testing.T, pieces []natlab.Sent) []byte {
	t.Helper()
	if len(pieces) == 0 {
		return nil
	}
	whole := slices.Clone(pieces[0].Data[:20])
	for _, p := range pieces {
		if !bytes.Equal(p.Data[12:20], whole[12:20]) {
			t.Fatal("the pieces have different addresses")
		}
		whole = append(whole, p.Data[20:]...)
	}
	whole[2], whole[3] = byte(len(whole)>>8), byte(len(whole))
	whole[6], whole[7] = 0, 0
	whole[10], whole[11] = 0, 0
	sum := sumWords(whole[:20], 0)
	whole[10], whole[11] = byte(sum>>8), byte(sum)
	return whole
}

// RFC 4787 REQ-14: "A NAT MUST support receiving in-order and out-of-order
// fragments". Those in order pass both kinds of boxes, as one packet does.
func TestFragmentsInOrder(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a long packet ", 20)
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT()} {
		b := newLoneBox(t, box)
		var out []natlab.Sent
		for _, piece := range cut(packetUDP(a5000, x1, long), 64) {
			sent, _ := b.send(natlab.Inside, piece)
			out = append(out, sent...)
		}
		wellFormed(t, joined(t, out))
		p, _ := natlab.ParsePacket(joined(t, out))
		if got, ok := p.Datagram(); p.From.Addr() != ourAddress || !ok || string(got) != long {
			t.Fatalf("%d pieces left as %v", len(out), see(p.Data))
		}
		var in []natlab.Sent
		for _, piece := range cut(packetUDP(x1, p.From, long), 64) {
			sent, _ := b.send(natlab.Outside, piece)
			in = append(in, sent...)
		}
		wellFormed(t, joined(t, in))
		if p, _ := natlab.ParsePacket(joined(t, in)); p.To != a5000 {
			t.Errorf("%d pieces came in to %v", len(in), p.To)
		}
	}
}

// Out of order they pass a box that reassembles, as one packet if that fits the
// link, and not one that does not.
func TestFragmentsOutOfOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fragments natlab.Fragments
		size      int // of the packet, which comes in four pieces
		want      int
	}{
		{natlab.FragmentsInOrder, 256, 1},
		{natlab.FragmentsReassembled, 256, 1},
		{natlab.FragmentsReassembled, 4000, 4},
		{natlab.FragmentsDropped, 256, 0},
	} {
		pieces := cut(packetUDP(a5000, x1, strings.Repeat("x", c.size-8)), c.size/4)
		slices.Reverse(pieces)
		b := newLoneBox(t, based(func(n *natlab.NAT) { n.Fragments = c.fragments }))
		var all []natlab.Sent
		for _, piece := range pieces {
			sent, _ := b.send(natlab.Inside, piece)
			all = append(all, sent...)
		}
		if len(all) != c.want {
			t.Errorf("fragments %d of a packet of %d bytes: %d of 4 pieces left", c.fragments, c.size, len(all))
		}
		if c.fragments == natlab.FragmentsReassembled {
			wellFormed(t, joined(t, all))
		}
	}
}

// Pieces of what is not let in are not either.
func TestFragmentsAreFiltered(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT()} {
		b := newLoneBox(t, box)
		m := b.mapped(a5000, x1)
		for _, piece := range cut(packetUDP(y1, m, strings.Repeat("x", 200)), 64) {
			if sent, _ := b.send(natlab.Outside, piece); len(sent) > 0 {
				t.Error("a stranger's fragment came in")
			}
		}
	}
}

// Pieces wait 30 seconds for the others, come twice, and make the packet void where
// they overlap.
func TestReassembly(t *testing.T) {
	t.Parallel()
	ip := packetUDP(a5000, x1, strings.Repeat("x", 192))
	pieces := cut(ip, 64)
	b := newLoneBox(t, natlab.Linux.NAT())
	n := func(pieces ...[]byte) (n int) {
		for _, p := range pieces {
			sent, _ := b.send(natlab.Inside, p)
			n += len(sent)
		}
		return n
	}
	if got := n(pieces[0], pieces[0], pieces[2], pieces[2], pieces[1], pieces[3]); got != 1 {
		t.Errorf("%d packets left, with some pieces twice", got)
	}
	n(pieces[:3]...)
	b.wait(31 * time.Second)
	if got := n(pieces[3]); got != 0 {
		t.Errorf("%d pieces left after 31 s", got)
	}
	b.wait(31 * time.Second)
	overlapping := cut(ip, 32)
	if got := n(pieces[0], overlapping[1], pieces[1], pieces[2], pieces[3]); got != 0 {
		t.Errorf("%d pieces left of overlapping ones", got)
	}
}

// Fragments of many packets do not add up.
func TestFragmentsAreForgotten(t *testing.T) {
	t.Parallel()
	for _, box := range []natlab.NAT{plainBox, natlab.Linux.NAT()} {
		b := newLoneBox(t, box)
		for i := range 5000 {
			piece := cut(packetUDP(a5000, x1, strings.Repeat("x", 100)), 64)[0]
			piece[4], piece[5] = byte(i>>8), byte(i)
			b.Translate(b.now, natlab.Inside, piece, nil)
		}
	}
}
