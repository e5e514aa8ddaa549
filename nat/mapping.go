package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// server is what is known of the STUN server in one address family.
type server struct {
	at    netip.AddrPort
	known bool // it has said which other endpoints it has
	// The other endpoints: of the same address, of the other address with the same
	// port, and with the other port. Not valid where there are none.
	port, address, both netip.AddrPort
}

// learn takes what the server says of its other endpoints (RFC 5780 §7.4, or
// OTHER-PORTS of a server that has one address).
func (s *server) learn(a wire.BindingAnswer) {
	s.known = true
	s.port, s.address, s.both = netip.AddrPort{}, netip.AddrPort{}, netip.AddrPort{}
	other := netip.AddrPortFrom(a.Other.Addr().Unmap(), a.Other.Port())
	switch {
	case other.IsValid() && other.Port() != 0 && other.Addr().Is4() == s.at.Addr().Is4() &&
		other.Addr() != s.at.Addr() && other.Port() != s.at.Port() && !other.Addr().IsUnspecified():
		s.port = netip.AddrPortFrom(s.at.Addr(), other.Port())
		s.address = netip.AddrPortFrom(other.Addr(), s.at.Port())
		s.both = other
	case len(a.OtherPorts) > 0 && a.OtherPorts[0] != 0 && a.OtherPorts[0] != s.at.Port():
		s.port = netip.AddrPortFrom(s.at.Addr(), a.OtherPorts[0])
	}
}

// guess is where another port of the server may be before it has said so: STUN has
// two in a row (RFC 5780 §7.4).
func (s *server) guess() netip.AddrPort {
	if s.at.Port() == 65535 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(s.at.Addr(), s.at.Port()+1)
}

const (
	// burst is how many fresh sockets ask at first, a millisecond apart.
	burst = 7
	// The parts that some of them have beside: two are compared towards several
	// endpoints, two try the filter, and two send to each other.
	mappingSocket = 0
	hairpinSocket = 2
	filterSocket  = burst - 2
)

// mappingStudy compares what sockets are mapped to towards several endpoints (RFC
// 5780 §4.3).
type mappingStudy struct {
	sockets []*socket // of the first burst
	first   []*query  // of each, to the server
	more    []*query  // to its other endpoints
	done    bool
	failed  bool // nothing is to be learnt
}

// startMapping sends a burst: the first round trip shall tell mapping and
// allocation.
func (m *Measurement) startMapping() {
	s, study := &m.servers[v4], &m.mapping
	for range burst {
		study.sockets = append(study.sockets, m.open(v4))
	}
	after := spacing * 0
	first := func(i int) {
		study.first = append(study.first, m.query(study.sockets[i], s.at, ask{request: wire.BindingRequest{OtherPorts: true}, after: after}))
		after += spacing
	}
	more := func(to netip.AddrPort, tries int) {
		if to.IsValid() {
			study.more = append(study.more, m.query(study.sockets[mappingSocket], to, ask{after: after, tries: tries}))
			after += spacing
		}
	}
	first(mappingSocket)
	if s.known {
		more(s.port, 0)
		more(s.address, 0)
	} else {
		more(s.guess(), 3) // it may well be nobody
	}
	for i := 1; i < burst; i++ {
		first(i)
	}
}

// blocked reports whether everything remained without an answer, or was refused.
func (m *Measurement) blocked() bool { return m.mapping.failed }

// studyMapping concludes what can be concluded.
func (m *Measurement) studyMapping() {
	s, study := &m.servers[v4], &m.mapping
	if study.done || len(study.first) == 0 {
		return
	}
	i := slices.IndexFunc(study.first, (*query).ok)
	switch {
	case i < 0 && !m.settled(study.first) || m.blocked():
		return
	case i < 0 && refusedBy(study.first):
		find(m, &m.report.Blocked, No, fmt.Sprintf("%v answers with an error: it is no STUN server for everyone", s.at))
		study.failed = true
		return
	case i < 0:
		find(m, &m.report.Blocked, Yes, fmt.Sprintf("%d requests from %d sockets to %v remained without an answer", sent(study.first), len(study.first), s.at))
		study.failed = true
		return
	case !m.report.Blocked.Known():
		m.learn(study.first[i])
	}
	m.compare()
}

// learn takes what the first answer says of the server, and asks its other
// endpoints.
func (m *Measurement) learn(q *query) {
	s, study := &m.servers[v4], &m.mapping
	find(m, &m.report.Blocked, No, fmt.Sprintf("%v answered after %v", s.at, q.at.Sub(q.first).Round(100*time.Microsecond)))
	s.learn(q.answer)
	for _, q := range study.more {
		switch {
		case q.to == s.port || q.to == s.address:
			q.ask.tries = usualTries
			if q.state == silent {
				q.state = asking
			}
		case s.port.IsValid() && !q.over():
			m.settle(q, silent) // a guess that was wrong
		}
	}
	for _, to := range []netip.AddrPort{s.port, s.address} {
		m.compareWith(mappingSocket, to)
	}
}

// compareWith has one of the first sockets ask another endpoint too.
func (m *Measurement) compareWith(i int, to netip.AddrPort) {
	study := &m.mapping
	if to.IsValid() && m.asked(study.sockets[i], to) == nil {
		study.more = append(study.more, m.query(study.sockets[i], to, ask{}))
	}
}

// asked is the query of a socket to an endpoint for its mapping.
func (m *Measurement) asked(s *socket, to netip.AddrPort) *query {
	for _, q := range m.mapping.first {
		if q.socket == s && q.to == to {
			return q
		}
	}
	for _, q := range m.mapping.more {
		if q.socket == s && q.to == to {
			return q
		}
	}
	return nil
}

// compare looks at one socket, and where its mapping differs at a second one, and a
// third one if they disagree: a port that somebody else has makes one socket's
// differ by chance.
func (m *Measurement) compare() {
	study := &m.mapping
	if q := study.first[mappingSocket]; q.over() && !q.ok() {
		// Its packets were lost; another takes its part.
		study.sockets[mappingSocket], study.sockets[1] = study.sockets[1], study.sockets[mappingSocket]
		study.first[mappingSocket], study.first[1] = study.first[1], study.first[mappingSocket]
		for _, to := range []netip.AddrPort{m.servers[v4].port, m.servers[v4].address} {
			m.compareWith(mappingSocket, to)
		}
	}
	b, evidence, over := m.comparison(mappingSocket)
	if b == AddressDependent || b == AddressAndPortDependent {
		m.say(b, evidence)
		if !over {
			return
		}
		with := m.servers[v4].port
		if b == AddressDependent {
			with = m.servers[v4].address
		}
		var votes int
		for i := 1; i <= 2; i++ {
			m.compareWith(i, with)
			v, more, over := m.comparison(i)
			if !over {
				return
			}
			if v != b {
				votes--
			} else {
				votes++
				evidence = append(evidence, more...)
			}
			if votes > 0 {
				break // two of two
			}
		}
		if votes < 0 {
			b, evidence, _ = m.comparison(2)
			evidence = append(evidence, "the mapping of another socket differed: somebody else had its port")
		}
	}
	if b != Unknown || over {
		m.say(b, evidence)
	}
	study.done = over
}

// say is the finding about the mapping.
func (m *Measurement) say(b Behavior, evidence []string) {
	f := &m.report.Mapping
	if f.Known() && f.Value == b && slices.Equal(f.Evidence, evidence) {
		return
	}
	find(m, f, b, evidence...)
	m.levels()
}

// comparison is what one of the first sockets says of the mapping, and whether that
// is all that it will say.
func (m *Measurement) comparison(i int) (b Behavior, evidence []string, over bool) {
	s, x := &m.servers[v4], m.mapping.sockets[i]
	first := m.asked(x, s.at)
	if !first.ok() {
		return Unknown, nil, first.over()
	}
	see := func(q *query) {
		evidence = append(evidence, fmt.Sprintf("port %d was seen as %v by %v", x.bound.Port(), q.answer.Mapped, q.to))
	}
	see(first)
	if m.isOwn(x, first.answer.Mapped) {
		return None, evidence, true
	}
	port, address := m.asked(x, s.port), m.asked(x, s.address)
	if s.known && !s.port.IsValid() {
		port = m.asked(x, s.guess())
	}
	switch {
	case port.ok() && port.answer.Mapped != first.answer.Mapped:
		see(port)
		return AddressAndPortDependent, evidence, true
	case address.ok() && address.answer.Mapped != first.answer.Mapped:
		see(address)
		return AddressDependent, evidence, port.over()
	case port.ok() && !address.over():
		see(port)
		return EndpointIndependent, append(evidence, "the server's other address has not answered yet"), false
	case !port.over() || !address.over():
		return Unknown, evidence, false
	case address.ok():
		see(address)
		return EndpointIndependent, evidence, true
	case port.ok():
		see(port)
		return EndpointIndependent, append(evidence, "the server has one address: a mapping that depends on the address cannot be told"), true
	}
	return Unknown, append(evidence, "the server has no second endpoint to compare with"), true
}

// levels says how many NATs there must be.
func (m *Measurement) levels() {
	f := &m.report.Levels
	if m.report.Mapping.Value == None {
		find(m, f, 0, "the server sees the machine's own endpoint")
		return
	}
	n, evidence := 1, []string{"the server sees another endpoint than the machine's own"}
	for _, a := range m.config.Own {
		if carrierNAT.Contains(a) {
			evidence = append(evidence, fmt.Sprintf("the machine's own address %v is of 100.64.0.0/10, which carriers use behind their NATs (RFC 6598)", a))
		}
	}
	for _, a := range m.report.Public {
		if a.IsPrivate() || carrierNAT.Contains(a) {
			n = 2
			evidence = append(evidence, fmt.Sprintf("the address %v that the server sees is not public either: unless the server is in the same network, there is another NAT", a))
		}
	}
	find(m, f, n, evidence...)
}

// carrierNAT are the addresses between a carrier's NAT and its customers (RFC 6598).
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")
