package rendezvous

import (
	"hash/maphash"
	"net/netip"

	"bodkin/peer"
)

// index finds registrations by peer ID and by source. Its maps have eight bytes for
// a key and no more, a hash under a seed of the process's own; whoever looks
// something up compares the whole. Entries of a registry then take 16 bytes each.
type index struct {
	seed     maphash.Seed
	byID     map[uint64]*registration // the first of a chain of siblings
	bySource map[uint64]*registration // the latest with that source
	byStream map[uint16]*registration // the latest with that connection
}

func newIndex() index {
	return index{
		seed:     maphash.MakeSeed(),
		byID:     make(map[uint64]*registration),
		bySource: make(map[uint64]*registration),
		byStream: make(map[uint16]*registration),
	}
}

func (x *index) hash(b []byte) uint64 { return maphash.Bytes(x.seed, b) }

// of yields the processes of an ID.
func (x *index) of(id peer.ID) func(yield func(*registration) bool) {
	return func(yield func(*registration) bool) {
		for g := x.byID[x.hash(id[:])]; g != nil; g = g.sibling {
			if g.id == id && !yield(g) {
				return
			}
		}
	}
}

// find is the registration of a process.
func (x *index) find(id peer.ID, instance uint64) *registration {
	for g := range x.of(id) {
		if g.instance == instance {
			return g
		}
	}
	return nil
}

// acceptor is the process that takes connections for an ID, if there is one.
func (x *index) acceptor(id peer.ID) *registration {
	for g := range x.of(id) {
		if g.accepts() {
			return g
		}
	}
	return nil
}

// add takes a process in.
func (x *index) add(g *registration) {
	h := x.hash(g.id[:])
	g.sibling = x.byID[h]
	x.byID[h] = g
}

// remove forgets a process, and its sources.
func (x *index) remove(g *registration) {
	for w := range uint8(ways) {
		x.leave(g, g.leg(w))
	}
	h := x.hash(g.id[:])
	before := x.byID[h]
	switch {
	case before != g:
		for before.sibling != g {
			before = before.sibling
		}
		before.sibling = g.sibling
	case g.sibling != nil:
		x.byID[h] = g.sibling
	default:
		delete(x.byID, h)
	}
	g.sibling = nil
}

// source is the registration that has a leg there.
func (x *index) source(local int, from netip.AddrPort) *registration {
	if isStream(local) {
		return x.byStream[uint16(local)]
	}
	p := placeOf(from)
	if g := x.bySource[x.hash(p[:])]; g != nil && g.leg(way(local, from)).is(local, p) {
		return g
	}
	return nil
}

// settle makes a leg that of g.
func (x *index) settle(g *registration, l leg) {
	if isStream(int(l.local)) {
		x.byStream[l.local] = g
	} else {
		x.bySource[x.hash(l.place[:])] = g
	}
}

// leave ends that, unless somebody else has come from there by now.
func (x *index) leave(g *registration, l leg) {
	if isStream(int(l.local)) {
		if x.byStream[l.local] == g {
			delete(x.byStream, l.local)
		}
	} else if h := x.hash(l.place[:]); x.bySource[h] == g {
		delete(x.bySource, h)
	}
}
