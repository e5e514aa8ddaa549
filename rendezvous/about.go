package rendezvous

import (
	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

func (g *registration) is(flag uint32) bool { return g.flags&uint8(flag) != 0 }

// accepts reports whether introductions to the ID go to this process.
func (g *registration) accepts() bool {
	return g.is(wire.FlagAccepting) && !g.is(wire.FlagDisplaced)
}

// allows reports whether one of the asker's tags is among the node's. Nothing
// that the asker can see depends on how long this takes: at most MaxTags
// comparisons, much less than sealing the answer.
func (g *registration) allows(tags []wire.Tag) bool {
	if g.is(wire.FlagOpen) {
		return true
	}
	for own := g.about[g.described:]; len(own) >= wire.TagSize; own = own[wire.TagSize:] {
		for i := range tags {
			if own[:wire.TagSize] == string(tags[i][:]) {
				return true
			}
		}
	}
	return false
}

func (g *registration) description() []byte { return []byte(g.about[:g.described]) }

// apply takes over what a node says of itself.
func (r *Registry) apply(g *registration, reg wire.Registration) {
	if g.about[:g.described] != string(reg.Description) {
		g.revision++
	}
	about := append(make([]byte, 0, len(reg.Description)+len(reg.Tags)*wire.TagSize), reg.Description...)
	for i := range reg.Tags {
		about = append(about, reg.Tags[i][:]...)
	}
	if g.about != string(about) {
		g.about = string(about)
	}
	g.described = uint16(len(reg.Description))
	g.setFlags(wire.FlagOpen, reg.Flags)
	switch {
	case reg.Flags&wire.FlagAccepting == 0:
		// So it knows if it was displaced, and may take the place back later.
		g.setFlags(wire.FlagAccepting|wire.FlagDisplaced, 0)
	case !g.is(wire.FlagAccepting):
		r.displace(r.acceptor(g.id))
		g.setFlags(wire.FlagAccepting, wire.FlagAccepting)
	default:
		// It goes on, or has not heard yet that another process took its place.
	}
}

func (g *registration) setFlags(which, to uint32) {
	g.flags = g.flags&^uint8(which) | uint8(to&which)
}

// displace tells a process that a newer one accepts in its place. The newcomer
// never waits: the old process may be dead, and its registration still fresh.
// Should the notice be lost, the next answer to a Refresh says it too.
func (r *Registry) displace(old *registration) {
	if old == nil {
		return
	}
	old.setFlags(wire.FlagDisplaced, wire.FlagDisplaced)
	var content wire.Attrs
	content.AddUint32(wire.AttrFlags, wire.FlagDisplaced)
	var id wire.TransactionID
	r.draw(id[:])
	r.reply(old, stun.NewType(wire.Notice, stun.ClassIndication), id, 0, content)
}
