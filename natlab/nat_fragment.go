package natlab

import (
	"encoding/binary"
	"slices"
	"time"
)

// fragments is what a box knows of packets in pieces, the oldest first.
type fragments struct {
	seen    []fragmented // those whose first piece has passed
	waiting []pieces     // those that are not whole
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

func (f *fragments) reset() { f.seen, f.waiting = nil, nil }

// fragment is what a box does with a piece of a packet.
func (t *Translator) fragment(from Side, v view, out []Sent) ([]Sent, Verdict) {
	switch t.nat.Fragments {
	case FragmentsReassembled:
		return t.reassemble(from, v, out)
	case FragmentsDropped:
		return out, Verdict{Drop, FragmentsBlocked}
	case FragmentsInOrder:
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

// pieces are what has come of a packet, in order.
type pieces struct {
	key   fragmentKey
	all   []view
	until int64
}

// maxPieces are as many as a packet of 64 KiB has at the least MTU of IPv6.
const maxPieces = 64

// reassemble keeps pieces until the packet is whole; then they leave as they
// came, with what has changed. Pieces that overlap make the packet void (RFC
// 5722, and Linux does the same in IPv4).
func (t *Translator) reassemble(from Side, v view, out []Sent) ([]Sent, Verdict) {
	f := &t.fragments
	f.waiting = slices.DeleteFunc(f.waiting, func(x pieces) bool { return x.until <= t.now })
	k := fragmentKey{from, v.src.addr, v.dst.addr, v.protocol, v.fragment}
	i := slices.IndexFunc(f.waiting, func(x pieces) bool { return x.key == k })
	if i < 0 {
		if len(f.waiting) >= maxFragmented {
			f.waiting = slices.Delete(f.waiting, 0, 1)
		}
		i = len(f.waiting)
		f.waiting = append(f.waiting, pieces{key: k, until: t.now + int64(fragmentTime)})
	}
	p := &f.waiting[i]
	v.b = slices.Clone(v.b)
	at, again := slices.BinarySearchFunc(p.all, v.offset, func(x view, offset int) int { return x.offset - offset })
	if again && len(p.all[at].b) == len(v.b) {
		return out, Verdict{Hold, FragmentHeld} // the same once more
	}
	p.all = slices.Insert(p.all, at, v)
	whole, ok := p.whole()
	switch {
	case !ok || len(p.all) > maxPieces:
		f.waiting = slices.Delete(f.waiting, i, i+1)
		return out, Verdict{Drop, Malformed}
	case whole == nil:
		return out, Verdict{Hold, FragmentHeld}
	}
	all := p.all
	f.waiting = slices.Delete(f.waiting, i, i+1)
	packet, ok := look(whole, false)
	if !ok {
		return out, Verdict{Drop, Malformed}
	}
	return t.reassembled(from, packet, all, out)
}

// whole is the packet that the pieces make, nil if one is missing; not ok if it
// can be none.
func (p *pieces) whole() (packet []byte, ok bool) {
	end := 0
	complete := p.all[0].offset == 0
	for i, x := range p.all {
		switch last := i == len(p.all)-1; {
		case x.length() == 0, x.offset < end, x.more && x.length()%8 != 0, !x.more && !last, x.offset+x.length() > 65535:
			return nil, false
		case x.offset > end, last && x.more:
			complete = false
		}
		end = x.offset + x.length()
	}
	if !complete {
		return nil, true
	}
	first := p.all[0]
	packet = append(packet, first.b[:first.fragmentAt]...)
	for _, x := range p.all {
		packet = append(packet, x.b[x.transportAt:]...)
	}
	if len(packet) > 65535 {
		return nil, false
	}
	if first.v6 {
		packet[first.chainAt] = first.protocol
		binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-40))
		return packet, true
	}
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	packet[6], packet[7] = p.unfragmented(), 0
	packet[10], packet[11] = 0, 0
	binary.BigEndian.PutUint16(packet[10:], checksum(packet[:first.fragmentAt], 0))
	return packet, true
}

// dontFragment is the bit in the seventh byte of IPv4's header.
const dontFragment = 0x40

// unfragmented is that bit for the whole packet: it is what the largest piece has,
// of which the sender knew that it fits (ip_frag_reasm).
func (p *pieces) unfragmented() byte {
	most, bit := 0, byte(0)
	for _, x := range p.all {
		switch size := len(x.b); {
		case size > most:
			most, bit = size, x.b[6]&dontFragment
		case size == most:
			bit |= x.b[6] & dontFragment
		}
	}
	return bit
}

// length is how many bytes of the packet a piece carries.
func (v *view) length() int { return len(v.b) - v.transportAt }

// linkMTU is that of the links of a lab.
const linkMTU = 1500

// reassembled passes a whole packet on: of IPv4 as it is, if it fits the link, as
// Linux does, and otherwise in the pieces in which it came, which may be cut
// further then.
func (t *Translator) reassembled(from Side, packet view, all []view, out []Sent) ([]Sent, Verdict) {
	n := len(out)
	out, verdict := t.whole(from, packet, out)
	if len(out) == n || out[n].Own || !packet.v6 && len(packet.b) <= linkMTU {
		return out, verdict
	}
	now, to := out[n].Data, out[n].To
	out = out[:n]
	for _, x := range all {
		copy(x.b[x.transportAt:], now[all[0].fragmentAt+x.offset:])
		if !x.v6 {
			copy(x.b[12:20], now[12:20])
			x.b[6] &^= dontFragment
			x.b[10], x.b[11] = 0, 0
			binary.BigEndian.PutUint16(x.b[10:], checksum(x.b[:x.transportAt], 0))
		}
		out = append(out, Sent{To: to, Data: x.b})
	}
	return out, verdict
}
