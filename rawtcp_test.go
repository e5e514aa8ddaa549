package bodkin

import (
	"encoding/binary"
	"testing"

	"bodkin/internal/wire"
	"bodkin/peer"
)

// A peer that asks for handovers without end leaves room for others, and for us.
func TestHandoversOfOnePeerAreBounded(t *testing.T) {
	t.Parallel()
	var h handovers
	asked := uint32(0)
	add := func(x handover) bool {
		asked++
		var token wire.Token
		binary.BigEndian.PutUint32(token[:], asked)
		return h.add(token, &x)
	}
	greedy, other := peer.ID{1}, peer.ID{2}
	for range maxHandovers {
		add(handover{peer: greedy})
	}
	if n := len(h.pending); n != handoversOfPeer {
		t.Errorf("one peer has %d, want %d", n, handoversOfPeer)
	}
	if !add(handover{peer: other}) || !add(handover{peer: greedy, asked: true}) {
		t.Error("no room for others")
	}
}
