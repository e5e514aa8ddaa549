package natlab

import (
	"time"

	"bodkin/nat"
)

// touch is what a packet does to the times of its mapping and session. The
// session is nil for a stranger that was let in.
func (t *Translator) touch(m *mapping, s *session, from Side, v view) {
	if v.protocol == ProtocolTCP {
		t.segment(s, from, v.flags())
		return
	}
	m.replied = m.replied || from == Outside
	refresh := t.nat.UDP.Refresh == RefreshBoth || t.nat.UDP.Refresh == RefreshInbound && from == Outside ||
		t.nat.UDP.Refresh == RefreshOutbound && from == Inside
	if refresh || v.protocol != ProtocolUDP {
		m.last = t.now
	}
	t.expiries.set(&m.expiry, m.last+t.idle(v.protocol, m.replied))
	if s != nil {
		s.replied = s.replied || from == Outside
		if refresh || v.protocol != ProtocolUDP {
			s.last = t.now
		}
		t.expiries.set(&s.expiry, s.last+t.idle(v.protocol, s.replied))
	}
}

// idle is how long a mapping lives without packets; of TCP see segment.
func (t *Translator) idle(protocol uint8, replied bool) int64 {
	switch {
	case protocol == ProtocolICMP || protocol == ProtocolICMPv6:
		return int64(or(t.nat.ICMP.Timeout, 60*time.Second))
	case replied:
		return int64(or(t.nat.UDP.Replied, defaultUDP))
	}
	return int64(or(t.nat.UDP.Unreplied, defaultUDP))
}

// defaultUDP is the timeout that RFC 4787 REQ-5 recommends.
const defaultUDP = 5 * time.Minute

func (t *Translator) newMapping(k mapKey, out endpoint) *mapping {
	m := pop(&t.mapper.freeMappings)
	o := outKey{k.protocol, out}
	*m = mapping{key: k, out: out, older: t.mapper.byOutside[o], last: t.now}
	t.mapper.byInside[k], t.mapper.byOutside[o] = m, m
	m.place = -1
	if k.protocol != ProtocolTCP { // whose mappings live as long as their sessions
		t.expiries.add(&m.expiry, t.now+t.idle(k.protocol, false), m)
	}
	return m
}

func (t *Translator) newSession(m *mapping, remote endpoint) *session {
	s := pop(&t.mapper.freeSessions)
	*s = session{mapping: m, remote: remote, next: m.sessions, last: t.now}
	if m.sessions != nil {
		m.sessions.previous = s
	}
	m.sessions = s
	t.mapper.sessions[sessionKey{m, remote}] = s
	if t.filtersAddresses() {
		t.mapper.peers[sessionKey{m, remote.any()}]++
	}
	t.count(m.key.in.addr, 1)
	t.expiries.add(&s.expiry, t.now+t.idle(m.key.protocol, false), s)
	return s
}

// expire of the last session of TCP takes the mapping along.
func (s *session) expire(t *Translator) { t.endSession(s) }

func (m *mapping) expire(t *Translator) { t.endMapping(m) }

func (t *Translator) endSession(s *session) {
	m := s.mapping
	t.unlink(s)
	if m.sessions == nil && m.key.protocol == ProtocolTCP {
		t.endMapping(m)
	}
}

// unlink forgets a session.
func (t *Translator) unlink(s *session) {
	m := s.mapping
	t.expiries.remove(&s.expiry)
	if s.previous == nil {
		m.sessions = s.next
	} else {
		s.previous.next = s.next
	}
	if s.next != nil {
		s.next.previous = s.previous
	}
	delete(t.mapper.sessions, sessionKey{m, s.remote})
	if t.filtersAddresses() {
		peer := sessionKey{m, s.remote.any()}
		if t.mapper.peers[peer]--; t.mapper.peers[peer] == 0 {
			delete(t.mapper.peers, peer)
		}
	}
	t.count(m.key.in.addr, -1)
	*s = session{}
	t.mapper.freeSessions = append(t.mapper.freeSessions, s)
}

// endMapping forgets a mapping and its sessions.
func (t *Translator) endMapping(m *mapping) {
	for m.sessions != nil {
		t.unlink(m.sessions)
	}
	t.expiries.remove(&m.expiry)
	if m.other {
		t.count(m.key.in.addr, -1)
	} else {
		delete(t.mapper.byInside, m.key)
	}
	o := outKey{m.key.protocol, m.out}
	switch first := t.mapper.byOutside[o]; {
	case first != m:
		for first.older != m {
			first = first.older
		}
		first.older = m.older
	case m.older != nil:
		t.mapper.byOutside[o] = m.older
	default:
		delete(t.mapper.byOutside, o)
	}
	*m = mapping{}
	t.mapper.freeMappings = append(t.mapper.freeMappings, m)
}

// filtersAddresses reports whether mapper.peers is needed.
func (t *Translator) filtersAddresses() bool {
	_, tcp := t.nat.tcp()
	return t.nat.Filtering == nat.AddressDependent || tcp == nat.AddressDependent
}

// pop takes one of the free, or makes one.
func pop[T any](free *[]*T) *T {
	n := len(*free)
	if n == 0 {
		return new(T)
	}
	x := (*free)[n-1]
	*free = (*free)[:n-1]
	return x
}

// mappings is a snapshot. A mapping without sessions has no Remote.
func (m *mapper) mappings(base time.Time) (out []Mapping) {
	for _, x := range m.byInside {
		snapshot := Mapping{
			Protocol: x.key.protocol, Inside: x.key.in.addrPort(), Outside: x.out.addrPort(),
			Expires: base.Add(time.Duration(x.at)),
		}
		if x.sessions == nil {
			out = append(out, snapshot)
		}
		for s := x.sessions; s != nil; s = s.next {
			snapshot.Remote, snapshot.Expires = s.remote.addrPort(), base.Add(time.Duration(s.at))
			out = append(out, snapshot)
		}
	}
	return out
}
