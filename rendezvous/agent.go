package rendezvous

import (
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

var (
	// ErrNoServer: nothing answers at the server's endpoint.
	ErrNoServer = errors.New("no answer; is a server running there, and does the network let UDP, TCP or TLS through?")
	// ErrWrongServer: something answers there, but cannot prove the key that
	// the URL names.
	ErrWrongServer = errors.New("it answers, but does not have the key that the URL names; get the URL from the server's owner again")
	// ErrServerFull: the server has reached its limits.
	ErrServerFull = errors.New("it takes no more registrations")
	// ErrNotReachable: the server does not introduce us: the peer is offline,
	// unknown to it, or does not allow us. It does not say which.
	ErrNotReachable = errors.New("peer not reachable: it is offline, uses another server, or does not allow this node")
	// ErrTooMany: the server wants fewer introductions.
	ErrTooMany = errors.New("the server takes no more introductions at the moment; try again in some seconds")
	// ErrNoIntroduction: the server did not answer the request.
	ErrNoIntroduction = errors.New("the server did not answer the request for an introduction")
)

// AgentConfig is what an Agent is made of.
type AgentConfig struct {
	Key       peer.Key
	Server    peer.ID
	Instance  uint64        // drawn by the process
	Rand      io.Reader     // crypto/rand if nil
	Keepalive time.Duration // between refreshes; 15 s if 0
	// NewStream numbers a connection that is to be opened. Without it there are none.
	NewStream func() uint32
}

// AgentOp says what an AgentInput or AgentAction is.
type AgentOp uint8

// Inputs of an Agent.
const (
	// AgentServers names the server's endpoints: over UDP, one a family, each with the
	// socket to reach it by, and Streams, for connections. Given again, it moves the
	// Agent there.
	AgentServers AgentOp = iota + 1
	// AgentPacket is a STUN packet that came from one of these endpoints to the socket
	// Local.
	AgentPacket
	// AgentConnected says that the connection Local is open, From being what is at its
	// other end; AgentDisconnected that it failed or ended, with an Err.
	AgentConnected
	AgentDisconnected
	// AgentKeepStream says whether to have a connection beside UDP, for what the server
	// sees of it.
	AgentKeepStream
	// AgentUpdate changes what the node says of itself.
	AgentUpdate
	// AgentAsk asks for an introduction to Target with a sealed Offer. Token
	// comes back with the answer.
	AgentAsk
	// AgentCloseChannel ends a relay channel.
	AgentCloseChannel
	// AgentDoubt asks whether the server still sees us where it did, now and not
	// with the next keepalive.
	AgentDoubt
	// AgentCheck asks that only by the leg in use.
	AgentCheck
	// AgentInvite asks for a nameplate for Lifetime. The Agent sees to it that the
	// server knows it until AgentUninvite; Token names it.
	AgentInvite
	AgentUninvite
	// AgentWrite sends a letter, Data, to whoever is at the nameplate Plate, the first
	// one of a node that joins included. Token comes back with the answer.
	AgentWrite
	// AgentLeave says goodbye.
	AgentLeave
	// AgentTick says only that it is later.
	AgentTick
)

// Actions of an Agent.
const (
	// AgentSend asks to send Data To a server endpoint.
	AgentSend AgentOp = iota + 32
	// AgentConnect asks to open the connection To.Local, over TLS or plain TCP, and
	// AgentDisconnect to close it or to give it up.
	AgentConnect
	AgentDisconnect
	// AgentRegistered says that the server knows us, Settled that it knows the
	// latest that we said of ourselves. Again is set if it had forgotten us: relay
	// channels are gone, but for those that requests under way open anew. To is
	// where relayed data comes from and goes to, Stream whether that is a connection,
	// and TLS whether over TLS.
	AgentRegistered
	// AgentFailed says why it does not; the Agent goes on trying.
	AgentFailed
	// AgentLost says that the server no longer answers; the Agent goes on trying.
	// Relay channels may still be there when it succeeds.
	AgentLost
	// AgentResolve asks to look the server's name up again.
	AgentResolve
	// AgentAsking says that the Ask of Token is under way; data may leave on
	// Channel already.
	AgentAsking
	// AgentIntroduced is the answer: the Party that we asked for.
	AgentIntroduced
	// AgentNotIntroduced is the other answer, with an Err.
	AgentNotIntroduced
	// AgentAsked is another node's introduction to us: a Party with its Offer.
	AgentAsked
	// AgentChannelLost says that the server does not have that Channel.
	AgentChannelLost
	// AgentDisplaced says that another process accepts in our place.
	AgentDisplaced
	// AgentInvited says that the nameplate that Token asked for is Plate, for Lifetime
	// from now; AgentNotInvited that it is not to be had, or no longer, with an Err.
	AgentInvited
	AgentNotInvited
	// AgentWritten says that the server has a letter, or with an Err why it went nowhere.
	AgentWritten
	// AgentLetter is a letter at a nameplate: its Data, and whom the server says that it
	// is From.
	AgentLetter
)

// ServerEndpoint is an endpoint of the server and the socket to reach it by.
type ServerEndpoint struct {
	Local uint32
	Addr  netip.AddrPort
}

// AgentInput is something that happened.
type AgentInput struct {
	Op          AgentOp
	Servers     []ServerEndpoint
	Streams     []StreamEndpoint
	Local       uint32
	From        netip.AddrPort
	Keep        bool
	Err         error
	Data        []byte
	Description []byte
	Accepting   bool
	Peers       []peer.ID // who may be introduced to us; nil: anybody
	Token       uint64
	Target      peer.ID
	Offer       []byte
	Channel     wire.Channel
	Plate       wire.Plate
	Lifetime    time.Duration
}

// AgentAction is something to do, or to know.
type AgentAction struct {
	Op         AgentOp
	To         ServerEndpoint // of a Send, and of what arrived or will leave by it
	Stream     bool
	TLS        bool
	ICMP       bool          // of a Connect and a Registered: by pings
	RTT        time.Duration // of a Registered, to the server; 0 if not known
	Data       []byte
	Registered wire.Registered
	Again      bool
	Settled    bool
	Token      uint64
	Channel    wire.Channel
	Party      wire.Party
	Plate      wire.Plate
	Lifetime   time.Duration
	From       peer.ID
	Err        error
}

// AgentStats counts the packets that an Agent did not believe.
type AgentStats struct {
	Malformed uint64 // not a message
	Forged    uint64 // not sealed by the server, or changed
	Replayed  uint64
	Strange   uint64 // not from the server's endpoint, or an answer to nothing asked
}

// Agent is a node's side of the rendezvous: it registers, keeps the mappings of
// the node's socket alive, asks for introductions and takes them. It has no
// I/O, clock or goroutine, and is not safe for concurrent use.
type Agent struct {
	cfg     AgentConfig
	secret  peer.Secret
	servers []*serverLeg
	stats   AgentStats

	state     agentState
	lead      *serverLeg // that the Register under way goes by
	box       []byte     // of that Register
	boxNonce  []byte
	counter   uint64 // of our Registers
	hints     time.Time
	failures  int // Registers that nothing valid answered
	silentFor int // tries without any answer
	reported  bool
	wasUp     bool

	racing     bool      // for a connection,
	raced      time.Time // and since when
	byStream   bool      // the latest registration went by a connection
	keepStream bool      // there is one beside UDP
	streamErr  error     // why the latest connection failed

	primary  *serverLeg // where we are registered, as far as we know; nil if nowhere
	said     *serverLeg // what primary was when we last said where
	handle   wire.Handle
	keys     wire.LinkKeys
	window   wire.Window
	sequence uint64

	description []byte
	accepting   bool
	peers       []peer.ID
	epoch       uint32
	dirty       bool // the server has not been told the latest of these
	settled     bool // it has acknowledged the latest
	revision    uint32
	observed    []netip.AddrPort
	observedTCP []netip.AddrPort

	requests []*agentRequest
	plates   []*agentPlate
	channels map[wire.Channel]*agentChannel
	nextChan wire.Channel
	told     [16]wire.TransactionID // the latest introductions to us, a ring
	toldN    int

	now time.Time
	out []AgentAction
}

// agentState is how far registering is. It starts anew while an older
// registration goes on: nobody can end that with a word that is not sealed.
type agentState uint8

const (
	stateIdle    agentState = iota // no server endpoint, or said goodbye
	stateHello                     // a Register without NONCE is under way
	stateProving                   // a Register with NONCE and BOX is
	stateUp                        // registered
)

// serverLeg is our way to the server in one address family, or by a connection, and the
// one request that is under way on it.
type serverLeg struct {
	ServerEndpoint
	stream     *streamLeg // nil: UDP
	attached   bool       // the server has answered by it since it was there
	id         wire.TransactionID
	nonce      []byte
	led        bool // it was the lead of the Register under way
	tries      int
	sentAt     time.Time
	nextAt     time.Time
	rtt        time.Duration
	doubted    time.Time     // when somebody last doubted it
	rest       time.Duration // how long it rested after the latest tries that nothing answered
	challenged time.Time     // when a challenge last made us answer at once
	nudged     time.Time     // when a hint last made us refresh
}

const (
	defaultKeepalive = 15 * time.Second
	firstRTO         = 250 * time.Millisecond
	maxRTO           = 8 * time.Second
	// helloTries without an answer are reported, after five seconds; the Agent
	// goes on. With 10% loss each way on both access links (34% a round trip) that
	// is a false alarm once in 650 times.
	helloTries = 6
	// proveTries without an answer begin anew, failedTries times before the server
	// is reported to be another one.
	proveTries = 4
	// leadTries let another leg lead, if the server has answered by it.
	leadTries   = 2
	failedTries = 2
	// refreshTries without an answer mean that the server is gone.
	refreshTries = 8
	// hintPause is how often an unauthenticated message can make us ask.
	hintPause = 2 * time.Second
	// doubtPause is how often doubts can make us ask.
	doubtPause = time.Second
	// secondLegPause is how long an address family rests that does not work.
	secondLegPause = time.Minute
)

// MaxPeers is how many peers a node can name that may be introduced to it.
const MaxPeers = wire.MaxTags

// NewAgent makes an Agent. It fails only if the server's ID is not one.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	secret, err := cfg.Key.Shared(cfg.Server)
	if err != nil {
		return nil, err
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = defaultKeepalive
	}
	return &Agent{cfg: cfg, secret: secret, channels: make(map[wire.Channel]*agentChannel)}, nil
}

// SetKeepalive changes AgentConfig.Keepalive, from the next refresh on.
func (a *Agent) SetKeepalive(d time.Duration) {
	if a.cfg.Keepalive = d; d == 0 {
		a.cfg.Keepalive = defaultKeepalive
	}
}

// Stats returns the counts of packets that were not believed.
func (a *Agent) Stats() AgentStats { return a.stats }

// Step takes an input at the time now and appends the actions to do. It wants to
// be called again at next; a zero next means that only an input matters.
func (a *Agent) Step(now time.Time, in AgentInput, out []AgentAction) (actions []AgentAction, next time.Time) {
	a.now, a.out = now, out
	switch in.Op {
	case AgentServers:
		a.setServers(in.Servers, in.Streams)
	case AgentPacket:
		a.packet(in.Local, in.From, in.Data)
	case AgentConnected:
		a.connected(in.Local, in.From)
	case AgentDisconnected:
		a.disconnected(in.Local, in.Err)
	case AgentKeepStream:
		a.keepStream = in.Keep
	case AgentUpdate:
		a.update(in)
	case AgentAsk:
		a.ask(in)
	case AgentCloseChannel:
		a.closeChannel(in.Channel)
	case AgentDoubt:
		for _, l := range a.servers {
			a.doubt(l)
		}
	case AgentInvite:
		a.invite(in)
	case AgentUninvite:
		a.uninvite(in.Token)
	case AgentWrite:
		a.write(in)
	case AgentCheck:
		if a.primary != nil {
			a.doubt(a.primary)
		}
	case AgentLeave:
		a.leave()
	default: // AgentTick: nothing but the time
	}
	next = a.run()
	actions, a.out = a.out, nil
	return actions, next
}

func (a *Agent) emit(x AgentAction) { a.out = append(a.out, x) }

func (a *Agent) send(l *serverLeg, b []byte) {
	a.emit(AgentAction{Op: AgentSend, To: l.ServerEndpoint, Data: b})
}

func (a *Agent) transaction() (id wire.TransactionID) {
	if _, err := io.ReadFull(a.cfg.Rand, id[:]); err != nil {
		panic("rendezvous: no randomness: " + err.Error())
	}
	return id
}

// seal builds a sealed message of ours. Every one, repeats included, has its own
// sequence number.
func (a *Agent) seal(t stun.MessageType, id wire.TransactionID, nonce []byte, content wire.Attrs) []byte {
	a.sequence++
	e := wire.Envelope{Type: t, ID: id, Handle: a.handle, Sequence: a.sequence, Nonce: nonce}
	return e.Seal(nil, &a.keys.ToServer, content)
}

func (a *Agent) update(in AgentInput) {
	if slices.Equal(a.description, in.Description) && a.accepting == in.Accepting &&
		slices.Equal(a.peers, in.Peers) && (a.peers == nil) == (in.Peers == nil) {
		return
	}
	a.description, a.accepting, a.peers = slices.Clone(in.Description), in.Accepting, slices.Clone(in.Peers)
	if in.Peers != nil && a.peers == nil {
		a.peers = []peer.ID{}
	}
	a.changed()
}

// changed tells the server at once what is new, under a transaction of its own:
// the answer to an earlier refresh must not pass for this one's.
func (a *Agent) changed() {
	a.dirty, a.settled = true, false
	if a.state == stateUp {
		a.primary.tries = 0
		a.refresh(a.primary)
	}
}

// registration is what we say of ourselves.
func (a *Agent) registration() wire.Registration {
	r := wire.Registration{Instance: a.cfg.Instance, Counter: a.counter, Description: a.description}
	if a.accepting {
		r.Flags |= wire.FlagAccepting
	}
	if a.peers == nil {
		r.Flags |= wire.FlagOpen
		return r
	}
	self := a.cfg.Key.ID()
	for _, p := range a.peers {
		if s, err := a.cfg.Key.Shared(p); err == nil && len(r.Tags) < MaxPeers {
			r.Tags = append(r.Tags, wire.PolicyTag(s, p, self, a.cfg.Server, wire.Epoch(a.now)))
		}
	}
	return r
}

// run does what is due and returns when the next thing is.
func (a *Agent) run() (next time.Time) {
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if a.state == stateUp && a.peers != nil && a.epoch != wire.Epoch(a.now) {
		a.changed()
	}
	for _, l := range a.servers {
		if !l.nextAt.IsZero() && !a.now.Before(l.nextAt) {
			a.due(l)
		}
	}
	earliest(a.runStreams())
	for _, l := range a.servers {
		earliest(l.nextAt)
	}
	if a.primary != nil {
		earliest(a.runRequests())
	}
	return next
}

// quickTries of a request for an introduction follow each other as soon as an
// answer could have come: somebody waits for it, a repeat costs the server a
// look-up, and where both access links lose a fifth, one request in three needs
// more than one try.
const quickTries = 4

// guessedRTT stands in where no round trip was measured, since something was lost
// already: one registration in eight where both access links lose a fifth.
const guessedRTT = 100 * time.Millisecond

// again is how long a request for an introduction waits for its answer after n
// tries.
func (l *serverLeg) again(n int) time.Duration {
	if n >= quickTries {
		return l.rto(n - quickTries)
	}
	rtt := l.rtt
	if rtt == 0 {
		rtt = guessedRTT
	}
	return max(rtt+rtt/4, 50*time.Millisecond)
}

// rto is how long the try after n tries waits for its answer: half as long again
// each time, since most of what is missing was lost and not slow.
func (l *serverLeg) rto(n int) time.Duration {
	first := firstRTO
	if l.rtt > 0 {
		first = max(2*l.rtt, 100*time.Millisecond)
	}
	for range min(n, 16) {
		first += first / 2
	}
	return min(first, maxRTO)
}
