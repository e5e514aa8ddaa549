package nat

import (
	"net/netip"
	"time"

	"bodkin/internal/wire"
)

// query is one request, sent until it is answered or enough was sent.
type query struct {
	id     wire.TransactionID
	socket *socket
	to     netip.AddrPort
	ask    ask
	data   []byte

	state       queryState
	turn        int // of its first packet among those of all queries
	sent        int
	first, last time.Time
	next        time.Time // when it is to be sent next, or given up
	at          time.Time // when it was answered, or given up
	answer      wire.BindingAnswer
}

// ask is what a query asks, and how patiently.
type ask struct {
	request wire.BindingRequest
	// from is where the answer must come from; the address that was asked if it is
	// zero. With a port of 0 it may be any but the one that was asked.
	from netip.AddrPort
	// at is where the answer comes; the socket that asks if nil.
	at *socket
	// hairpin says that not an answer but the request itself is to come, there.
	hairpin bool
	// after delays the first packet.
	after time.Duration
	// tries is how many packets are sent, evenly if steady: where silence is what
	// there is to learn.
	tries  int
	steady bool
}

type queryState uint8

const (
	asking   queryState = iota
	answered            // or, of a hairpin, arrived
	refused             // with an error
	silent
)

const (
	// firstRTO is the first retransmission timeout as long as no round trip was
	// seen; RFC 8489 §6.2.1 has 500 ms, "if the RTT is known" less.
	firstRTO = 300 * time.Millisecond
	leastRTO = 100 * time.Millisecond
	mostRTO  = 1600 * time.Millisecond
	// usualTries leave one request in 20,000 unanswered where a tenth of the
	// packets is lost each way.
	usualTries = 6
	// spacing is between packets whose order matters: more than the timing of
	// sockets and Wi-Fi shuffles, and little beside the time between mappings that
	// others make.
	spacing = time.Millisecond
)

// query asks a server something. The first packet leaves when the socket is open.
func (m *Measurement) query(s *socket, to netip.AddrPort, a ask) *query {
	if a.tries == 0 {
		a.tries = usualTries
	}
	if !a.from.Addr().IsValid() {
		a.from = to
	}
	if a.at == nil {
		a.at = s
	}
	q := &query{socket: s, to: to, ask: a, next: m.now.Add(a.after)}
	_, _ = m.config.Rand.Read(q.id[:])
	a.request.ID = q.id
	q.data = a.request.Append(nil)
	m.queries = append(m.queries, q)
	m.byID[q.id] = q
	return q
}

// transmit sends what is due, in the order in which it was asked.
func (m *Measurement) transmit() {
	for _, q := range m.queries {
		if q.state != asking {
			continue
		}
		switch q.socket.state {
		case opening:
			continue
		case isOpen:
		case noSocket, closed:
			m.settle(q, silent)
			continue
		}
		if q.next.After(m.now) {
			continue
		}
		if q.sent >= q.ask.tries {
			m.settle(q, silent)
			continue
		}
		if q.sent == 0 {
			m.turn++
			q.first, q.turn = m.now, m.turn
		}
		q.next = m.now.Add(m.timeout(q))
		q.last = m.now
		q.sent++
		m.out = append(m.out, Action{Op: Send, Socket: q.socket.number, To: q.to, Data: q.data})
	}
}

// timeout is how long a query that is sent now waits for its answer.
func (m *Measurement) timeout(q *query) time.Duration {
	rto := firstRTO
	if m.rtt > 0 {
		rto = min(max(2*m.rtt, leastRTO), mostRTO)
	}
	if !q.ask.steady {
		rto <<= q.sent
	}
	return min(rto, mostRTO)
}

func (m *Measurement) settle(q *query, s queryState) { q.state, q.at = s, m.now }

// receive takes a packet.
func (m *Measurement) receive(in Input) {
	s := m.socket(in.Socket)
	if !m.running || s == nil || s.state != isOpen || wire.Classify(in.Data, false) != wire.ClassSTUN {
		return
	}
	message, err := wire.Decode(in.Data)
	if err != nil {
		return
	}
	q := m.byID[message.TransactionID]
	if q == nil || q.state != asking || q.sent == 0 || q.ask.at != s {
		return
	}
	from := netip.AddrPortFrom(in.From.Addr().Unmap(), in.From.Port())
	if q.ask.hairpin {
		if _, err := wire.ParseBindingRequest(message); err == nil {
			m.settle(q, answered)
		}
		return
	}
	a, err := wire.ParseBindingAnswer(message)
	if err != nil || !m.mayAnswer(q, from, a.Code) {
		return
	}
	m.settle(q, answered)
	if a.Code != 0 {
		q.state = refused
	}
	a.Mapped = netip.AddrPortFrom(a.Mapped.Addr().Unmap(), a.Mapped.Port())
	q.answer = a
	if q.sent == 1 && (m.rtt == 0 || m.now.Sub(q.first) < m.rtt) {
		m.rtt = max(m.now.Sub(q.first), time.Millisecond)
	}
}

// mayAnswer reports whether the answer to a query may come from there.
func (m *Measurement) mayAnswer(q *query, from netip.AddrPort, code int) bool {
	switch {
	case code != 0 && from == q.to: // a request to answer from elsewhere is refused from here
		return true
	case q.ask.from.Port() == 0:
		return from.Addr() == q.ask.from.Addr() && from.Port() != q.to.Port()
	}
	return from == q.ask.from
}

// over reports whether there is nothing to wait for.
func (q *query) over() bool { return q == nil || q.state != asking }

// ok reports whether a query was answered with what it asked.
func (q *query) ok() bool { return q != nil && q.state == answered }
