package nat

import (
	"fmt"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// lifetimeStudy finds out how long mappings live. RFC 5780 §4.6 lets one socket ask
// for an answer to another one's mapping, later and later, one wait after the other.
// Here many sockets wait at the same time, each its own time, and each is tried
// once: what arrives may keep a mapping alive.
type lifetimeStudy struct {
	prober  *query // of the socket that asks for the others
	control [2]*query
	ladders [2]ladder // of mappings in use, and of fresh ones
	begun   bool
	done    bool
}

// ladder is sockets that wait for times of their own.
type ladder struct {
	rungs   []*rung
	used    bool // packets go back and forth before the wait
	refined bool
	done    bool
}

type rung struct {
	wait   time.Duration
	socket *socket
	first  *query
	second *query // of a mapping in use
	probe  *query
}

// The waits of the ladders, and into how many parts the bracket that they find is
// cut then. Together they make some twenty-five mappings.
var (
	usedWaits = []time.Duration{
		15 * time.Second, 20 * time.Second, 30 * time.Second, 45 * time.Second, time.Minute,
		90 * time.Second, 2 * time.Minute, 3 * time.Minute, 5 * time.Minute,
	}
	freshWaits = []time.Duration{20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}
)

const (
	finer = 4
	// fineEnough is a bracket that is not refined.
	fineEnough = 2 * time.Second
	// inUse is how long after the first exchange the second one comes that makes a
	// flow one in use: Linux wants two seconds.
	inUse = 3 * time.Second
	// lifeTries leave one probe in a thousand without an answer where a tenth of the
	// packets is lost each way.
	lifeTries = 4
)

func (m *Measurement) studyLifetime() {
	study, s := &m.life, &m.servers[v4]
	switch {
	case study.done || !m.mapping.done || !m.ports.done:
		return
	case !m.config.Lifetime:
		study.done = true
		return
	case !study.begun:
		study.begun = true
		study.prober = m.query(m.open(v4), s.at, ask{})
		study.control[0] = m.query(m.open(v4), s.at, ask{})
		return
	}
	if !m.answersElsewhere() {
		return
	}
	for i, waits := range [...][]time.Duration{usedWaits, freshWaits} {
		l, f := &study.ladders[i], &m.report.Lifetime
		if i > 0 {
			f = &m.report.Fresh
		}
		if len(l.rungs) == 0 {
			l.used = i == 0
			m.raise(l, waits)
		}
		m.climb(l, f)
	}
	study.done = study.ladders[0].done && study.ladders[1].done
}

// answersElsewhere reports whether the server does what RESPONSE-PORT says (RFC 5780
// §7.5): what one socket asks for arrives at another.
func (m *Measurement) answersElsewhere() bool {
	study := &m.life
	p, c := study.prober, study.control[0]
	fail := func(why string) bool {
		find(m, &m.report.Lifetime, Span{}, why)
		find(m, &m.report.Fresh, Span{}, why)
		study.done = true
		return false
	}
	switch {
	case !p.over() || !c.over():
		return false
	case !p.ok() || !c.ok():
		return fail("too many packets were lost")
	case p.answer.Mapped.Addr() != c.answer.Mapped.Addr():
		return fail("the mappings have different addresses outside")
	case study.control[1] == nil:
		study.control[1] = m.probe(c.socket, c.answer.Mapped.Port(), 0)
		return false
	case !study.control[1].over():
		return false
	case !study.control[1].ok():
		return fail("the server does not answer to other ports (RESPONSE-PORT of RFC 5780)")
	}
	return true
}

// probe asks for an answer to the mapping of another socket.
func (m *Measurement) probe(at *socket, port uint16, after time.Duration) *query {
	return m.query(m.life.prober.socket, m.servers[v4].at, ask{
		request: wire.BindingRequest{ResponsePort: port}, at: at, after: after, tries: lifeTries, steady: true,
	})
}

// raise opens the sockets of a ladder.
func (m *Measurement) raise(l *ladder, waits []time.Duration) {
	for i, w := range waits {
		r := &rung{wait: w, socket: m.open(v4)}
		r.first = m.query(r.socket, m.servers[v4].at, ask{after: time.Duration(i) * 5 * spacing})
		l.rungs = append(l.rungs, r)
	}
}

// climb goes on with each rung, and says what they have shown.
func (m *Measurement) climb(l *ladder, f *Finding[Span]) {
	if l.done {
		return
	}
	over := true
	span := Span{}
	var alive, dead int
	for _, r := range l.rungs {
		m.wait(l, r)
		switch p := r.probe; {
		case r.socket.state == closed && p == nil: // its packets were lost
			continue
		case p == nil || !p.over():
			over = false
			continue
		case p.ok():
			alive++
			span.AtLeast = max(span.AtLeast, r.wait)
		case p.sent > 0:
			dead++
		}
		m.close(r.socket)
	}
	for _, r := range l.rungs {
		if p := r.probe; p != nil && p.over() && !p.ok() && p.sent > 0 && r.wait > span.AtLeast && (span.Below == 0 || r.wait < span.Below) {
			span.Below = r.wait
		}
	}
	if (f.Value != span || !f.Known()) && alive+dead > 0 {
		find(m, f, span, fmt.Sprintf("after waiting, %s alive and %s not", mappings(alive), mappings(dead)))
	}
	if span.Below > 0 && l.shorterOver(span.Below) {
		m.cutOff(l, span.Below)
		over = true
	}
	switch {
	case !over:
	case l.refined || span.Below == 0 || span.Below-span.AtLeast <= fineEnough:
		l.done = true
	default:
		l.refined = true
		var waits []time.Duration
		for i := 1; i <= finer; i++ {
			waits = append(waits, span.AtLeast+(span.Below-span.AtLeast)*time.Duration(i)/(finer+1))
		}
		m.raise(l, waits)
	}
}

func mappings(n int) string {
	if n == 1 {
		return "1 mapping was"
	}
	return fmt.Sprintf("%d mappings were", n)
}

// wait begins a rung's next part.
func (m *Measurement) wait(l *ladder, r *rung) {
	last := r.first
	switch {
	case r.probe != nil || r.socket.state == closed:
		return
	case r.first.ok() && l.used && r.second == nil:
		r.second = m.query(r.socket, m.servers[v4].at, ask{after: inUse})
		return
	case l.used && r.second != nil:
		last = r.second
	}
	switch {
	case last.ok():
		r.probe = m.probe(r.socket, last.answer.Mapped.Port(), r.wait)
	case last.over():
		m.close(r.socket)
	}
}

// cutOff ends the rungs that wait longer than one which was found dead.
func (m *Measurement) cutOff(l *ladder, dead time.Duration) {
	for _, r := range l.rungs {
		if r.wait <= dead || r.over() {
			continue
		}
		if r.probe != nil {
			m.settle(r.probe, silent)
		}
		m.close(r.socket)
	}
}

// shorterOver reports whether all rungs with a shorter wait are over.
func (l *ladder) shorterOver(wait time.Duration) bool {
	return !slices.ContainsFunc(l.rungs, func(r *rung) bool { return r.wait < wait && !r.over() })
}

func (r *rung) over() bool { return r.socket.state == closed || r.probe != nil && r.probe.over() }
