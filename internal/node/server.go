package node

import (
	"slices"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"
	"bodkin/rendezvous"
)

func (c *Core) newAgent() {
	agent, err := rendezvous.NewAgent(rendezvous.AgentConfig{
		Key: c.cfg.Key, Server: c.cfg.Server, Instance: c.cfg.Instance, Rand: c.cfg.Rand,
		NewStream: c.newStream,
	})
	if err != nil {
		// The server's ID was checked when its URL was read.
		panic("node: " + err.Error())
	}
	c.agent = agent
}

// tell steps the agent and passes on what it wants.
func (c *Core) tell(in rendezvous.AgentInput) {
	if c.agent == nil {
		return // there is no server
	}
	before := c.agent.Stats()
	var out []rendezvous.AgentAction
	out, c.agentNext = c.agent.Step(c.now, in, nil)
	c.ignored.replies(before, c.agent.Stats())
	for _, a := range out {
		c.do(a)
	}
}

func (c *Core) tickAgent() { c.tell(rendezvous.AgentInput{Op: rendezvous.AgentTick}) }

func (c *Core) fromServer(in Input) {
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentPacket, Local: uint32(in.By.Local), From: in.By.To, Data: in.Data})
}

// resolve takes in where the server is: an endpoint for each of our families.
func (c *Core) resolve() {
	var legs []rendezvous.ServerEndpoint
	c.servers = nil
	for _, s := range c.sockets {
		for _, a := range c.resolved.Servers {
			if s.Bound.Addr().Is4() == a.Addr().Is4() {
				legs = append(legs, rendezvous.ServerEndpoint{Local: uint32(s.Local), Addr: a})
				c.servers = append(c.servers, a)
				break
			}
		}
	}
	c.tellServers()
	c.tell(rendezvous.AgentInput{
		Op: rendezvous.AgentServers, Servers: legs, Streams: c.resolved.Streams,
	})
}

// describe tells the server how this node may be reached.
func (c *Core) describe() {
	c.tell(rendezvous.AgentInput{
		Op: rendezvous.AgentUpdate, Description: c.self.Side.AppendDescription(nil),
		Accepting: c.accepting, Peers: c.cfg.Peers,
	})
}

func (c *Core) accept() {
	c.accepting = true
	c.describe()
}

// close says goodbye.
func (c *Core) close() {
	c.endMeasuring()
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentLeave})
}

// ask passes a peer's wish to be introduced to the agent.
func (c *Core) ask(m *member, offer []byte) {
	if c.cfg.Serverless {
		c.greet(m, offer)
		return
	}
	c.token++
	c.asks[c.token] = m
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentAsk, Token: c.token, Target: m.peer.ID, Offer: offer})
}

func (c *Core) closeChannel(k path.Key) {
	if k.Channel != 0 {
		c.tell(rendezvous.AgentInput{Op: rendezvous.AgentCloseChannel, Channel: k.Channel})
	}
}

func relayKey(s rendezvous.ServerEndpoint, channel wire.Channel) path.Key {
	return path.Key{Local: punch.Local(s.Local), To: s.Addr, Channel: channel}
}

// do does what the agent asks for.
func (c *Core) do(a rendezvous.AgentAction) {
	switch a.Op {
	case rendezvous.AgentSend:
		c.emit(Action{Op: Send, By: path.Key{Local: punch.Local(a.To.Local), To: a.To.Addr}, Data: a.Data})
	case rendezvous.AgentConnect:
		c.connect(a)
	case rendezvous.AgentDisconnect:
		c.disconnect(a)
	case rendezvous.AgentRegistered:
		c.registered(a)
	case rendezvous.AgentFailed:
		c.emit(Action{Op: RegisterFailed, Err: a.Err})
	case rendezvous.AgentLost:
		c.up = false
		c.all(path.Input{Op: path.ServerSilent})
		c.emit(Action{Op: ServerLost})
	case rendezvous.AgentResolve:
		c.emit(Action{Op: Resolve})
	case rendezvous.AgentAsking:
		if m := c.asks[a.Token]; m != nil {
			c.step(m, path.Input{Op: path.Asking, By: relayKey(a.To, a.Channel)})
		}
	case rendezvous.AgentIntroduced:
		if m := c.asks[a.Token]; m != nil {
			m = c.alias(m, a.Party.Instance)
			c.trying(m, a.Party)
			c.step(m, path.Input{Op: path.Introduced, Party: a.Party})
			c.askForTCP(m)
		}
		delete(c.asks, a.Token)
	case rendezvous.AgentNotIntroduced:
		if m := c.asks[a.Token]; m != nil {
			c.step(m, path.Input{Op: path.AskFailed, Err: a.Err})
		}
		delete(c.asks, a.Token)
	case rendezvous.AgentAsked:
		c.asked(a)
	case rendezvous.AgentChannelLost:
		by := relayKey(a.To, a.Channel)
		c.all(path.Input{Op: path.ChannelLost, By: by})
	case rendezvous.AgentInvited:
		c.invited(a)
	case rendezvous.AgentNotInvited:
		if p := c.pairingOf(a.Token); p != nil {
			c.notPaired(p, a.Err)
		}
	case rendezvous.AgentWritten:
		c.wrote(a.Token, a.Err)
	case rendezvous.AgentLetter:
		c.letter(a.Plate, a.From, a.Data)
	case rendezvous.AgentDisplaced:
		c.accepting = false
		c.emit(Action{Op: Displaced})
	default: // inputs
	}
}

// registered takes in how the server sees us.
func (c *Core) registered(a rendezvous.AgentAction) {
	moved := len(c.self.Side.Observed) > 0 && len(a.Registered.Observed) > 0 &&
		c.self.Side.Observed[0] != a.Registered.Observed[0]
	hadTCP := len(c.self.Side.ObservedTCP) > 0
	c.self.Side.Observed, c.self.Side.ObservedTCP = a.Registered.Observed, a.Registered.ObservedTCP
	c.self.Side.ServerRTT = a.RTT
	if moved {
		c.self.Moves++
		c.gather()
	}
	c.keepReserve()
	for _, m := range c.members {
		c.relays(m, a)
	}
	c.emit(Action{
		Op: Registered, Registered: a.Registered, Via: viaOf(a), Settled: a.Settled, Accepting: c.accepting, Admits: c.admits,
	})
	if !c.up || a.Again {
		c.up = true
		c.all(path.Input{Op: path.ServerUp})
		c.revive()
	}
	if moved || c.measuring.measurement == nil {
		c.measure()
		c.askEcho()
	}
	if moved {
		c.all(path.Input{Op: path.NetworkChanged})
	}
	if !hadTCP && len(c.self.Side.ObservedTCP) > 0 {
		c.seenByTCP()
		c.measureTCP()
	}
}

// revive is for the peers whose traffic takes the relay: it can again, which changes no
// route where the server was silent and has not forgotten us.
func (c *Core) revive() {
	for _, m := range c.members {
		if r := m.peer.Routes(); len(r) > 0 && !r[0].Direct() {
			c.emit(Action{Op: Revive, Overlay: m.overlay, Silent: true})
		}
	}
}

// relays drops the relay routes that a server no longer has, and moves those that
// it has to the endpoint where it has them now.
func (c *Core) relays(m *member, a rendezvous.AgentAction) {
	asking := false
	for _, x := range c.asks {
		asking = asking || x == m
	}
	for _, r := range slices.Clone(m.peer.Routes()) {
		now := relayKey(a.To, r.Channel)
		switch {
		case r.Direct():
		case a.Again && (!asking || !r.Channel.Asked()):
			c.step(m, path.Input{Op: path.ChannelLost, By: r.Key})
		case r.Key != now:
			c.step(m, path.Input{Op: path.Relay, By: now})
			c.step(m, path.Input{Op: path.ChannelLost, By: r.Key})
		}
	}
}

// all steps every peer.
func (c *Core) all(in path.Input) {
	for _, m := range slices.Clone(c.members) {
		c.step(m, in)
	}
}

// origin is a process of a peer.
type origin struct {
	id       peer.ID
	instance uint64
}

// maxOrigins bounds the processes whose offers are remembered. Above it some are
// forgotten, and a server that kept an offer of theirs could bring it again.
const maxOrigins = 4096

// asked opens the offer of another node's introduction. One that the node itself
// did not seal, for us and for this server, is refused: the server may have made
// it up. So is one that we had: the server may have kept it.
func (c *Core) asked(a rendezvous.AgentAction) {
	from, offer, err := c.openOffer(a.Party.Offer)
	if err != nil || from != a.Party.ID || offer.Instance != a.Party.Instance {
		c.ignored.add(forgedOffer, 1)
		return
	}
	c.offered(a.Party, offer, relayKey(a.To, a.Channel))
}

// openOffer opens what a peer sealed for us, and not we ourselves.
func (c *Core) openOffer(box []byte) (from peer.ID, offer wire.Offer, err error) {
	from, content, err := c.cfg.Key.Open(wire.OfferPurpose, c.cfg.Server[:], box)
	if err == nil && from == c.cfg.Key.ID() {
		err = errSelf
	}
	if err == nil {
		offer, err = wire.ParseOffer(content)
	}
	return from, offer, err
}

// offered begins to punch after an offer that is its sender's, and new.
func (c *Core) offered(party wire.Party, offer wire.Offer, by path.Key) {
	from := party.ID
	if !c.allowed(from) {
		c.ignored.add(notAllowed, 1)
		return
	}
	o := origin{from, offer.Instance}
	if offer.Counter <= c.offers[o] {
		c.ignored.add(replayedOffer, 1)
		return
	}
	m, err := c.member(from, offer.Instance)
	if err != nil {
		c.ignored.add(forgedOffer, 1)
		return
	}
	for x := range c.offers {
		if len(c.offers) < maxOrigins {
			break
		}
		delete(c.offers, x)
	}
	c.offers[o] = offer.Counter
	if !m.released.IsZero() {
		m.released = c.now
	}
	c.trying(m, party)
	before := m.peer.Ignored()
	c.step(m, path.Input{Op: path.Asked, By: by, Party: party, Offer: offer})
	if m.peer.Ignored() != before {
		c.ignored.add(malformedOffer, 1)
	}
}
