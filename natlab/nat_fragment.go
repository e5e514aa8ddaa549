package natlab

import (
	"slices"
	"time"
)

// fragments is what a box knows of packets in pieces.
type fragments struct {
	seen []fragmented // those whose first piece has passed, the oldest first
}

// fragmented is a packet of which the first piece has passed.
type fragmented struct {
	key      fragmentKey
	src, dst endpoint // what its addresses became
	to       Side
	until    int64
}

// fragmentKey is what the pieces of a packet have in common (RFC 791 §3.2, RFC
// 8200 §4.5).
type fragmentKey struct {
	from     Side
	src, dst [16]byte
	protocol uint8
	id       uint32
}

const (
	// fragmentTime is for how long pieces are remembered, as in Linux.
	fragmentTime  = 30 * time.Second
	maxFragmented = 256
)

func (f *fragments) reset() { f.seen = nil }

// fragment is what a box does with a piece of a packet.
func (t *Translator) fragment(from Side, v view, out []Sent) ([]Sent, Verdict) {
	if t.nat.Fragments == FragmentsDropped {
		return out, Verdict{Drop, FragmentsBlocked}
	}
	return t.inOrder(from, v, out)
}

// inOrder sends the later pieces the way of the first.
func (t *Translator) inOrder(from Side, v view, out []Sent) ([]Sent, Verdict) {
	f := &t.fragments
	f.seen = slices.DeleteFunc(f.seen, func(x fragmented) bool { return x.until <= t.now })
	k := fragmentKey{from, v.src.addr, v.dst.addr, v.protocol, v.fragment}
	i := slices.IndexFunc(f.seen, func(x fragmented) bool { return x.key == k })
	if v.offset == 0 {
		n := len(out)
		out, verdict := t.whole(from, v, out)
		if len(out) == n || out[n].Own {
			return out, verdict
		}
		now, ok := look(out[n].Data, false)
		if !ok {
			return out, verdict
		}
		if i >= 0 {
			f.seen = slices.Delete(f.seen, i, i+1)
		} else if len(f.seen) >= maxFragmented {
			f.seen = slices.Delete(f.seen, 0, 1)
		}
		f.seen = append(f.seen, fragmented{k, now.src, now.dst, out[n].To, t.now + int64(fragmentTime)})
		return out, verdict
	}
	if i < 0 {
		return out, Verdict{Drop, FragmentOrphan}
	}
	way := f.seen[i]
	verdict := Verdict{}
	if !v.v6 && way.src.addr != v.src.addr {
		v.from(way.src)
		verdict.Action = Translate
	}
	if !v.v6 && way.dst.addr != v.dst.addr {
		v.to(way.dst)
		verdict.Action = Translate
	}
	if from == Inside && way.to == Inside {
		verdict.Action = Hairpin
	}
	return append(out, Sent{To: way.to, Data: v.b}), verdict
}
