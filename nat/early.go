package nat

import (
	"fmt"
	"net/netip"
)

// earlyStudy finds out what becomes of a mapping to which a stranger has sent
// before its own socket sends to that stranger: on Linux whose INPUT chain accepts
// it moves, for the stranger's packet has taken the port towards him.
type earlyStudy struct {
	toStranger []*query
	done       bool
}

// studyEarly lets the sockets that tried the filter send to the endpoint whose
// packets it kept out.
func (m *Measurement) studyEarly() {
	study, s, f := &m.early, &m.servers[v4], &m.report.KeepsEarly
	say := func(a Answer, evidence ...string) {
		find(m, f, a, evidence...)
		study.done = true
	}
	switch {
	case study.done || !m.mapping.done || !m.filter[v4].done:
		return
	case m.report.Mapping.Value == None:
		say(No, "nothing is translated, so nothing can move")
		return
	case m.report.Mapping.Value != EndpointIndependent:
		say(NotMeasured, "each destination has a port of its own, or that is not known")
		return
	}
	var stranger netip.AddrPort
	switch m.report.Filtering.Value {
	case None, EndpointIndependent:
		say(No, "a stranger's packets arrive")
		return
	case AddressDependent:
		stranger = s.both
	case AddressAndPortDependent:
		stranger = s.port
	default:
	}
	tried := m.filter[v4].port
	if !stranger.IsValid() {
		if m.report.Filtering.Value == AddressDependent {
			say(NotMeasured, "the server has one address, and what comes from there arrives")
		} else {
			say(NotMeasured, "the server sends nothing from elsewhere")
		}
		return
	}
	if len(study.toStranger) == 0 {
		for _, q := range tried {
			study.toStranger = append(study.toStranger, m.query(q.socket, stranger, ask{}))
		}
	}
	if !m.settled(study.toStranger) {
		return
	}
	var seen, moved int
	var evidence []string
	for _, q := range study.toStranger {
		before := m.asked(q.socket, s.at)
		if !q.ok() || !before.ok() {
			continue
		}
		seen++
		if q.answer.Mapped == before.answer.Mapped {
			continue
		}
		moved++
		evidence = append(evidence, fmt.Sprintf("%v had sent to %v unasked; the mapping towards it was %v then", stranger, before.answer.Mapped, q.answer.Mapped))
	}
	switch {
	case seen == 0:
		say(NotMeasured, "too many packets were lost")
	case moved == 0:
		say(No, fmt.Sprintf("%v had sent to %d mappings unasked; none moved", stranger, seen))
	case moved == seen && seen > 1:
		say(Yes, evidence...)
	default:
		say(NotMeasured, append(evidence, fmt.Sprintf("but only %d of %d mappings moved", moved, seen))...)
	}
}
