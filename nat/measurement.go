package nat

import (
	"crypto/rand"
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
)

// Socket names a socket of a [Measurement], which numbers them from 1.
type Socket uint32

// Config says what a Measurement measures.
type Config struct {
	// Server is where one STUN server is, at the most one endpoint an address
	// family. Without IPv4 there is no profile.
	Server []netip.AddrPort
	// Own are the machine's own addresses: by them it can be told that nothing is
	// translated where sockets are bound to no address in particular.
	Own []netip.Addr
	// Rand makes transaction IDs; crypto/rand if nil.
	Rand io.Reader
	// Lifetime says to measure how long mappings live, too. It takes minutes.
	Lifetime bool
}

// Op is what an [Input] or an [Action] is.
type Op uint8

// What can happen to a Measurement.
const (
	// Start begins it. Again, it begins anew: the network has changed.
	Start Op = iota + 1
	// Opened says that a Socket is open, and what it is bound to.
	Opened
	// OpenFailed says that a Socket cannot be opened.
	OpenFailed
	// Packet is a datagram that came to a Socket.
	Packet
	// Recount measures the counter of a Sequential NAT once more, from one fresh
	// socket. Elsewhere it does nothing.
	Recount
	// StudyLifetime measures how long mappings live, as Config.Lifetime says to from
	// the start: for those who know by then that they stay.
	StudyLifetime
	// Tick is called at the time that Step asked for.
	Tick
	// Stop ends it and closes its sockets.
	Stop

	// Open asks for a fresh UDP socket of IPv4 or IPv6, on a port that the system
	// chooses.
	Open
	// Close closes a Socket.
	Close
	// Send sends Data from a Socket.
	Send
	// Measured says that something became known.
	Measured
)

// Input is something that happened, with the fields that its Op needs.
type Input struct {
	Op     Op
	Socket Socket
	Bound  netip.AddrPort // Opened
	From   netip.AddrPort // Packet
	Data   []byte         // Packet; it is not kept
}

// Action is something to do, with the fields that its Op needs.
type Action struct {
	Op     Op
	Socket Socket
	Is4    bool           // Open
	To     netip.AddrPort // Send
	TTL    uint8          // Send; 0: the usual one
	Data   []byte         // Send
	Report *Report        // Measured
}

// Measurement finds out which kind of NAT this machine is behind, with sockets of
// its own: what the program uses is not disturbed. It is a state machine without
// I/O, clock or goroutine: the driver hands Step what happened and the time, does
// the actions that come back, and calls again at the time that Step asks for.
//
// It makes some twenty mappings, forty at the most; with Lifetime as many again,
// over minutes.
type Measurement struct {
	config  Config
	now     time.Time
	out     []Action
	running bool

	sockets []*socket
	opened  Socket   // the latest
	queries []*query // in the order in which they were asked
	byID    map[wire.TransactionID]*query
	turn    int // counts first sends
	rtt     time.Duration

	servers [2]server // IPv4, IPv6
	mapping mappingStudy
	ports   portsStudy
	filter  [2]filterStudy
	early   earlyStudy
	hairpin hairpinStudy
	life    lifetimeStudy

	report  Report
	changed bool
}

// socket is one of ours.
type socket struct {
	number Socket
	family int
	state  socketState
	bound  netip.AddrPort
}

type socketState uint8

const (
	opening socketState = iota
	isOpen
	noSocket
	closed
)

// The families.
const (
	v4 = 0
	v6 = 1
)

// NewMeasurement makes one that has yet to Start.
func NewMeasurement(c Config) *Measurement {
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	m := &Measurement{config: c}
	for _, at := range c.Server {
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		family := v6
		if at.Addr().Is4() {
			family = v4
		}
		if at.IsValid() && !m.servers[family].at.IsValid() {
			m.servers[family].at = at
		}
	}
	m.reset()
	return m
}

// reset forgets what was measured, and keeps what is known of the server.
func (m *Measurement) reset() {
	for _, s := range m.sockets {
		m.close(s)
	}
	m.sockets = nil
	m.queries, m.byID = nil, make(map[wire.TransactionID]*query)
	m.rtt = 0
	m.mapping, m.ports, m.early = mappingStudy{}, portsStudy{}, earlyStudy{}
	m.filter, m.hairpin, m.life = [2]filterStudy{}, hairpinStudy{}, lifetimeStudy{}
	m.report = Report{Began: m.now, Time: m.now}
	m.running = false
}

// Step takes what happened and appends what to do. It wants to be called again at
// next; a zero next means that only an input matters. Every packet that is not an
// answer to a request of its own, from where that was to be answered, changes
// nothing.
func (m *Measurement) Step(now time.Time, in Input, out []Action) (actions []Action, next time.Time) {
	m.now, m.out = now, out
	switch in.Op {
	case Start:
		m.reset()
		m.start()
	case Stop:
		m.reset()
	case Opened, OpenFailed:
		if s := m.socket(in.Socket); s != nil && s.state == opening {
			s.state, s.bound = noSocket, in.Bound
			if in.Op == Opened {
				s.state = isOpen
			}
		}
	case Packet:
		m.receive(in)
	case Recount:
		m.recount()
	case StudyLifetime:
		if !m.config.Lifetime {
			m.config.Lifetime, m.life = true, lifetimeStudy{}
		}
	default: // a Tick
	}
	if m.running {
		m.work()
	}
	actions, m.out = m.out, nil
	return actions, m.next()
}

// Report is what is known by now.
func (m *Measurement) Report() Report { return m.report.clone() }

// start begins all that can begin at once.
func (m *Measurement) start() {
	m.running, m.changed = true, false
	if m.servers[v4].at.IsValid() {
		m.startMapping()
	}
	if m.servers[v6].at.IsValid() {
		m.startIPv6()
	}
}

// work sends what is due and goes on with whatever can go on.
func (m *Measurement) work() {
	for again := true; again; {
		m.transmit()
		before := len(m.queries)
		m.studyMapping()
		m.studyPorts()
		m.studyFilter(v4)
		m.studyIPv6()
		m.studyEarly()
		m.studyHairpin()
		m.studyLifetime()
		again = len(m.queries) != before
	}
	if !m.report.Complete && m.complete() {
		m.report.Complete, m.changed = true, true
		for _, s := range m.sockets {
			m.close(s)
		}
	} else if m.life.begun && m.life.done {
		m.close(m.life.prober.socket)
		m.close(m.life.control[0].socket)
	}
	if m.changed {
		m.changed = false
		m.report.Time = m.now
		m.report.Server = Server{m.servers[v4].at, m.servers[v6].at, m.servers[v4].port, m.servers[v4].both}
		m.report.conclude()
		r := m.report.clone()
		m.out = append(m.out, Action{Op: Measured, Report: &r})
	}
}

// complete reports whether nothing more is to be found out.
func (m *Measurement) complete() bool {
	four := !m.servers[v4].at.IsValid() || m.blocked() ||
		m.mapping.done && m.ports.done && m.filter[v4].done && m.early.done && m.hairpin.done && m.life.done
	return four && (!m.servers[v6].at.IsValid() || m.filter[v6].done)
}

// open asks for a fresh socket.
func (m *Measurement) open(family int) *socket {
	m.opened++
	s := &socket{number: m.opened, family: family}
	m.sockets = append(m.sockets, s)
	m.out = append(m.out, Action{Op: Open, Socket: s.number, Is4: family == v4})
	return s
}

func (m *Measurement) close(s *socket) {
	if s.state == opening || s.state == isOpen {
		m.out = append(m.out, Action{Op: Close, Socket: s.number})
	}
	s.state = closed
}

func (m *Measurement) socket(n Socket) *socket {
	for _, s := range m.sockets {
		if s.number == n {
			return s
		}
	}
	return nil
}

// prune forgets what is over, after all was measured.
func (m *Measurement) prune() {
	m.sockets = slices.DeleteFunc(m.sockets, func(s *socket) bool { return s.state == closed })
	for _, q := range m.queries {
		if q.over() {
			delete(m.byID, q.id)
		}
	}
	m.queries = slices.DeleteFunc(m.queries, (*query).over)
}

// isOwn reports whether an endpoint is what a socket of ours is bound to.
func (m *Measurement) isOwn(s *socket, e netip.AddrPort) bool {
	if s.bound.Port() != e.Port() {
		return false
	}
	return s.bound.Addr().Unmap() == e.Addr() || e.Addr().IsLoopback() || slices.Contains(m.config.Own, e.Addr())
}

// next is when Step wants to be called again.
func (m *Measurement) next() (at time.Time) {
	if !m.running {
		return at
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, q := range m.queries {
		if q.state == asking && q.socket.state == isOpen {
			sooner(q.next)
		}
	}
	sooner(m.ports.again)
	return at
}
