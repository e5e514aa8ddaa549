package natlab

import "bodkin/nat"

// mapper is the state of a box that maps endpoints, as the RFCs describe it:
// mappings, and beneath each of them a session for every remote endpoint that
// was sent to. Filters look at sessions. A firewall maps endpoints to themselves.
type mapper struct {
	byInside  map[mapKey]*mapping
	byOutside map[outKey]*mapping
	sessions  map[sessionKey]*session
	peers     map[sessionKey]int // sessions with each address; the port is 0
	counters  map[counterKey]uint16

	freeMappings []*mapping
	freeSessions []*session
}

type mapKey struct {
	protocol   uint8
	in, remote endpoint // of remote what the mapping depends on
}

type outKey struct {
	protocol uint8
	out      endpoint
}

type sessionKey struct {
	mapping *mapping
	remote  endpoint
}

// mapping is an endpoint inside and what it is mapped to (RFC 4787 §4.1).
type mapping struct {
	expiry
	key      mapKey
	out      endpoint
	older    *mapping // with the same endpoint outside: port overloading
	sessions *session
	replied  bool
	last     int64 // when it was refreshed
	asked    uint32
	// other says that it is of a host that is not there: see NAT.Busy.
	other bool
}

// session is a mapping and a remote endpoint. That of an ICMP query has the
// request's type for a port, unless types do not matter.
type session struct {
	expiry
	mapping        *mapping
	remote         endpoint
	next, previous *session
	replied        bool
	last           int64
	tcp            tcpState
}

func (m *mapper) reset() {
	*m = mapper{
		byInside: make(map[mapKey]*mapping), byOutside: make(map[outKey]*mapping),
		sessions: make(map[sessionKey]*session), peers: make(map[sessionKey]int),
		counters: make(map[counterKey]uint16),
	}
}

// ends are a packet's endpoints as sessions know them.
func (t *Translator) ends(v view, from Side) (src, dst endpoint) {
	src, dst = v.src, v.dst
	if v.icmp == icmpRequest || v.icmp == icmpReply {
		kind := uint16(asked(v.v6, v.kind))
		if t.nat.ICMP.TypeAgnostic {
			kind = 0
		}
		src.port, dst.port = v.id, kind
		if from == Outside {
			src.port, dst.port = kind, v.id
		}
	}
	return src, dst
}

// outward translates a packet that leaves.
func (t *Translator) outward(v view, out []Sent) ([]Sent, Verdict) {
	src, dst := t.ends(v, Inside)
	mapped, verdict := t.open(v, src, dst)
	switch {
	case verdict.Action == Drop && verdict.Reason == BeginsNothing && t.nat.Leaks:
		verdict = Verdict{Forward, Leaked}
	case verdict.Action == Drop:
		return out, verdict
	case verdict.Action == Translate:
		v.from(mapped)
	}
	return append(out, Sent{To: Outside, Data: v.b}), verdict
}

// open finds or makes the mapping and session of a packet from inside, and says
// what its source becomes.
func (t *Translator) open(v view, src, dst endpoint) (endpoint, Verdict) {
	behavior, _ := t.behavior(v)
	if behavior > nat.None && !translatable(v) {
		return src, Verdict{Drop, NotTranslatable}
	}
	k := mapKey{protocol: v.protocol, in: src}
	switch behavior {
	case nat.AddressDependent:
		k.remote = dst.any()
	case nat.AddressAndPortDependent:
		k.remote = dst
	default: // whoever it is
	}
	m := t.mapper.byInside[k]
	s := t.mapper.sessions[sessionKey{m, dst}]
	verdict := Verdict{Action: Translate}
	if behavior <= nat.None {
		verdict.Action = Forward
	}
	if s == nil {
		if !t.begins(v) {
			return src, Verdict{Drop, BeginsNothing}
		}
		if why, ok := t.room(src.addr); !ok {
			return src, Verdict{Drop, why}
		}
		if m == nil {
			mapped, why, ok := src, Reason(""), true
			if behavior > nat.None {
				mapped, why, ok = t.allocate(v.protocol, src)
			}
			if !ok {
				return src, Verdict{Drop, why}
			}
			verdict.Reason = why
			m = t.newMapping(k, mapped)
		}
		s = t.newSession(m, dst)
	}
	m.asked |= askedBit(v)
	mapped := m.out
	t.touch(m, s, Inside, v)
	if v.protocol == ProtocolTCP && v.flags()&(flagSYN|flagACK) == flagSYN {
		t.forgetHeld(mapped, dst)
	}
	return mapped, verdict
}

// translatable reports whether a packet has a port or what can stand for one.
func translatable(v view) bool {
	switch v.protocol {
	case ProtocolUDP, ProtocolTCP:
		return true
	case ProtocolICMP:
		return v.icmp == icmpRequest || v.icmp == icmpReply
	}
	return false
}

// begins reports whether a packet may begin a session.
func (t *Translator) begins(v view) bool {
	switch v.protocol {
	case ProtocolTCP:
		f := v.flags() & (flagSYN | flagACK | flagRST | flagFIN)
		return f == flagSYN || t.nat.TCP.Loose && f&flagRST == 0
	case ProtocolICMP, ProtocolICMPv6:
		return v.icmp == icmpRequest || v.icmp == icmpReply && t.nat.ICMP.TypeAgnostic
	}
	return true
}

// askedBit stands for the type of a request: mapping.asked collects them.
func askedBit(v view) uint32 {
	if v.icmp == icmpRequest || v.icmp == icmpReply {
		return 1 << (asked(v.v6, v.kind) % 32)
	}
	return 0
}

// inward translates a packet that comes in.
func (t *Translator) inward(v view, out []Sent) ([]Sent, Verdict) {
	src, dst := t.ends(v, Outside)
	if !t.isOwn(dst.addr) && (!v.v6 && t.nat.Translates() || !t.isInside(dst.addr)) {
		return out, Verdict{Drop, NotOurs}
	}
	in, verdict := t.admit(v, src, dst)
	if verdict.Action == Drop {
		return t.refuse(v, verdict.Reason, out)
	}
	if verdict.Action == Translate {
		v.to(in)
	}
	return append(out, Sent{To: Inside, Data: v.b}), verdict
}

// admit finds who inside a packet is for, and filters it.
func (t *Translator) admit(v view, src, dst endpoint) (endpoint, Verdict) {
	behavior, filtering := t.behavior(v)
	m, s, why := t.find(v, filtering, src, dst)
	if m == nil {
		return dst, Verdict{Drop, why}
	}
	if v.protocol == ProtocolTCP {
		syn := v.flags()&(flagSYN|flagACK) == flagSYN
		switch {
		case s == nil && !t.begins(v):
			return dst, Verdict{Drop, BeginsNothing}
		case s != nil && syn && t.nat.TCP.NoSimultaneousOpen && s.tcp.onlyAsked():
			return dst, Verdict{Drop, NoSimultaneous}
		case s == nil:
			if why, ok := t.room(m.key.in.addr); !ok {
				return dst, Verdict{Drop, why}
			}
			s = t.newSession(m, src)
		}
	}
	in := m.key.in
	t.touch(m, s, Outside, v)
	if behavior <= nat.None {
		return in, Verdict{}
	}
	return in, Verdict{Action: Translate}
}

// find is the mapping that a packet is let in by, with its session if there is
// one.
func (t *Translator) find(v view, filtering nat.Behavior, src, dst endpoint) (*mapping, *session, Reason) {
	why := NoMapping
	var admitted *mapping
	if v.icmp == icmpRequest && !t.nat.ICMP.TypeAgnostic {
		return nil, nil, FilteredType
	}
	for m := t.mapper.byOutside[outKey{v.protocol, dst}]; m != nil; m = m.older {
		if s := t.mapper.sessions[sessionKey{m, src}]; s != nil {
			return m, s, ""
		}
		reason, ok := t.admits(m, v, filtering, src)
		if ok && admitted == nil {
			admitted = m
		}
		why = reason
	}
	if admitted == nil {
		return nil, nil, why
	}
	return admitted, nil, ""
}

// admits is whether a mapping lets in somebody with whom it has no session (RFC
// 4787 §5).
func (t *Translator) admits(m *mapping, v view, filtering nat.Behavior, src endpoint) (Reason, bool) {
	switch {
	case m.other:
		return OtherHost, false
	case v.icmp == icmpReply && !t.nat.ICMP.TypeAgnostic && m.asked&askedBit(v) == 0:
		return FilteredType, false
	case filtering == nat.AddressDependent:
		return FilteredAddress, t.mapper.peers[sessionKey{m, src.any()}] > 0
	case filtering == nat.AddressAndPortDependent:
		return FilteredPort, false
	}
	return "", true
}
