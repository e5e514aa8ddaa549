package conform

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"bodkin/natlab"
)

// The types of ICMP that are sent (RFC 792).
const (
	echoReply    = 0
	unreachable  = 3
	echo         = 8
	timeExceeded = 11
)

// icmp sends a message, and finds it where it should arrive: a query by the data
// in it.
func (s *suite) icmp(from Host, kind uint8, id uint16, to netip.Addr, at Host) (Arrival, bool) {
	data := s.token()
	message := append([]byte{kind, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, data...)
	return s.arrives(at, func() {
		check(from.SendIP(natlab.AppendICMP(nil, from.Addr(), to, 64, message)))
	}, func(a Arrival) bool {
		b := body(a.Data)
		return a.Protocol == natlab.ProtocolICMP && len(b) > 8 && b[0] == kind && bytes.Equal(b[8:], data)
	})
}

// identifier is that of a query.
func identifier(a Arrival) uint16 { return binary.BigEndian.Uint16(body(a.Data)[4:]) }

func (s *suite) measureICMP(m *ICMP) {
	id := s.next()
	query, ok := s.icmp(s.in[0], echo, id, s.out[0].Addr(), s.out[0])
	if m.Passes = ok; !ok {
		return
	}
	_, m.TypeAgnostic = s.icmp(s.out[0], echo, identifier(query), query.From.Addr(), s.in[0])
	_, m.StrangersReplies = s.icmp(s.out[1], echoReply, identifier(query), query.From.Addr(), s.in[0])
	m.Errors = s.errors()
	if !s.plain() {
		ping := s.next()
		_, m.Pings = s.arrives(s.out[1], func() {
			_, _ = s.icmp(s.out[1], echo, ping, s.outside, s.in[0])
		}, func(a Arrival) bool {
			b := body(a.Data)
			return a.From.Addr() == s.outside && len(b) > 8 && b[0] == echoReply && identifier(a) == ping
		})
		m.Refusal = s.refusalICMP()
	}
	leak, ok := s.icmp(s.in[0], echoReply, s.next(), s.out[1].Addr(), s.out[1])
	m.Leaks = ok && leak.From.Addr() == s.in[0].Addr()
}

// plain reports whether strangers may ping who is inside. What such a router does
// with what is for itself is not the business of a NAT.
func (s *suite) plain() bool {
	_, ok := s.icmp(s.out[1], echo, s.next(), s.in[0].Addr(), s.in[0])
	return ok
}

// refusalICMP is what answers a reply that nobody has asked for.
func (s *suite) refusalICMP() natlab.Refusal {
	_, refused := s.arrives(s.out[1], func() {
		_, _ = s.icmp(s.out[1], echoReply, s.next(), s.outside, s.in[0])
	}, isUnreachable)
	if refused {
		return natlab.RefuseWithError
	}
	return natlab.RefuseSilently
}

// errors is whose errors about a packet from inside come in (RFC 5508 §4).
func (s *suite) errors() natlab.Errors {
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	data := s.token()
	to := endpoint(s.out[0], q)
	a, ok := s.arrives(s.out[0], func() { check(s.in[0].Send(p, to, data)) }, carries(data))
	inside, seen := endpoint(s.in[0], p), []byte(nil)
	if ok {
		seen = natlab.AppendUDP(nil, a.From, to, 64, data)
	} else {
		query, _ := s.icmp(s.in[0], echo, p, s.out[0].Addr(), s.out[0])
		inside, seen = netip.AddrPortFrom(s.in[0].Addr(), 0), query.Data
	}
	if len(seen) < 20 {
		return natlab.ErrorsNone
	}
	comes := func(h Host, kind, code uint8) bool {
		message := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, seen...)
		mapped := netip.AddrFrom4([4]byte(seen[12:]))
		_, ok := s.arrives(s.in[0], func() {
			check(h.SendIP(natlab.AppendICMP(nil, h.Addr(), mapped, 64, message)))
		}, func(a Arrival) bool {
			b := body(a.Data)
			if a.Protocol != natlab.ProtocolICMP || len(b) < 8 || b[0] != kind || a.From.Addr() != h.Addr() {
				return false
			}
			about, ok := natlab.ParsePacket(b[8:])
			return ok && about.From == inside
		})
		return ok
	}
	switch {
	case comes(s.out[1], timeExceeded, 0):
		return natlab.ErrorsMapped
	case comes(s.out[0], unreachable, 3):
		return natlab.ErrorsFromPeer
	}
	return natlab.ErrorsNone
}
