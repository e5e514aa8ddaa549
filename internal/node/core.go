package node

import (
	"crypto/rand"
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/pair"
	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/peer"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// Config is what a Core is made of.
type Config struct {
	Key    peer.Key
	Server peer.ID
	// Serverless is set where there is no server: At are then the endpoints of peers.
	Serverless bool
	At         map[peer.ID]netip.AddrPort
	Instance   uint64    // drawn at random by each process
	Peers      []peer.ID // who may be introduced to us; nil: anybody
	// Abilities are the kinds of holes to punch, of those that the driver can; with 0,
	// everything stays on the relay.
	Abilities punch.Abilities
	// Profile, if not nil, is believed instead of measuring the NAT. A node that
	// does not punch has none.
	Profile *nat.Profile
	// Traffic is path.Self's.
	Traffic func(path.Key) (sent, arrived uint64)
	Rand    io.Reader // crypto/rand if nil
}

// Op says what an Input or an Action is.
type Op uint8

// Inputs.
const (
	// Network names the Sockets that there are, those for ICMP, the TCP Ports, and the
	// Links' prefixes.
	Network Op = iota + 1
	// Resolved names the server's endpoints, one a family, and in Streams those for
	// connections.
	Resolved
	// Connected says that the connection Local to the server is open, From being what
	// is at its other end; Disconnected that it could not be opened, or ended, with an
	// Err.
	Connected
	Disconnected
	// Mapped names the endpoints at which routers forward to our sockets.
	Mapped
	// Packet is a STUN packet that came by By.
	Packet
	// Bound says that the socket Local is open, bound to From, after a Bind; or, if
	// From is not valid, that it could not be opened.
	Bound
	// PeerConnected says that the TCP connection Local with From stands after a
	// ConnectPeer, and PeerGone that there is none, or none any more, and Why.
	PeerConnected
	PeerGone
	// SeenTCP is the answer, Data, to an AskTCP that left from the port of From; without
	// Data there was none.
	SeenTCP
	// Accepted is the first packet, Data, on a connection By that came in. Where no peer
	// takes it, Unbind follows.
	Accepted
	// Greeted is a hello, Data, that came from the address of From, without a server.
	Greeted
	// Dial says that somebody wants to reach ID; Release of an Overlay that
	// nobody does any more; Retain that a session with it is open.
	Dial
	Release
	Retain
	// Accept says that this node takes connections, from now on.
	Accept
	// Active is path.Active for the peer of Overlay.
	Active
	// Answered says that the peer of Overlay is heard again after an outage.
	Answered
	// Doubt says that routes may lead elsewhere now, or that the machine was asleep.
	Doubt
	// Admit names the Peers who may be introduced to us from now on; nil: anybody.
	Admit
	// Invite asks for a code that is good for Lifetime, Join uses a Code, and Unpair
	// gives either up. Token names it.
	Invite
	Join
	Unpair
	// Close says goodbye to the server.
	Close
	// Tick says only that it is later.
	Tick
)

// Actions.
const (
	// Send asks to send Data, with a TTL if not 0.
	Send Op = iota + 32
	// Bind asks for one more UDP socket, By.Local, bound to By.To, and Unbind closes
	// it. One that cannot be opened is answered with a Bound from nowhere.
	Bind
	Unbind
	// Connect asks to open the connection By.Local to the server, at By.To, or by the
	// server's name if that is not valid, over TLS, ICMP or plain TCP. Disconnect closes it,
	// or gives it up.
	Connect
	Disconnect
	// ConnectPeer is path.Connect.
	ConnectPeer
	// AskTCP asks to send Data to By.To by a TCP connection of its own, from any port,
	// and to close that after the answer. SeenTCP follows.
	AskTCP
	// Greet asks to send the hello Data to the peer ID, behind the NAT at By.To.
	Greet
	// Resolve asks to look the server's name up again.
	Resolve
	// Servers names the endpoints that relayed data may come from.
	Servers
	// AddPeer, Alias and RemovePeer say which overlay addresses there are.
	AddPeer
	Alias
	RemovePeer
	// Hear, Unhear and Publish are path's, for Overlay.
	Hear
	Unhear
	Publish
	// Revive is for Overlay, too: an outage is over, where Silent says only if nothing has
	// come in.
	Revive
	// Happened is something about the peer ID, in Event.
	Happened
	// Registered and RegisterFailed tell how the server took us, ServerLost
	// that it is silent, Displaced that another process accepts in our place.
	Registered
	RegisterFailed
	ServerLost
	Displaced
	// Measured tells what is known of our NAT now, in Report.
	Measured
	// Invited tells the Code that Token asked for, and Until when it is good.
	Invited
	// Paired says that ID is who we invited, or who invited us; NotPaired why there is
	// nobody. PairingOver comes after either, when the other side has been told.
	Paired
	NotPaired
	PairingOver
)

// Input is something that happened.
type Input struct {
	Op      Op
	ID      peer.ID
	Overlay netip.Addr
	Local   punch.Local
	From    netip.AddrPort
	Data    []byte
	By      path.Key
	Heard   time.Time
	Size    int
	Sockets []path.LocalSocket
	ICMP    []path.LocalSocket
	Ports   []path.LocalSocket
	Links   []netip.Prefix
	Servers []netip.AddrPort
	Streams []rendezvous.StreamEndpoint
	Mapped  []netip.AddrPort
	Peers   []peer.ID
	Err     error
	Why     punch.Failure // of PeerGone

	Token    uint64
	Lifetime time.Duration
	Code     pair.Code
}

// Action is something to do, or to know.
type Action struct {
	Op         Op
	ID         peer.ID
	Overlay    netip.Addr
	Of         netip.Addr // of an Alias: what it stands for
	By         path.Key
	TTL        uint8
	Port       punch.Local
	Data       []byte
	Routes     []path.Route
	Servers    []netip.AddrPort
	Event      path.Happening
	Registered wire.Registered
	Via        Via  // of a Registered
	TLS, ICMP  bool // of Connect
	Report     *nat.Report
	Silent     bool   // of a Revive
	Settled    bool   // of a Registered: the server knows the latest that we said,
	Accepting  bool   // and whether that was that we accept,
	Admits     uint64 // after how many of Admit
	Token      uint64
	Code       pair.Code
	Until      time.Time
	Err        error
}

// Core is the state of one node. It is not safe for concurrent use.
type Core struct {
	cfg       Config
	self      path.Self
	agent     *rendezvous.Agent
	resolved  Input                       // where the server's name led
	servers   []netip.AddrPort            // those of them that we use
	streams   []rendezvous.ServerEndpoint // connections to it
	keeping   bool                        // one of them beside UDP
	relayed   time.Time                   // when data last left by the relay
	checkAt   time.Time                   // when to look whether that is still there
	sockets   []path.LocalSocket
	icmp      icmp
	ports     []path.LocalSocket // of TCP
	mapped    []netip.AddrPort   // by routers
	up        bool               // registered
	accepting bool
	admits    uint64
	members   []*member
	byOverlay map[netip.Addr]*member  // aliases included
	asks      map[uint64]*member      // by the agent's token
	extra     map[punch.Local]*member // sockets that were asked for, and for whom
	token     uint64
	offers    map[origin]uint64 // the highest counter of each process's offers
	pairings  []*pairing
	measuring measuring
	reserve   reserve

	measuringTCP tcpMeasuring

	agentNext time.Time
	now       time.Time
	out       []Action

	ignored counters
}

// New makes a Core; nothing happens before Network and Resolved.
func New(cfg Config) *Core {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	c := &Core{
		cfg:       cfg,
		byOverlay: make(map[netip.Addr]*member),
		asks:      make(map[uint64]*member),
		extra:     make(map[punch.Local]*member),
		offers:    make(map[origin]uint64),
	}
	c.self = path.Self{
		Key: cfg.Key, Server: cfg.Server, Instance: cfg.Instance, Rand: cfg.Rand,
		Side: punch.Side{ID: cfg.Key.ID(), Abilities: cfg.Abilities}, Traffic: cfg.Traffic,
	}
	if cfg.Profile != nil && cfg.Abilities != 0 {
		c.self.Side.Profile = *cfg.Profile
	}
	if c.up = cfg.Serverless; !c.up {
		c.newAgent()
	}
	return c
}

// Step takes an input at the time now and appends the actions to do. It wants to
// be called again at next; a zero next means that only an input matters.
func (c *Core) Step(now time.Time, in Input, out []Action) (actions []Action, next time.Time) {
	c.now, c.out = now, out
	c.stamp()
	c.age()
	c.ageTCP()
	switch in.Op {
	case Network:
		c.network(in)
	case Resolved:
		c.resolved = in
		c.resolve()
	case Connected:
		c.connected(in)
	case Disconnected:
		c.disconnected(in)
	case Mapped:
		c.mapping(in.Mapped)
	case Packet:
		c.packet(in)
	case Bound:
		c.bound(in)
	case PeerConnected, PeerGone:
		c.connection(in)
	case Accepted:
		c.accepted(in)
	case SeenTCP:
		c.seenTCP(in)
	case Greeted:
		c.greeted(in)
	case Dial:
		c.dial(in.ID)
	case Release:
		if m := c.byOverlay[in.Overlay]; m != nil {
			m.released = now
			c.step(m, path.Input{Op: path.Unwant})
		}
	case Retain:
		if m := c.byOverlay[in.Overlay]; m != nil {
			m.released = time.Time{}
		}
	case Accept:
		c.accept()
	case Answered:
		c.emit(Action{Op: Revive, Overlay: in.Overlay})
	case Active:
		c.relaying(in.By)
		if m := c.byOverlay[in.Overlay]; m != nil {
			c.step(m, path.Input{Op: path.Active, By: in.By, Heard: in.Heard, Size: in.Size})
		}
	case Doubt:
		c.tell(rendezvous.AgentInput{Op: rendezvous.AgentDoubt})
		c.all(path.Input{Op: path.Recheck})
	case Admit:
		c.cfg.Peers = in.Peers
		c.admits++
		c.describe()
	case Invite:
		c.invite(in)
	case Join:
		c.join(in)
	case Unpair:
		c.endPairing(in.Token)
	case Close:
		c.close()
	default: // Tick: nothing but the time
	}
	next = c.run()
	actions, c.out = c.out, nil
	return actions, next
}

func (c *Core) emit(a Action) { c.out = append(c.out, a) }

// run does what is due and returns when the next thing is.
func (c *Core) run() (next time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !c.now.Before(t) }
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if due(c.agentNext) {
		c.tickAgent()
	}
	c.tickMeasuring()
	if due(c.checkAt) {
		c.checkRelay()
	}
	c.tickICMP()
	for _, m := range slices.Clone(c.members) {
		if due(m.next) {
			c.step(m, path.Input{Op: path.Tick})
		}
		if due(m.goes()) {
			c.remove(m)
			continue
		}
		earliest(m.next)
		earliest(m.goes())
	}
	earliest(c.tickPairings())
	earliest(c.keepStream())
	earliest(c.checkAt)
	earliest(c.agentNext)
	earliest(c.measuring.next)
	earliest(c.measuring.recount)
	earliest(c.measuring.lifetimes)
	earliest(c.icmp.next)
	return next
}

// packet gives a STUN packet to the agent or to the peer whose probe it is.
func (c *Core) packet(in Input) {
	if s, ok := c.measuring.sockets[in.By.Local]; ok {
		c.stepMeasuring(nat.Input{Op: nat.Packet, Socket: s, From: in.By.To, Data: in.Data})
		return
	}
	if c.seenAs(in) {
		return
	}
	if c.ofServer(in.By) {
		c.fromServer(in)
		return
	}
	probe, err := wire.ParseProbe(in.Data)
	if err != nil {
		c.ignored.add(malformedProbe, 1)
		return
	}
	if c.cfg.Abilities == 0 {
		c.ignored.add(unknownSession, 1)
		return
	}
	for _, m := range c.members {
		if m.peer.Session(probe.Session) {
			before := m.peer.Ignored()
			c.step(m, path.Input{Op: path.Packet, By: in.By, Data: in.Data})
			c.ignored.probes(before, m.peer.Ignored())
			return
		}
	}
	c.ignored.add(unknownSession, 1)
}

// bound tells who asked for a socket that it is open.
func (c *Core) bound(in Input) {
	if s, ok := c.measuring.sockets[in.Local]; ok {
		op := nat.Opened
		if !in.From.IsValid() {
			op = nat.OpenFailed
		}
		c.stepMeasuring(nat.Input{Op: op, Socket: s, Bound: in.From})
		return
	}
	if in.Local == c.reserve.local {
		c.reserved(in.From)
		return
	}
	if m := c.extra[in.Local]; m != nil && in.From.IsValid() {
		c.step(m, path.Input{Op: path.Bound, By: path.Key{Local: in.Local, To: in.From}})
	}
}

// network takes in which sockets and addresses there are now.
func (c *Core) network(in Input) {
	moved := !slices.Equal(c.sockets, in.Sockets)
	c.sockets, c.icmp.sockets, c.ports = in.Sockets, in.ICMP, in.Ports
	c.self.Links = in.Links
	c.gather()
	if moved && c.resolved.Op == Resolved {
		c.resolve()
	}
	c.all(path.Input{Op: path.NetworkChanged})
}

// mapping takes in which mappings there are now.
func (c *Core) mapping(endpoints []netip.AddrPort) {
	if slices.Equal(c.mapped, endpoints) {
		return
	}
	c.mapped = endpoints
	c.gather()
	c.all(path.Input{Op: path.CandidatesChanged})
}

// addMapped adds the endpoints at which routers forward, those of pinholes once.
func (c *Core) addMapped() {
	for _, e := range c.mapped[:min(len(c.mapped), maxMappedCandidates)] {
		same := func(x punch.Candidate) bool { return x.Endpoint == e }
		if !slices.ContainsFunc(c.self.Side.Candidates, same) {
			c.self.Side.Candidates = append(c.self.Side.Candidates, punch.Candidate{
				Kind: punch.Mapped, Transport: punch.UDP, Endpoint: e,
			})
		}
	}
}

// hostCandidates are our addresses with the ports of the sockets bound to them.
func hostCandidates(sockets []path.LocalSocket, links []netip.Prefix, by punch.Transport) (out []punch.Candidate) {
	for _, l := range links {
		a := l.Addr()
		for _, s := range sockets {
			b := s.Bound.Addr()
			if a.Is4() == b.Is4() && (b.IsUnspecified() || b == a) && len(out) < maxHostCandidates {
				out = append(out, punch.Candidate{
					Kind: punch.Host, Transport: by, Endpoint: netip.AddrPortFrom(a, s.Bound.Port()),
				})
			}
		}
	}
	return out
}

// maxHostCandidates leaves room in a description for candidates of other kinds.
const maxHostCandidates = 6

// maxMappedCandidates is how many mappings are offered: one is enough, but we may
// have several routers.
const maxMappedCandidates = 4

// allowed reports whether the policy lets a peer in.
func (c *Core) allowed(id peer.ID) bool {
	return c.cfg.Peers == nil || slices.Contains(c.cfg.Peers, id)
}
