package nat

import (
	"fmt"
	"net/netip"

	"bodkin/internal/wire"
)

// filterStudy finds out whose packets come in (RFC 5780 §4.4): sockets that sent to
// one endpoint of the server ask to be answered from others.
type filterStudy struct {
	first  []*query // of the sockets of IPv6; those of IPv4 are in the first burst
	opener *query   // IPv6: of a socket that sends to the other port, for the control
	port   []*query // to be answered from the other port
	both   []*query // from the other address and port
	// control is the same where the way was opened before: silence is the filter's
	// and not the server's.
	control []*query
	done    bool
}

// filterTries leave one of 20,000 socket's trials without a packet at the filter
// where a tenth is lost each way; and there are two sockets.
const filterTries = 6

// studyFilter goes on with a family's.
func (m *Measurement) studyFilter(family int) {
	s, study := &m.servers[family], &m.filter[family]
	finding, mapping := &m.report.Filtering, m.report.Mapping.Value
	if family == v6 {
		finding, mapping = &m.report.IPv6.Filtering, None
	}
	var first []*query
	var opener *query
	switch {
	case study.done || !s.known:
		return
	case !s.port.IsValid():
		find(m, finding, Unknown, "the server has no second endpoint to send from")
		study.done = true
		return
	case family == v6:
		first, opener = study.first[1:], study.opener
	default:
		first, opener = m.mapping.first[filterSocket:], m.asked(m.mapping.sockets[mappingSocket], s.port)
	}
	m.askFromElsewhere(s, study, first)
	// Where the opener has another mapping towards the other port, it proves nothing.
	if opener.ok() && len(study.control) == 0 && (mapping == None || mapping == EndpointIndependent) {
		study.control = append(study.control, m.query(opener.socket, s.at, ask{
			request: wire.BindingRequest{ChangePort: true}, from: s.changed(), tries: filterTries, steady: true,
		}))
	}
	if !m.settled(first) || opener != nil && !opener.over() || family == v4 && !m.mapping.done {
		return
	}
	m.concludeFilter(study, finding, mapping)
}

// askFromElsewhere begins the trials of sockets whose own way is open.
func (m *Measurement) askFromElsewhere(s *server, study *filterStudy, first []*query) {
	for _, q := range first {
		if !q.ok() || askedBy(study.port, q.socket) != nil {
			continue
		}
		study.port = append(study.port, m.query(q.socket, s.at, ask{
			request: wire.BindingRequest{ChangePort: true}, from: s.changed(), tries: filterTries, steady: true,
		}))
		if s.both.IsValid() {
			study.both = append(study.both, m.query(q.socket, s.at, ask{
				request: wire.BindingRequest{ChangeIP: true, ChangePort: true}, from: s.both, tries: filterTries, steady: true,
			}))
		}
	}
}

// changed is where answers come from that were to come from another port. A server
// of several may take any.
func (s *server) changed() netip.AddrPort {
	if s.both.IsValid() {
		return s.port
	}
	return netip.AddrPortFrom(s.at.Addr(), 0)
}

// concludeFilter says what is to be said when it can be.
func (m *Measurement) concludeFilter(study *filterStudy, finding *Finding[Behavior], mapping Behavior) {
	if len(study.port) == 0 { // the ways were not open: all packets were lost
		find(m, finding, Unknown, "too many packets were lost")
		study.done = true
		return
	}
	arrived := func(queries []*query) *query {
		for _, q := range queries {
			if q.ok() {
				return q
			}
		}
		return nil
	}
	from := func(what string) string {
		return "an answer arrived from the server's other " + what + ", which was not sent to"
	}
	say := func(b Behavior, evidence ...string) {
		find(m, finding, b, evidence...)
		m.settleBut(study.port, -1)
		m.settleBut(study.both, -1)
		study.done = true
	}
	one := "the server has one address: whether any other may send cannot be told"
	if arrived(study.both) != nil {
		if mapping == None {
			say(None, from("address"))
			return
		}
		say(EndpointIndependent, from("address"))
		return
	}
	if !m.settled(study.port) || !m.settled(study.both) || !m.settled(study.control) {
		return
	}
	none := fmt.Sprintf("%d requests from %d sockets for answers from another port remained without one", sent(study.port), len(study.port))
	elsewhere := fmt.Sprintf("%d for answers from another address did, too", sent(study.both))
	switch control := study.control; {
	case refusedBy(study.port):
		say(Unknown, "the server refuses to answer from another port")
	case arrived(study.port) != nil && len(study.both) == 0:
		say(AddressDependent, from("port"), one)
	case arrived(study.port) != nil && refusedBy(study.both):
		say(AddressDependent, from("port"), "the server refuses to answer from its other address")
	case arrived(study.port) != nil:
		say(AddressDependent, from("port"), elsewhere)
	case len(control) > 0 && !control[0].ok():
		say(Unknown, none, "nor did the server where the way was open: it does not answer from another port")
	case len(control) > 0:
		say(AddressAndPortDependent, none, "where the way had been opened before, an answer from there arrived")
	case mapping == None || mapping == EndpointIndependent || mapping == Unknown:
		say(Unknown, none, "but whether the server sends them is not known")
	default:
		say(AddressAndPortDependent, none)
	}
}

func sent(queries []*query) (n int) {
	for _, q := range queries {
		n += q.sent
	}
	return n
}

func refusedBy(queries []*query) bool {
	for _, q := range queries {
		if q.state == refused {
			return true
		}
	}
	return false
}

func askedBy(queries []*query, s *socket) *query {
	for _, q := range queries {
		if q.socket == s {
			return q
		}
	}
	return nil
}
