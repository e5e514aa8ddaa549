package node

import (
	"net/netip"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/punch"
	"bodkin/rendezvous"
)

func (c *Core) newAgent() {
	agent, err := rendezvous.NewAgent(rendezvous.AgentConfig{
		Key: c.cfg.Key, Server: c.cfg.Server, Instance: c.cfg.Instance, Rand: c.cfg.Rand,
	})
	if err != nil {
		// The server's ID was checked when its URL was read.
		panic("node: " + err.Error())
	}
	c.agent = agent
}

// tell steps the agent and passes on what it wants.
func (c *Core) tell(in rendezvous.AgentInput) {
	var out []rendezvous.AgentAction
	out, c.agentNext = c.agent.Step(c.now, in, nil)
	for _, a := range out {
		c.do(a)
	}
}

func (c *Core) tickAgent() { c.tell(rendezvous.AgentInput{Op: rendezvous.AgentTick}) }

func (c *Core) fromServer(in Input) {
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentPacket, From: in.From, Data: in.Data})
}

// resolved takes in where the server is: an endpoint for each of our families.
func (c *Core) resolved(addrs []netip.AddrPort) {
	var legs []rendezvous.ServerEndpoint
	c.servers = nil
	for _, s := range c.sockets {
		for _, a := range addrs {
			if s.Bound.Addr().Is4() == a.Addr().Is4() {
				legs = append(legs, rendezvous.ServerEndpoint{Local: uint32(s.Local), Addr: a})
				c.servers = append(c.servers, a)
				break
			}
		}
	}
	c.emit(Action{Op: Servers, Servers: c.servers})
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentServers, Servers: legs})
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
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentLeave})
}

// ask passes a peer's wish to be introduced to the agent.
func (c *Core) ask(m *member, offer []byte) {
	c.token++
	c.asks[c.token] = m
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentAsk, Token: c.token, Target: m.peer.ID, Offer: offer})
}

func (c *Core) closeChannel(k path.Key) {
	if k.Channel != 0 && c.up {
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
	case rendezvous.AgentRegistered:
		c.registered(a)
	case rendezvous.AgentFailed:
		c.emit(Action{Op: RegisterFailed, Err: a.Err})
	case rendezvous.AgentLost:
		c.down()
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
			c.step(m, path.Input{Op: path.Introduced, Party: a.Party})
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
	c.self.Side.Observed = a.Registered.Observed
	if a.Again {
		c.down()
	}
	c.emit(Action{Op: Registered, Registered: a.Registered, Settled: a.Settled, Accepting: c.accepting})
	if !c.up {
		c.up = true
		c.all(path.Input{Op: path.ServerUp})
	}
	if moved {
		c.all(path.Input{Op: path.NetworkChanged})
	}
}

func (c *Core) down() {
	if c.up {
		c.up = false
		c.all(path.Input{Op: path.ServerDown})
	}
}

// all steps every peer.
func (c *Core) all(in path.Input) {
	for overlay, m := range c.members {
		if overlay == m.overlay {
			c.step(m, in)
		}
	}
}

// asked opens the offer of another node's introduction. One that the node itself
// did not seal, for us and for this server, is refused: the server may have made
// it up.
func (c *Core) asked(a rendezvous.AgentAction) {
	from, content, err := c.cfg.Key.Open(wire.OfferPurpose, c.cfg.Server[:], a.Party.Offer)
	if err != nil || from != a.Party.ID {
		c.Forged++
		return
	}
	offer, err := wire.ParseOffer(wire.Attrs(content))
	if err != nil || offer.Instance != a.Party.Instance {
		c.Forged++
		return
	}
	if !c.allowed(from) {
		c.Refused++
		return
	}
	m, err := c.member(from, offer.Instance)
	if err != nil {
		c.Forged++
		return
	}
	if !m.released.IsZero() {
		m.released = c.now
	}
	c.step(m, path.Input{Op: path.Asked, By: relayKey(a.To, a.Channel), Party: a.Party, Offer: offer})
}
