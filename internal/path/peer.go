package path

import (
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"
)

// Self is what all peers share of this node: how it may be reached, and by which
// sockets. The control loop keeps it up to date between Steps.
type Self struct {
	Key      peer.Key
	Server   peer.ID // what offers are bound to
	Instance uint64
	Side     punch.Side
	Links    []netip.Prefix
	Sockets  []LocalSocket
	Ports    []LocalSocket // TCP ports with a listener, to connect from
	Offers   uint64        // counts the offers of this instance
	Extra    uint32        // counts the sockets that were asked for with Bind
	Moves    uint32        // counts the changes of our network
	Rand     io.Reader
	// Keepalive is how long our NAT keeps a mapping for certain; 0 if not known.
	Keepalive time.Duration
	// Traffic says how many bytes of data have left and arrived by a route; if nil, what
	// becomes of them is not looked after.
	Traffic func(Key) (sent, arrived uint64)

	// memories outlive the Peers: the next one of the same ID has them again.
	memories map[peer.ID]*punch.Memory
}

// maxMemories bounds the peers that something is remembered of.
const maxMemories = 4096

func (s *Self) memory(id peer.ID) *punch.Memory {
	m := s.memories[id]
	if m != nil {
		return m
	}
	if s.memories == nil || len(s.memories) >= maxMemories {
		s.memories = make(map[peer.ID]*punch.Memory)
	}
	m = new(punch.Memory)
	s.memories[id] = m
	return m
}

// counted is Traffic for engines, which have direct routes alone.
func (s *Self) counted() func(punch.Local, netip.AddrPort) (sent, arrived uint64) {
	if s.Traffic == nil {
		return nil
	}
	return func(l punch.Local, to netip.AddrPort) (sent, arrived uint64) { return s.Traffic(Key{Local: l, To: to}) }
}

// firstExtra keeps the numbers of sockets that were asked for apart from those that
// there are from the start.
const firstExtra = 1 << 10

// NewLocal numbers a socket that is to be opened.
func (s *Self) NewLocal(t punch.Transport) punch.Local {
	s.Extra++
	return punch.NewLocal(t, firstExtra+s.Extra)
}

// LocalSocket is a socket by its number, and where it is bound.
type LocalSocket struct {
	Local punch.Local
	Bound netip.AddrPort
}

// Op says what an Input or an Action is.
type Op uint8

// Inputs.
const (
	// Want says that somebody here wants to reach the peer, until Unwant.
	Want Op = iota + 1
	Unwant
	// ServerUp says that this node is registered: introductions can be asked
	// for. ServerDown says that it is not, and that relay channels are gone.
	// ServerSilent says that they may still be there when it answers again.
	ServerUp
	ServerDown
	ServerSilent
	// Asking says that the Ask that was asked for is under way, and that data
	// may leave on Channel of the server at To already.
	Asking
	// Introduced is the server's answer to our Ask, with the Party.
	Introduced
	// AskFailed is the other answer, with an Err.
	AskFailed
	// Asked is the peer's own introduction: Party, and its Offer opened.
	Asked
	// Packet is a STUN packet that may be a probe.
	Packet
	// Active says that data is being sent by the route By, in packets of Size
	// bytes at the most lately, and when something last came in on it.
	Active
	// ChannelLost says that the server does not know the relay route By, Relay
	// that it has that one, which was another until now.
	ChannelLost
	Relay
	// NetworkChanged says that Self has other sockets or addresses now,
	// ProfileChanged that other tactics are possible with what Self now knows of its
	// NAT, and CandidatesChanged that it has more or other candidates.
	NetworkChanged
	ProfileChanged
	CandidatesChanged
	// Recheck says that the routes that there are may have died.
	Recheck
	// Bound says that the socket By.Local is open, at By.To, after a Bind.
	Bound
	// Connected says that the TCP connection By.Local with By.To stands after a Connect,
	// Disconnected that it does not, or not any more, and Why.
	Connected
	Disconnected
	// Forget ends everything.
	Forget
	// Tick says only that it is later.
	Tick
)

// Actions.
const (
	// Send asks to send Data by a socket, with a TTL if not 0.
	Send Op = iota + 32
	// AskServer asks to be introduced, with the sealed Data as offer.
	AskServer
	// Hear and Unhear open and close the source By for data of the peer.
	Hear
	Unhear
	// Publish says which Routes there are, best first.
	Publish
	// Bind asks for one more UDP socket of IPv4, By.Local; Unbind closes it.
	Bind
	Unbind
	// Connect asks for the TCP connection By.Local with By.To from the port Port, or from
	// any if that is 0. Unbind ends it.
	Connect
	// Event tells what happened, in Event.
	Event
	// Doubt says that our own network may have changed: the server knows.
	Doubt
)

// Input is something that happened to a peer.
type Input struct {
	Op    Op
	By    Key
	Data  []byte
	Heard time.Time
	Size  int
	Party wire.Party
	Offer wire.Offer
	Err   error
	Why   punch.Failure // of Disconnected
	Again bool          // of ProfileChanged: what was told does not hold any more; of CandidatesChanged: it is of no use without
}

// Action is something to do for a peer.
type Action struct {
	Op     Op
	By     Key
	TTL    uint8
	Data   []byte
	Port   punch.Local
	Routes []Route
	Event  Happening
}

// Peer is what is known of one peer: how it was introduced, which holes are
// being punched, which routes there are. It has no I/O, no clock and no
// goroutine, and is not safe for concurrent use.
type Peer struct {
	ID       peer.ID
	Instance uint64 // 0 until an introduction told it

	self   *Self
	secret peer.Secret

	wanted   bool
	serverUp bool
	ask      ask
	attempts []*attempt // the latest first
	counts   *attempt   // the one whose Account is the peer's; it may be over
	routes   []Route    // the best first
	heard    []Key      // sources that were opened, the oldest first
	relays   []Key      // relay channels as engines know them, by number
	lastSeen uint64     // the highest counter of its offers
	backoff  time.Duration
	gone     time.Time // when the last route was lost; zero: there was none yet
	absent   bool      // since then the server has not known it
	memory   *punch.Memory
	watch    watch
	quick    int // asks that need not wait
	quickAt  time.Time

	// Stats counts probes that were not believed.
	Stats punch.Stats
	now   time.Time
	out   []Action
}

// ask is our own introduction while it is under way.
type ask struct {
	open  bool
	nonce [32]byte
	side  punch.Side // ours, as the offer says
	relay Key
	added bool      // whether relay was no route before
	again time.Time // when to ask the next time; zero: not at all
}

// attempt is one introduction and the engine that punches after it.
type attempt struct {
	engine *punch.Engine
	told   Account // but for its Report
	next   time.Time
}

const (
	firstBackoff = time.Second
	// maxBackoff bounds introductions to a peer that stays on the relay: 12 an
	// hour, of at most 400 probes each, after some 20 in the first one.
	maxBackoff = 5 * time.Minute
	// maxAskPause is the longest pause after an introduction that failed: it
	// cost no probe, and the peer may be back at any moment.
	maxAskPause = 30 * time.Second
	// A peer that has gone while we use it is asked for every goneAskPause at the
	// least, for as long as sessions wait for it: a machine that wakes up is there again.
	goneAskPause = 2 * time.Second
	goneTime     = 10 * time.Minute
	// steady is how long a route must have lived for its loss to be news: one
	// that comes and goes is asked for with backoff.
	steady = 30 * time.Second
	// quickEvery is how often the loss of a route may be answered at once,
	// maxQuick how often in a row.
	quickEvery = 5 * time.Minute
	maxQuick   = 3
	// maxAttempts bounds engines a peer: one of each side's asking, and older
	// ones that keep routes alive.
	maxAttempts = 4
	// maxHeard bounds the sources that a peer's probes can open.
	maxHeard = 64
)

// NewPeer makes a Peer of an ID. It fails only if the ID is not one.
func NewPeer(self *Self, id peer.ID) (*Peer, error) {
	secret, err := self.Key.Shared(id)
	if err != nil {
		return nil, err
	}
	return &Peer{
		ID: id, self: self, secret: secret, backoff: firstBackoff, quick: maxQuick, memory: self.memory(id),
	}, nil
}

// Routes are the routes that there are, the best first.
func (p *Peer) Routes() []Route { return p.routes }

// Wanted reports whether somebody here wants to reach the peer.
func (p *Peer) Wanted() bool { return p.wanted }

// Session reports whether a probe of that session is for this peer.
func (p *Peer) Session(session [8]byte) bool {
	return slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.engine.Session() == session })
}

// Step takes an input at the time now and appends the actions to do. It wants to
// be called again at next; a zero next means that only an input matters.
func (p *Peer) Step(now time.Time, in Input, out []Action) (actions []Action, next time.Time) {
	p.now, p.out = now, out
	switch in.Op {
	case Want:
		p.want()
	case Unwant:
		p.wanted, p.ask.again = false, time.Time{}
	case ServerUp:
		p.serverUp = true
		if p.wanted && !p.has(func(r Route) bool { return !r.Direct() }) {
			p.askSoon(0)
		}
	case ServerDown:
		p.serverUp, p.ask.open = false, false
		p.dropRelays("the server is gone", func(Route) bool { return true })
	case ServerSilent:
		p.serverUp, p.ask.open = false, false
	case Asking:
		p.ask.relay = in.By
		p.ask.added = !p.absent && p.addRoute(Route{Key: in.By, Since: now})
	case Introduced:
		p.introduced(in.Party)
	case AskFailed:
		p.askFailed(in)
	case Asked:
		p.asked(in)
	case Packet:
		p.packet(in)
	case Active:
		p.active(in)
	case ChannelLost:
		if p.dropRelays(channelGone, func(r Route) bool { return r.Key == in.By }) && p.wanted {
			p.askSoon(firstBackoff)
		}
	case Relay:
		p.addRoute(Route{Key: in.By, Since: now})
	case NetworkChanged:
		p.networkChanged()
	case Recheck:
		p.recheck()
	case ProfileChanged:
		p.profileChanged(in.Again)
	case CandidatesChanged:
		switch {
		case !p.wanted || p.content():
		case in.Again:
			p.askSoon(againPause)
		default:
			p.askSoon(candidatesPause)
		}
	case Bound:
		for _, a := range p.attempts {
			if a.engine.Owns(in.By.Local) {
				p.step(a, punch.Input{Op: punch.Open, Local: in.By.Local, From: in.By.To})
			}
		}
	case Connected:
		// Each attempt has probes of its own, and the endpoints one connection.
		for _, a := range slices.Clone(p.attempts) {
			p.step(a, punch.Input{Op: punch.Connected, Local: in.By.Local, From: in.By.To})
		}
	case Disconnected:
		for _, a := range slices.Clone(p.attempts) {
			p.step(a, punch.Input{Op: punch.Failed, Local: in.By.Local, Why: in.Why})
		}
	case Forget:
		for _, a := range p.attempts {
			p.step(a, punch.Input{Op: punch.Close})
		}
	default: // Tick: nothing but the time
	}
	next = p.run()
	actions, p.out = p.out, nil
	return actions, next
}

func (p *Peer) emit(a Action) { p.out = append(p.out, a) }

func (p *Peer) has(f func(Route) bool) bool { return slices.ContainsFunc(p.routes, f) }

// run does what is due and returns when the next thing is.
func (p *Peer) run() (next time.Time) {
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if p.serverUp && !p.ask.open && !p.ask.again.IsZero() && !p.now.Before(p.ask.again) {
		p.sendAsk()
	}
	for _, a := range p.attempts {
		if !a.next.IsZero() && !p.now.Before(a.next) {
			p.step(a, punch.Input{Op: punch.Tick})
		}
		earliest(a.next)
	}
	p.look(earliest)
	p.sweep()
	if p.serverUp && !p.ask.open {
		earliest(p.ask.again)
	}
	return next
}

// channelGone is why a relay route is lost that the server does not have.
const channelGone = "the relay channel is gone: the peer has left the server, or the server forgot it"

// want notes that somebody wants to reach the peer now. What is there is not trusted
// blindly: a peer that died says nothing.
func (p *Peer) want() {
	switch {
	case !p.wanted, len(p.routes) == 0:
		p.wanted, p.absent = true, false
		p.askSoon(0)
	case !p.has(Route.Direct) && !p.ask.open && !p.probing() && p.takeQuick():
		p.askSoon(0) // a hole may open now that did not then
	case p.routes[0].Direct() && p.now.Sub(p.watch.checked) > checkPause:
		p.watch.checked = p.now
		p.check(p.routes[0].Key, 0, true)
	}
}

// probing reports whether an attempt is under way.
func (p *Peer) probing() bool {
	return slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.engine.Probing() })
}

// sweep forgets attempts that are over and left no route.
func (p *Peer) sweep() {
	p.attempts = slices.DeleteFunc(p.attempts, func(a *attempt) bool {
		if a.engine.Idle() {
			p.retire(a)
			return true
		}
		return false
	})
}

// retire keeps the counts of an engine that goes.
func (p *Peer) retire(a *attempt) {
	p.Stats = p.Stats.Add(a.engine.Stats())
}

// Ignored counts what was not believed, by this peer and all its engines.
func (p *Peer) Ignored() punch.Stats {
	sum := p.Stats
	for _, a := range p.attempts {
		sum = sum.Add(a.engine.Stats())
	}
	return sum
}

// packet gives a probe to the engine whose session it names.
func (p *Peer) packet(in Input) {
	probe, err := wire.ParseProbe(in.Data)
	if err != nil {
		p.Stats.Malformed++
		return
	}
	for _, a := range p.attempts {
		if a.engine.Session() == probe.Session {
			p.step(a, punch.Input{Op: punch.Packet, Local: p.engineLocal(in.By), From: in.By.To, Data: in.Data})
			return
		}
	}
	p.Stats.Strange++
}

// recheck asks all direct routes whether they live.
func (p *Peer) recheck() {
	for _, r := range slices.Clone(p.routes) {
		if r.Direct() {
			p.check(r.Key, 0, true)
		}
	}
}

// networkChanged starts afresh on the sockets that there are now: routes over
// ones that are gone are gone too.
func (p *Peer) networkChanged() {
	exists := func(l punch.Local) bool {
		return slices.ContainsFunc(p.self.Sockets, func(s LocalSocket) bool { return s.Local == l }) ||
			slices.ContainsFunc(p.attempts, func(a *attempt) bool { return a.engine.Owns(l) })
	}
	p.memory.Forgive()
	for _, r := range slices.Clone(p.routes) {
		if !exists(r.Local) {
			p.removeRoute(r.Key, "socket closed")
		}
	}
	p.recheck()
	p.tellMoved()
	if p.wanted {
		p.backoff = firstBackoff
		p.askSoon(0)
	}
}
