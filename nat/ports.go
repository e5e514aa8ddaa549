package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// portsStudy finds out how ports are chosen, from the first burst and what follows.
type portsStudy struct {
	more  []*query  // fresh sockets, or further destinations, of a second burst
	sized bool      // the second burst was begun, or is not wanted
	again time.Time // when the counter is read once more
	count []*query  // for the counter: fresh sockets
	done  bool

	// The counter of a Sequential NAT: what was counted of others' ports, in what
	// time. Older counts weigh less.
	last            counted
	foreign, during float64
	evidence        string
}

// counted is the counter's state.
type counted struct {
	port uint16
	turn int
	at   time.Time
}

const (
	// recountAfter is between two bursts that count what others take.
	recountAfter = time.Second
	// recountBurst is how many mappings the second one makes.
	recountBurst = 3
	// forgetNoise is the weight that a count keeps when the next one comes.
	forgetNoise = 0.5
	// absurd is how many ports a second others cannot take: something else has
	// happened.
	absurd = 5000
)

// studyPorts concludes what can be concluded.
func (m *Measurement) studyPorts() {
	study := &m.ports
	if len(m.mapping.first) == 0 || m.blocked() {
		return
	}
	m.recounted()
	if study.done || !m.mapping.done {
		m.glance()
		return
	}
	if !m.settled(m.mapping.first) || !m.settled(m.mapping.more) || !m.settled(study.more) {
		return
	}
	p, evidence, sure := allocation(m.mappings())
	switch {
	case p.Allocation == Sequential && study.again.IsZero() && !study.sized:
		study.sized = true
		m.sayPorts(p, evidence)
		m.startCounting()
	case p.Allocation == Sequential || study.sized && len(study.count) > 0:
		m.secondCount()
	case sure || study.sized:
		m.sayPorts(p, evidence)
		study.done = true
	default:
		study.sized = true
		m.sampleMore()
	}
}

// glance says what the first answers show, before all is in.
func (m *Measurement) glance() {
	if m.report.Ports.Known() || !m.settled(m.mapping.first) {
		return
	}
	if p, evidence, sure := allocation(m.mappings()); sure || p.Allocation == Sequential {
		m.sayPorts(p, evidence)
	}
}

func (m *Measurement) settled(queries []*query) bool {
	return !slices.ContainsFunc(queries, func(q *query) bool { return !q.over() })
}

// mappings are those that were made, in their order. Pools count by the address
// that most have.
func (m *Measurement) mappings() (all []mapped) {
	m.report.Samples = m.samples()
	often := map[netip.Addr]int{}
	var address netip.Addr
	for _, s := range m.report.Samples {
		a := s.Mapped.Addr()
		if often[a]++; often[a] > often[address] {
			address = a
		}
	}
	fresh := map[uint16]bool{}
	i := 0
	m.eachMapping(func(q *query) {
		s := m.report.Samples[i]
		i++
		if s.Mapped.Addr() == address {
			all = append(all, mapped{local: s.Local, port: s.Mapped.Port(), sent: s.Time, fresh: !fresh[s.Local], clean: q.sent == 1})
		}
		fresh[s.Local] = true
	})
	return all
}

// eachMapping yields the queries that made mappings, in the order of their sending.
func (m *Measurement) eachMapping(f func(*query)) {
	all := slices.Concat(m.mapping.first, m.mapping.more, m.ports.more, m.ports.count)
	all = slices.DeleteFunc(all, func(q *query) bool { return !q.ok() })
	slices.SortFunc(all, func(a, b *query) int { return a.turn - b.turn })
	for i, q := range all {
		again := func(p *query) bool { return p.socket == q.socket && p.answer.Mapped == q.answer.Mapped }
		if !slices.ContainsFunc(all[:i], again) {
			f(q)
		}
	}
}

func (m *Measurement) samples() (all []Sample) {
	m.eachMapping(func(q *query) {
		all = append(all, Sample{q.first, q.socket.bound.Port(), q.to, q.answer.Mapped})
	})
	return all
}

// sayPorts is the finding about ports, and about the addresses that they are of.
func (m *Measurement) sayPorts(p Ports, evidence string) {
	m.ports.evidence = evidence
	find(m, &m.report.Ports, p, evidence)
	var public []netip.Addr
	for _, s := range m.report.Samples {
		if a := s.Mapped.Addr(); !slices.Contains(public, a) {
			public = append(public, a)
		}
	}
	m.report.Public = public
	pooled := No
	if len(public) > 1 {
		pooled = Yes
	}
	find(m, &m.report.Pooled, pooled, fmt.Sprintf("%d mappings had %s", len(m.report.Samples), several(len(public), "address")))
	if m.report.Mapping.Known() {
		m.levels()
	}
}

func several(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ses", n, what)
}

// sampleMore makes mappings until there are enough to know the bounds of a block:
// with further destinations where each has another port, else with fresh sockets.
func (m *Measurement) sampleMore() {
	study, s := &m.ports, &m.servers[v4]
	after := time.Duration(0)
	ask := func(x *socket, to netip.AddrPort) {
		study.more = append(study.more, m.query(x, to, ask{after: after}))
		after += spacing
	}
	want := enoughSamples + 2 - len(m.report.Samples)
	var further []netip.AddrPort
	switch m.report.Mapping.Value {
	case AddressAndPortDependent:
		further = []netip.AddrPort{s.port, s.address}
	case AddressDependent:
		further = []netip.AddrPort{s.address}
	default:
	}
	for _, to := range further {
		for _, x := range m.mapping.sockets[:filterSocket] {
			if want > 0 && to.IsValid() && m.asked(x, to) == nil {
				want--
				ask(x, to)
			}
		}
	}
	for ; want > 0; want-- {
		ask(m.open(v4), s.at)
	}
}

// startCounting plans a second look at the counter of a Sequential NAT.
func (m *Measurement) startCounting() {
	if m.remember() {
		m.ports.again = m.now.Add(recountAfter)
	}
}

// remember takes the newest mapping for the state of the counter.
func (m *Measurement) remember() bool {
	var newest *query
	m.eachMapping(func(q *query) {
		if newest == nil || q.sent == 1 || newest.sent > 1 {
			newest = q
		}
	})
	if newest == nil {
		return false
	}
	m.count(newest)
	return true
}

// count compares the counter with what it was. Of a request that was sent several
// times it is not known which packet made the mapping.
func (m *Measurement) count(q *query) {
	study, p := &m.ports, m.report.Ports.Value
	now := counted{q.answer.Mapped.Port(), q.turn, q.first.Add(q.last.Sub(q.first) / 2)}
	if was := study.last; was.turn > 0 && p.Delta != 0 {
		during := now.at.Sub(was.at).Seconds()
		steps := m.steps(was.port, q)
		foreign := steps - float64(m.made(was.turn, now.turn))
		// Where the counter began anew at the other end, nothing can be said.
		if steps > 0 && during > 0 && foreign < absurd*max(during, 1) {
			study.foreign = forgetNoise*study.foreign + max(foreign, 0)
			study.during = forgetNoise*study.during + during
		}
	}
	study.last = now
	if study.during > neighbours.Seconds() {
		p.Noise = uint16(min(100*study.foreign/study.during+0.5, 65535))
	}
	p.Last, p.Age = now.port, m.now.Sub(now.at)
	m.report.Samples = m.samples()
	find(m, &m.report.Ports, p, study.evidence, fmt.Sprintf("others took %.0f ports a second", float64(p.Noise)/100))
}

// made is how many mappings we made after one turn, up to another.
func (m *Measurement) made(after, upTo int) (n int) {
	type place struct {
		socket Socket
		to     netip.AddrPort
	}
	seen := map[place]bool{}
	all := slices.DeleteFunc(slices.Clone(m.queries), func(q *query) bool { return q.turn == 0 || q.socket.family != v4 })
	slices.SortFunc(all, func(a, b *query) int { return a.turn - b.turn })
	for _, q := range all {
		at := place{q.socket.number, q.to}
		switch m.report.Mapping.Value {
		case AddressAndPortDependent:
		case AddressDependent:
			at.to = netip.AddrPortFrom(q.to.Addr(), 0)
		default:
			at.to = netip.AddrPort{}
		}
		if !seen[at] && q.turn > after && q.turn <= upTo {
			n++
		}
		seen[at] = true
	}
	return n
}

// secondCount reads the counter a second after the first burst.
func (m *Measurement) secondCount() {
	study := &m.ports
	switch {
	case study.again.IsZero() && len(study.count) == 0: // no clean mapping to count from
		study.done = true
	case len(study.count) == 0:
		if m.now.Before(study.again) {
			return
		}
		study.again = time.Time{}
		for i := range recountBurst {
			study.count = append(study.count, m.query(m.open(v4), m.servers[v4].at, ask{
				request: wire.BindingRequest{}, after: time.Duration(i) * spacing,
			}))
		}
	case m.settled(study.count):
		clean := func(q *query) bool { return q.ok() && q.sent == 1 }
		all := slices.ContainsFunc(study.count, clean)
		for _, q := range study.count {
			if clean(q) || !all && q.ok() {
				m.count(q)
				all = true
			}
		}
		study.done = true
	}
}

// recount begins a look at the counter.
func (m *Measurement) recount() {
	if !m.running || !m.ports.done || m.report.Ports.Value.Allocation != Sequential || !m.settled(m.ports.count) {
		return
	}
	m.prune()
	m.ports.count = []*query{m.query(m.open(v4), m.servers[v4].at, ask{})}
}

// recounted ends one.
func (m *Measurement) recounted() {
	study := &m.ports
	n := len(study.count)
	if !study.done || n == 0 || study.count[n-1].socket.state != isOpen || !study.count[n-1].over() {
		return
	}
	q := study.count[n-1]
	m.close(q.socket)
	switch {
	case !q.ok():
	case m.backwards(q) && n < mostRecounts && (n == 1 || !m.follows(study.count[n-2], q)):
		study.count = append(study.count, m.query(m.open(v4), m.servers[v4].at, ask{}))
	default:
		m.count(q)
	}
}

// mostRecounts bounds how often one is repeated.
const mostRecounts = 3

// backwards reports whether the counter seems to have run so. Then it began anew
// at the other end of its range, or the fresh socket's port is one that was used
// before, with a mapping that still lives: another look tells.
func (m *Measurement) backwards(q *query) bool {
	was := m.ports.last
	return was.turn > 0 && m.steps(was.port, q) < 0
}

// follows reports whether a mapping was made soon after another.
func (m *Measurement) follows(before, q *query) bool {
	steps := m.steps(before.answer.Mapped.Port(), q)
	return before.ok() && steps > 0 && steps < mostStep
}

// steps are those from a port to that of a query's mapping.
func (m *Measurement) steps(from uint16, q *query) float64 {
	return float64(int(q.answer.Mapped.Port())-int(from)) / float64(m.report.Ports.Value.Delta)
}
