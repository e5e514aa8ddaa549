package conform

import (
	"net/netip"

	"bodkin/nat"
	"bodkin/natlab"
)

func (s *suite) measureUDP(m *UDP) {
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	if m.Passes = s.reaches(s.in[0], p, endpoint(s.out[0], q), s.out[0]); !m.Passes {
		return
	}
	// Twice: ports chosen at random may be equal by chance.
	m.Mapping = max(s.mapping(), s.mapping())
	m.Filtering = s.filtering(m.Mapping)
	m.Refusal = s.refusal(m.Mapping)
	m.Hairpinning = s.hairpinning(m.Mapping)
	m.EarlyPacketMoves = s.earlyPacketMoves(m.Mapping)
}

// mapping sends from one port to three endpoints (RFC 4787 §4.1, RFC 5780 §4.3).
func (s *suite) mapping() nat.Behavior {
	p := s.listen(s.in[0])
	q := s.listen(s.out[0])
	check(s.out[1].Listen(q))
	other := s.listen(s.out[0])
	seen := func(h Host, q uint16) netip.AddrPort {
		from, _ := s.udp(s.in[0], p, endpoint(h, q), h)
		return from
	}
	return mappingOf(endpoint(s.in[0], p), seen(s.out[0], q), seen(s.out[0], other), seen(s.out[1], q))
}

// mappingOf compares what a source became towards an endpoint, another port there
// and another address.
func mappingOf(source, first, otherPort, otherAddress netip.AddrPort) nat.Behavior {
	switch {
	case first == source:
		return nat.None
	case first != otherPort:
		return nat.AddressAndPortDependent
	case first != otherAddress:
		return nat.AddressDependent
	}
	return nat.EndpointIndependent
}

// filtering is who may send to a mapping (RFC 4787 §5, RFC 5780 §4.4). Strangers
// come first, so that nothing was opened by those before them.
func (s *suite) filtering(mapping nat.Behavior) nat.Behavior {
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	stranger, otherPort := s.listen(s.out[1]), s.listen(s.out[0])
	if mapping == nat.None && s.reaches(s.out[1], stranger, endpoint(s.in[0], p), s.in[0]) {
		return nat.None
	}
	mapped, _ := s.udp(s.in[0], p, endpoint(s.out[0], q), s.out[0])
	switch {
	case s.reaches(s.out[1], stranger, mapped, s.in[0]):
		return nat.EndpointIndependent
	case s.reaches(s.out[0], otherPort, mapped, s.in[0]):
		return nat.AddressDependent
	case s.reaches(s.out[0], q, mapped, s.in[0]):
		return nat.AddressAndPortDependent
	}
	return nat.Unknown
}

// unsolicited is an endpoint to which nobody inside has opened a way.
func (s *suite) unsolicited(translates bool) netip.AddrPort {
	if translates {
		return netip.AddrPortFrom(s.outside, s.next())
	}
	return endpoint(s.in[0], s.listen(s.in[0]))
}

// refusal is what answers a packet that is not let in.
func (s *suite) refusal(mapping nat.Behavior) natlab.Refusal {
	q := s.listen(s.out[1])
	to := s.unsolicited(mapping != nat.None)
	_, refused := s.arrives(s.out[1], func() { check(s.out[1].Send(q, to, s.token())) }, isUnreachable)
	if refused {
		return natlab.RefuseWithError
	}
	return natlab.RefuseSilently
}

// isUnreachable matches ICMP port unreachable.
func isUnreachable(a Arrival) bool {
	b := body(a.Data)
	return a.Protocol == natlab.ProtocolICMP && len(b) > 1 && b[0] == 3 && b[1] == 3
}

// hairpinning sends from one host inside to what the other is mapped to (RFC 4787
// §6). Each sends, so that filters let the other in.
func (s *suite) hairpinning(mapping nat.Behavior) natlab.Hairpinning {
	if mapping == nat.None {
		return natlab.NoHairpinning // the network inside leads there
	}
	q := s.listen(s.out[0])
	p := [2]uint16{s.listen(s.in[0]), s.listen(s.in[1])}
	var mapped [2]netip.AddrPort
	for i := range 2 {
		mapped[i], _ = s.udp(s.in[i], p[i], endpoint(s.out[0], q), s.out[0])
	}
	s.reaches(s.in[0], p[0], mapped[1], s.in[1])
	switch from, ok := s.udp(s.in[1], p[1], mapped[0], s.in[0]); {
	case !ok:
		return natlab.NoHairpinning
	case from.Addr() == s.outside:
		return natlab.ExternalSource
	}
	return natlab.InternalSource
}

// earlyPacketMoves has a stranger try a port, and then the host inside send to it
// from that port.
func (s *suite) earlyPacketMoves(mapping nat.Behavior) bool {
	if mapping != nat.EndpointIndependent {
		return false
	}
	seen := func(early bool) uint16 {
		p, q := s.listen(s.in[0]), s.listen(s.out[1])
		if early {
			s.reaches(s.out[1], q, netip.AddrPortFrom(s.outside, p), s.in[0])
		}
		from, _ := s.udp(s.in[0], p, endpoint(s.out[1], q), s.out[1])
		return from.Port() - p
	}
	return seen(false) == 0 && seen(true) != 0
}

func (s *suite) reboot() {
	check(s.lab.Reboot(s.outermost()))
}

// rebootForgets reports whether a mapping is gone with the state of the box.
func (s *suite) rebootForgets() bool {
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	mapped, _ := s.udp(s.in[0], p, endpoint(s.out[0], q), s.out[0])
	s.reboot()
	return !s.reaches(s.out[0], q, mapped, s.in[0])
}

// measureIPv6 measures mapping and filtering of IPv6.
func (s *suite) measureIPv6(m *IPv6) {
	to := func(h Host, p uint16) netip.AddrPort { return netip.AddrPortFrom(h.Addr6(), p) }
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	stranger, otherPort := s.listen(s.out[1]), s.listen(s.out[0])
	host := to(s.in[0], p)
	unasked := s.reaches(s.out[1], stranger, host, s.in[0])
	from, ok := s.udp(s.in[0], p, to(s.out[0], q), s.out[0])
	if m.Passes = ok; !ok {
		return
	}
	m.Translated = from != host
	switch {
	case unasked:
		m.Filtering = nat.None
	case s.reaches(s.out[1], stranger, host, s.in[0]):
		m.Filtering = nat.EndpointIndependent
	case s.reaches(s.out[0], otherPort, host, s.in[0]):
		m.Filtering = nat.AddressDependent
	case s.reaches(s.out[0], q, host, s.in[0]):
		m.Filtering = nat.AddressAndPortDependent
	}
}
