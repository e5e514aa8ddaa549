package punch

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
)

// Local names one of the driver's sockets, which may be a TCP connection. The number
// tells the transport.
type Local uint32

// Where the numbers of each transport begin; those of UDP begin at 1.
const (
	firstTCP  Local = 1 << 24
	firstICMP Local = 1 << 28
)

// NewLocal is the nth Local of a transport.
func NewLocal(t Transport, n uint32) Local {
	switch t {
	case TCP:
		return firstTCP + Local(n)
	case ICMP:
		return firstICMP + Local(n)
	default:
		return Local(n)
	}
}

// Transport is what runs over the socket.
func (l Local) Transport() Transport {
	switch {
	case l >= Relayed:
		return Relay
	case l >= firstICMP:
		return ICMP
	case l >= firstTCP:
		return TCP
	default:
		return UDP
	}
}

// Config is what an Engine is made for: one introduction of two peers.
type Config struct {
	Self, Other Side
	Secret      peer.Secret // of the two peers, from peer.Key.Shared
	Nonce       [32]byte    // the session nonce of the introduction's offer
	// Links are the prefixes of our own interfaces: a private endpoint is
	// probed if it is on one of them.
	Links []netip.Prefix
	// NewLocal numbers the sockets that the Engine asks for with Bind. Without it
	// there are none, and no tactic that needs them.
	NewLocal func(Transport) Local
	// Memory is what earlier attempts at this peer taught; nil: nothing.
	Memory *Memory
	// Keepalive says how long our NAT keeps a mapping that is not used, with room to
	// spare; 15 s if nil or 0. It is asked each time.
	Keepalive func() time.Duration
	// Traffic says how many bytes of data have left by a route, and arrived by it; if nil,
	// answers do not count.
	Traffic func(Local, netip.AddrPort) (sent, arrived uint64)
	// Rand is where transaction IDs come from; crypto/rand if nil.
	Rand io.Reader
}

// Op says what an Input or an Action is.
type Op uint8

// Inputs.
const (
	// Start begins the attempt on the sockets that Open named.
	Start Op = iota + 1
	// Open says that the socket Local exists, one of the driver's or one that Bind
	// asked for; From is its bound endpoint, whose address family it can send to. A
	// Local of TCP is a port, with a listener, to connect from.
	Open
	// Connected says that the TCP connection Local with From stands, and Failed why
	// there is none, or none any more.
	Connected
	Failed
	// Packet is a STUN packet Data that came to Local From somewhere. TTL-wise
	// and otherwise unauthenticated packets are counted, nothing else.
	Packet
	// Tick says only that it is later.
	Tick
	// Check asks whether the confirmed route (Local, From) still works: an
	// answer or a loss follows within half a second or some round trips. With a
	// Size it asks whether packets of so many bytes arrive, too: if not, Narrow
	// follows.
	Check
	// Measure sends a probe that opens and keeps nothing, by a Local that is no
	// socket but the driver's word for another way to From; Measured follows if it
	// is answered. The probe carries Moves. The other side answers what comes
	// to a Local from Relayed on.
	Measure
	// Stop ends the attempt to open more holes; confirmed routes stay.
	Stop
	// Close ends everything, and closes the sockets that Bind asked for.
	Close
)

// Actions.
const (
	// Send asks to send Data from Local To an endpoint, with a TTL if not zero.
	Send Op = iota + 32
	// Heard says that the peer itself sent from To: data from there is its own.
	Heard
	// Confirmed says that our nonce came back from To within RTT: a route.
	// It is repeated with each later answer, which may Count data.
	Confirmed
	// Lost says that a confirmed route no longer answers. It is looked for
	// some time longer, and may be Confirmed again.
	Lost
	// Wide says that packets of Size bytes arrive by a route, Narrow that they do
	// not, though smaller ones do.
	Wide
	Narrow
	// Measured says how long a Measure took, Noted that the peer sent one, with
	// its Moves.
	Measured
	Noted
	// Done says that the attempt is over, with a Report.
	Done
	// Bind asks for a socket of IPv4 as Local, on a port of the system's choice; Open
	// says when it is there. Unbind closes it.
	Bind
	Unbind
	// Connect asks for the TCP connection Local, from the port Port To an endpoint, or
	// from any port if that is 0. Connected or Failed follows; Unbind gives it up, or
	// ends it.
	Connect
)

// Input is something that happened.
type Input struct {
	Op    Op
	Local Local
	From  netip.AddrPort
	Data  []byte
	Size  int
	// Urgent says of a Check that there is reason for doubt.
	Urgent bool
	Moves  uint32
	Why    Failure // of Failed
}

// Action is something that the driver is asked to do, or told.
type Action struct {
	Op     Op
	Local  Local
	To     netip.AddrPort
	TTL    uint8
	Kind   Kind
	Data   []byte
	RTT    time.Duration
	Loss   float64 // share of the probes and answers that got lost, lately
	Size   int
	Report *Report
	Port   Local // of Connect
	// Spare says of a route that is Lost that a better one is kept.
	Spare bool
	// Moves is what the peer said with Measure.
	Moves uint32
	Count Count
}

// Count is what an answer told of the data by a route: of so many bytes Sent when the
// probe left, so many had Arrived when it did. The zero Count tells nothing.
type Count struct {
	Told          bool
	Sent, Arrived uint64
}

// Report sums an attempt up.
type Report struct {
	Outcomes  []Outcome     // of the tactics, in the order of the plan
	Targets   int           // endpoints that were probed
	Sent      int           // probes sent
	Sockets   int           // sockets asked for, besides those that there were
	Heard     int           // probes of the peer that reached us
	Echoed    int           // our own probes that a router sent back
	Confirmed int           // routes, lost ones included
	First     time.Duration // from the start to the first confirmed route
}

// Outcome is what became of one tactic.
type Outcome struct {
	Tactic Name
	Sent   int // probes
	Result Result
}

// Result says how a tactic ended.
type Result string

// Results.
const (
	Running     Result = "running"
	Won         Result = "won"        // the first route came of it
	NotNeeded   Result = "not needed" // another tactic was first
	FoundNone   Result = "no hole"
	Interrupted Result = "interrupted" // by the next attempt, or the end
	Postponed   Result = "postponed"   // it failed not long ago, or another attempt is at it
)

// Stats counts the packets that an Engine did not believe.
type Stats struct {
	Malformed int // not a probe
	Forged    int // not authenticated: changed, or not from the peer
	Replayed  int // a sequence number seen before
	Strange   int // an answer to nothing that we asked there
}

// Add is the sum of two counts.
func (s Stats) Add(o Stats) Stats {
	return Stats{s.Malformed + o.Malformed, s.Forged + o.Forged, s.Replayed + o.Replayed, s.Strange + o.Strange}
}

const (
	// attemptTime is how long an attempt probes. A peer's NAT may be slow, but
	// a hole that did not open in ten seconds needs another tactic.
	attemptTime = 10 * time.Second
	// attemptProbes bounds what one introduction makes us send, shots aside.
	attemptProbes = 400
	// secondProbes bounds how many leave within a second, shots aside: with
	// candidates of two families in both homes it is some fifty.
	secondProbes = 100
	// maxPairs bounds the pairs of socket and endpoint, those that the peer's
	// probes teach us included.
	maxPairs = 48
	// releaseAfter is how long sockets outlive the first route.
	releaseAfter = time.Second
)

// Engine punches holes to one peer after one introduction, and keeps the routes
// that came of it alive. It is not safe for concurrent use.
type Engine struct {
	cfg     Config
	keys    wire.ProbeKeys
	tactics []Tactic
	targets []target
	locals  []socket
	pairs   []*pair

	tcpTargets         []target
	ports              []socket // to connect from
	dials              []*dial
	connects, tcpShots int
	dialPace           pace
	connectPace        pace // of shots

	volleys  []*volley
	outcomes []Outcome
	asked    map[wire.TransactionID]asked
	measures [8]measured // the latest ones, a ring
	measureN int
	extra    []Local // sockets that we asked for
	open4    int     // sockets still to ask for
	shots    int
	strays   int // pairs since the attempt that were no routes yet
	fireAt   time.Time
	// releaseAt is when the sockets that did not win are closed: the peer may yet
	// confirm another one than we did.
	releaseAt time.Time

	started   time.Time // zero before Start
	stopped   bool
	won       Transport // the best one that a route came of; 0: none
	probePace pace
	icmpPace  pace
	shotPace  pace
	sequence  uint64
	window    wire.Window
	report    Report
	stats     Stats

	now time.Time // of the Step under way
	out []Action
}

type socket struct {
	local Local
	is4   bool
	port  uint16
}

// NewEngine prepares an Engine; nothing is sent before Start.
func NewEngine(cfg Config) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	e := &Engine{
		cfg:     cfg,
		keys:    wire.NewProbeKeys(cfg.Secret, cfg.Nonce, cfg.Self.ID, cfg.Other.ID),
		tactics: Plan(cfg.Self, cfg.Other),
		targets: targets(cfg.Self, cfg.Other, cfg.Links, UDP),

		tcpTargets: targets(cfg.Self, cfg.Other, cfg.Links, TCP),

		probePace: newPace(secondProbes),
		icmpPace:  newPace(secondICMP),
		dialPace:  newPace(secondDials),
	}
	if cfg.NewLocal == nil {
		e.tcpTargets = nil
	}
	e.report.Targets = len(e.targets) + len(e.tcpTargets)
	return e
}

// Session names the introduction in its probes: the driver gives an Engine the
// packets that carry it.
func (e *Engine) Session() [8]byte { return e.keys.Session }

// Stats returns the counts of packets that were not believed.
func (e *Engine) Stats() Stats { return e.stats }

// Step takes an input at the time now and appends to out the actions to do. It
// wants to be called again at next, with a Tick if nothing else happens; a zero
// next means that only an input can change something.
func (e *Engine) Step(now time.Time, in Input, out []Action) (actions []Action, next time.Time) {
	e.now, e.out = now, out
	switch in.Op {
	case Open:
		if slices.Contains(e.extra, in.Local) {
			e.bound(in.Local)
			break
		}
		s := socket{in.Local, in.From.Addr().Unmap().Is4(), in.From.Port()}
		if in.Local.Transport() == TCP {
			e.ports = append(e.ports, s)
		} else {
			e.locals = append(e.locals, s)
		}
		if e.probing() {
			e.addPairs()
			e.addDials()
		}
	case Connected:
		e.isConnected(in)
	case Failed:
		e.hasFailed(in.Local, in.Why)
	case Start:
		if e.started.IsZero() {
			e.started = now
			e.race()
			e.addPairs()
			e.addDials()
			e.addShots()
		}
	case Packet:
		e.packet(in.Local, unmap(in.From), in.Data)
	case Check:
		if p := e.pair(in.Local, unmap(in.From)); p != nil && p.state == confirmed {
			p.check(now, in.Size, in.Urgent)
		}
	case Measure:
		e.measure(in)
	case Stop:
		e.finish(Interrupted)
	case Close:
		e.finish(Interrupted)
		e.pairs = nil
		e.release()
	default: // Tick: nothing but the time
	}
	next = e.run()
	actions, e.out = e.out, nil
	return actions, next
}

// probing reports whether the attempt is under way.
func (e *Engine) probing() bool { return !e.started.IsZero() && !e.stopped }

// race enters the tactics, but for those whose time has not come, and prepares their
// shots.
func (e *Engine) race() {
	e.cfg.Memory.at(endpoint4(e.cfg.Other).Addr())
	for _, t := range e.tactics {
		o := Outcome{Tactic: t.Name, Result: Running}
		if !e.cfg.Memory.begin(t.Name, e.now) {
			o.Result = Postponed
		}
		e.outcomes = append(e.outcomes, o)
	}
	e.asked = make(map[wire.TransactionID]asked)
	e.load()
}

// finish ends the attempt: pairs that did not become routes are forgotten.
func (e *Engine) finish(with Result) {
	if !e.probing() {
		return
	}
	e.stopped = true
	e.pairs = slices.DeleteFunc(e.pairs, func(p *pair) bool { return p.state == trying })
	e.volleys, e.asked, e.open4, e.dials = nil, nil, 0, nil
	e.release()
	for i := range e.outcomes {
		if e.outcomes[i].Result == Running {
			e.outcomes[i].Result = with
		}
	}
	e.cfg.Memory.learn(e.outcomes, e.now)
	e.emit(Action{Op: Done, Report: e.Report()})
}

// Won is the tactic that the first route came of; "" if there is none.
func (r *Report) Won() Name {
	for _, o := range r.Outcomes {
		if o.Result == Won {
			return o.Tactic
		}
	}
	return ""
}

// Report returns the account of the attempt so far.
func (e *Engine) Report() *Report {
	r := e.report
	r.Outcomes = slices.Clone(e.outcomes)
	return &r
}

// Probing reports whether the attempt is under way.
func (e *Engine) Probing() bool { return e.probing() }

// Idle reports whether the Engine has nothing left to do: the attempt is over
// and no route came of it, or none is left.
func (e *Engine) Idle() bool { return e.stopped && len(e.pairs) == 0 }

func (e *Engine) emit(a Action) { e.out = append(e.out, a) }

func (e *Engine) transactionID() (id wire.TransactionID) {
	if _, err := io.ReadFull(e.cfg.Rand, id[:]); err != nil {
		// Without randomness no nonce proves anything; count on instead of failing.
		binary.BigEndian.PutUint64(id[:], e.sequence)
	}
	return id
}

func unmap(e netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
}
