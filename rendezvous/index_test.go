package rendezvous

import (
	"testing"

	"bodkin/peer"
)

// Chains hold, whichever of its links goes: siblings of an ID, and, as here, others
// whose hash is the same.
func TestIndexChains(t *testing.T) {
	t.Parallel()
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		x := newIndex()
		ids := []peer.ID{testKey(1).ID(), testKey(1).ID(), testKey(2).ID()}
		var all []*registration
		for i, id := range ids {
			g := &registration{id: id, instance: uint64(i + 1)}
			x.add(g)
			all = append(all, g)
		}
		// As if both IDs had one hash.
		first, second := x.hash(ids[0][:]), x.hash(ids[2][:])
		all[2].sibling = x.byID[first]
		x.byID[first] = all[2]
		delete(x.byID, second)
		all[2].id = ids[0]
		for i, gone := range order {
			if g := x.find(ids[0], uint64(gone+1)); g != all[gone] {
				t.Fatalf("%v: number %d is not found", order, gone)
			}
			if x.find(testKey(3).ID(), uint64(gone+1)) != nil {
				t.Fatalf("%v: found under another ID", order)
			}
			x.remove(all[gone])
			left := 0
			for range x.of(ids[0]) {
				left++
			}
			if left != 2-i {
				t.Fatalf("%v: %d left after %d", order, left, i+1)
			}
		}
		if len(x.byID) > 0 {
			t.Errorf("%v: entries are left", order)
		}
	}
}

// A source whose hash leads to somebody else's registration is nobody's.
func TestIndexComparesTheWholeSource(t *testing.T) {
	t.Parallel()
	x := newIndex()
	g := &registration{}
	at, other := ap("192.0.2.1:1"), ap("192.0.2.2:1")
	g.legs[0].place = placeOf(at)
	x.settle(g, g.legs[0])
	p := placeOf(other)
	x.bySource[x.hash(p[:])] = g
	if x.source(0, at) != g || x.source(0, other) != nil || x.source(1, at) != nil {
		t.Error("a hash passed for a source")
	}
}
