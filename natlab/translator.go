package natlab

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"bodkin/nat"
)

// Translator is a box at work. It has no I/O, clock or goroutine: time is an
// argument. It is not safe for concurrent use.
//
// Who calls it is the router around it: it takes one off the TTL of what comes
// from inside before, and of what goes in after translation; it answers for the
// box's addresses inside; and it carries what is Sent to whom it is for.
type Translator struct {
	nat     NAT
	outside []netip.Addr // IPv4 only
	own     [][16]byte   // all addresses outside
	inside  []netip.Prefix
	r       *rand.Rand

	base time.Time // of now
	now  int64

	expiries expiries
	hosts    map[[16]byte]int // sessions of each host inside
	total    int              // sessions

	mapper    mapper
	tracker   tracker
	held      []heldSYN
	fragments fragments
	forwards  forwards
	busy      int64 // when the next of the other hosts' mappings is due
}

// reset forgets everything.
func (t *Translator) reset(outside []netip.Addr) {
	if t.r == nil {
		t.r = rand.New(rand.NewPCG(1, 1))
	}
	t.outside, t.own = nil, nil
	for _, a := range outside {
		if a = a.Unmap(); a.Is4() {
			t.outside = append(t.outside, a)
		}
		t.own = append(t.own, key(a))
	}
	t.expiries, t.held, t.total, t.busy = nil, nil, 0, -1
	t.hosts = make(map[[16]byte]int)
	t.mapper.reset()
	t.tracker.reset()
	t.fragments.reset()
	t.forwards.reset()
}

// Reboot loses all state, and gives the box other addresses outside if outside
// is not nil.
func (t *Translator) Reboot(now time.Time, outside []netip.Addr) {
	t.advance(now)
	if outside == nil {
		for _, a := range t.own {
			outside = append(outside, netip.AddrFrom16(a).Unmap())
		}
	}
	t.reset(outside)
}

// Translate takes a packet that came to the box from a side, and appends what
// leaves the box, to either side. The packet may be changed in place and is what
// is sent, if not dropped; the box's own answers are new. The box's TTL is the
// caller's business.
func (t *Translator) Translate(now time.Time, from Side, ip []byte, out []Sent) ([]Sent, Verdict) {
	t.advance(now)
	v, ok := look(ip, false)
	if !ok {
		return out, Verdict{Drop, Malformed}
	}
	if v.fragmented() && t.nat.tracks() {
		return t.fragment(from, v, out)
	}
	return t.whole(from, v, out)
}

// whole translates a packet that is none of several fragments, or the first.
func (t *Translator) whole(from Side, v view, out []Sent) ([]Sent, Verdict) {
	if t.nat.Block.blocks(v, from) {
		return out, Verdict{Drop, BlockedProtocol}
	}
	if out, ok := t.forward(from, v, out); ok {
		return out, Verdict{Action: Translate}
	}
	switch {
	case !t.nat.tracks() && from == Outside && t.isOwn(v.dst.addr):
		return t.refuse(v, ForBox, out)
	case !t.nat.tracks():
		return append(out, Sent{To: from.other(), Data: v.b}), Verdict{}
	case t.nat.Conntrack:
		return t.track(from, v, out)
	case v.icmp == icmpError:
		return t.icmpError(from, v, out)
	case from == Outside:
		return t.inward(v, out)
	case t.isOwn(v.dst.addr):
		return t.hairpin(v, out)
	}
	return t.outward(v, out)
}

// Tick does what is due without a packet, and appends what leaves the box. It
// wants to be called again at next; a zero next means not before a packet.
func (t *Translator) Tick(now time.Time, out []Sent) (_ []Sent, next time.Time) {
	t.advance(now)
	out = t.answerHeld(out)
	if len(t.held) > 0 {
		next = t.base.Add(time.Duration(t.held[0].until))
	}
	return out, next
}

// advance is what every call begins with: mappings expire, and other hosts make
// theirs. Time does not run backwards.
func (t *Translator) advance(now time.Time) {
	if t.base.IsZero() {
		t.base = now
	}
	t.now = max(t.now, int64(now.Sub(t.base)))
	t.others()
	t.expire()
}

func (t *Translator) expire() {
	for e := t.expiries.next(t.now); e != nil; e = t.expiries.next(t.now) {
		e.owner.expire(t)
	}
}

// Mappings is a snapshot of the box's state, in order.
func (t *Translator) Mappings(now time.Time) []Mapping {
	t.advance(now)
	var out []Mapping
	if t.nat.Conntrack {
		out = t.tracker.mappings(t.base)
	} else {
		out = t.mapper.mappings(t.base)
	}
	slices.SortFunc(out, func(a, b Mapping) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Inside.Compare(b.Inside),
			a.Outside.Compare(b.Outside), a.Remote.Compare(b.Remote))
	})
	return out
}

func (s Side) other() Side { return Outside - s }

func (t *Translator) isOwn(a [16]byte) bool { return slices.Contains(t.own, a) }

// isInside reports whether an address is of a network inside.
func (t *Translator) isInside(a [16]byte) bool {
	return slices.ContainsFunc(t.inside, func(p netip.Prefix) bool { return p.Contains(netip.AddrFrom16(a).Unmap()) })
}

// room is whether a host inside may begin another session.
func (t *Translator) room(host [16]byte) (Reason, bool) {
	box := t.nat.Limits.Box
	if box == 0 {
		box = defaultSessions
	}
	switch limit := t.nat.Limits.Host; {
	case t.total >= box:
		return BoxLimit, false
	case limit > 0 && t.hosts[host] >= limit:
		return HostLimit, false
	}
	return "", true
}

// defaultSessions is what a box remembers if nothing else is said.
const defaultSessions = 65536

// count counts sessions of a host inside.
func (t *Translator) count(host [16]byte, n int) {
	t.total += n
	if t.hosts[host] += n; t.hosts[host] == 0 {
		delete(t.hosts, host)
	}
}

// blocks reports whether a packet's protocol is blocked.
func (b Block) blocks(v view, from Side) bool {
	switch v.protocol {
	case ProtocolUDP:
		return b.UDP
	case ProtocolTCP:
		remote := v.dst.port
		if from == Outside {
			remote = v.src.port
		}
		return b.TCP && (b.TCPBut == 0 || remote != b.TCPBut)
	case ProtocolICMP, ProtocolICMPv6:
		return b.ICMP
	}
	return false
}

// behavior is how a packet's protocol is mapped and filtered.
func (t *Translator) behavior(v view) (mapping, filtering nat.Behavior) {
	mapping, filtering = t.nat.Mapping, t.nat.Filtering
	switch v.protocol {
	case ProtocolTCP:
		mapping, filtering = t.nat.tcp()
	case ProtocolICMP, ProtocolICMPv6:
		// A query has nothing but its identifier (RFC 5508 REQ-1).
		mapping = min(mapping, nat.EndpointIndependent)
	}
	if v.v6 {
		mapping = nat.None
	}
	return mapping, filtering
}
