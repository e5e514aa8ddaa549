package nat

import "fmt"

// hairpinStudy sends between the mappings of two of our sockets, both ways, so that
// each opens the other's filter (RFC 4787 §6, RFC 5780 §3.4).
type hairpinStudy struct {
	across []*query
	done   bool
}

// studyHairpin begins when no more ports are counted: a mapping towards another
// mapping takes one, too.
func (m *Measurement) studyHairpin() {
	study, f := &m.hairpin, &m.report.Hairpin
	if study.done || !m.mapping.done || !m.ports.done {
		return
	}
	if m.report.Mapping.Value == None {
		find(m, f, NotMeasured, "nothing is translated")
		study.done = true
		return
	}
	if len(study.across) == 0 {
		a, b := m.mapping.first[hairpinSocket], m.mapping.first[hairpinSocket+1]
		if !a.ok() || !b.ok() {
			find(m, f, NotMeasured, "too many packets were lost")
			study.done = true
			return
		}
		for _, x := range [][2]*query{{a, b}, {b, a}} {
			study.across = append(study.across, m.query(x[0].socket, x[1].answer.Mapped, ask{
				at: x[1].socket, hairpin: true, tries: filterTries, steady: true,
			}))
		}
	}
	for i, q := range study.across {
		if q.ok() {
			find(m, f, Yes, fmt.Sprintf("a packet to our own mapping %v arrived", q.to))
			m.settleBut(study.across, i)
			study.done = true
			return
		}
	}
	if m.settled(study.across) {
		find(m, f, No, fmt.Sprintf("%d packets to our own mappings did not arrive", sent(study.across)))
		study.done = true
	}
}

// settleBut ends all queries but one.
func (m *Measurement) settleBut(queries []*query, but int) {
	for i, q := range queries {
		if i != but && !q.over() {
			m.settle(q, silent)
		}
	}
}
