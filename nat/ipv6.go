package nat

import (
	"fmt"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// startIPv6 asks from three sockets: one to be the control of the filter's trial,
// which the others make.
func (m *Measurement) startIPv6() {
	s, study := &m.servers[v6], &m.filter[v6]
	for range 3 {
		study.first = append(study.first, m.query(m.open(v6), s.at, ask{request: wire.BindingRequest{OtherPorts: true}}))
	}
}

// studyIPv6 concludes what can be concluded.
func (m *Measurement) studyIPv6() {
	s, study, r := &m.servers[v6], &m.filter[v6], &m.report.IPv6
	if study.done || len(study.first) == 0 {
		return
	}
	i := slices.IndexFunc(study.first, (*query).ok)
	switch {
	case i < 0 && m.settled(study.first):
		why := fmt.Sprintf("%d requests to %v remained without an answer", sent(study.first), s.at)
		if sent(study.first) == 0 {
			why = "the machine has no IPv6"
		}
		find(m, &r.Works, No, why)
		study.done = true
		return
	case i < 0:
		return
	case !r.Works.Known():
		q := study.first[i]
		s.learn(q.answer)
		find(m, &r.Works, Yes, fmt.Sprintf("%v answered after %v", s.at, q.at.Sub(q.first).Round(100*time.Microsecond)))
		r.Address = q.answer.Mapped.Addr()
		if m.isOwn(q.socket, q.answer.Mapped) {
			find(m, &r.Translated, No, "the server sees the machine's own endpoint")
		} else {
			find(m, &r.Translated, Yes, fmt.Sprintf("port %d was seen as %v", q.socket.bound.Port(), q.answer.Mapped))
		}
		if s.port.IsValid() {
			study.opener = m.query(study.first[0].socket, s.port, ask{})
		}
	}
	m.studyFilter(v6)
}
