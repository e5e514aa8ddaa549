package node

import (
	"slices"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// Connections to the server: the agent says when there is one, the driver opens it,
// and from then on it is a Local like any other. What peers punch by TCP are other
// Locals.

// newStream numbers a connection.
func (c *Core) newStream() uint32 { return uint32(c.self.NewLocal(punch.TCP)) }

// connect passes on that the agent wants a connection.
func (c *Core) connect(a rendezvous.AgentAction) {
	c.streams = append(c.streams, rendezvous.ServerEndpoint{Local: a.To.Local})
	c.emit(Action{Op: Connect, By: path.Key{Local: punch.Local(a.To.Local), To: a.To.Addr}, TLS: a.TLS, ICMP: a.ICMP})
}

// disconnect passes on that the agent has no use for a connection any more.
func (c *Core) disconnect(a rendezvous.AgentAction) {
	c.forgetStream(a.To.Local)
	c.emit(Action{Op: Disconnect, By: path.Key{Local: punch.Local(a.To.Local)}})
}

func (c *Core) forgetStream(local uint32) {
	c.streams = slices.DeleteFunc(c.streams, func(s rendezvous.ServerEndpoint) bool { return s.Local == local })
	c.tellServers()
}

// connected takes in that a connection is open.
func (c *Core) connected(in Input) {
	for i, s := range c.streams {
		if s.Local == uint32(in.Local) {
			c.streams[i].Addr = in.From
			c.tellServers()
			c.tell(rendezvous.AgentInput{Op: rendezvous.AgentConnected, Local: s.Local, From: in.From})
		}
	}
}

// disconnected takes in that a connection could not be opened, or ended.
func (c *Core) disconnected(in Input) {
	c.forgetStream(uint32(in.Local))
	c.tell(rendezvous.AgentInput{Op: rendezvous.AgentDisconnected, Local: uint32(in.Local), Err: in.Err})
}

// ofServer reports whether a packet came from the server, by UDP or by a connection.
func (c *Core) ofServer(by path.Key) bool {
	if by.Channel != 0 {
		return false
	}
	if by.Local.Transport() == punch.TCP {
		return slices.Contains(c.streams, rendezvous.ServerEndpoint{Local: uint32(by.Local), Addr: by.To})
	}
	return slices.Contains(c.servers, by.To)
}

// tellServers names the endpoints that relayed data may come from.
func (c *Core) tellServers() {
	all := slices.Clone(c.servers)
	for _, s := range c.streams {
		if s.Addr.IsValid() && !slices.Contains(all, s.Addr) {
			all = append(all, s.Addr)
		}
	}
	c.emit(Action{Op: Servers, Servers: all})
}

// byTCPAfter is how long an attempt by UDP goes on before it is prepared to punch by TCP:
// a server has better use for its memory than a connection of every node.
const byTCPAfter = 1500 * time.Millisecond

// trying takes note of an introduction. A peer whose UDP the server does not see can be
// reached by TCP alone.
func (c *Core) trying(m *member, party wire.Party) {
	c.freshenTCP()
	m.trying, m.byTCP = c.now, len(party.ObservedTCP) > 0
	if m.byTCP && len(party.Observed) == 0 {
		m.trying = c.now.Add(-byTCPAfter)
	}
}

// askForTCP asks for a peer once more that may be reached by TCP alone, because the
// server does not see our UDP, and had no connection of its own: it has one a moment
// after it was told of us.
func (c *Core) askForTCP(m *member) {
	if c.cfg.Abilities.Has(punch.ByTCP) && !m.byTCP && !m.repeated && len(c.self.Side.Observed) == 0 {
		m.repeated = true
		c.step(m, path.Input{Op: path.CandidatesChanged, Again: true})
	}
}

// keepStream says whether there is to be a connection beside UDP, so that the server sees
// our TCP: where we punch by TCP alone, where holes by UDP may fail because of our own
// NAT, and while they do. It returns when that may change.
func (c *Core) keepStream() (next time.Time) {
	if !c.cfg.Abilities.Has(punch.ByTCP) {
		return time.Time{}
	}
	keep := !c.cfg.Abilities.Has(punch.ByUDP) || c.self.Side.Profile.Mapping >= nat.AddressDependent
	for _, m := range c.members {
		switch at := m.trying.Add(byTCPAfter); {
		case m.trying.IsZero():
		case slices.ContainsFunc(m.peer.Routes(), func(r path.Route) bool { return r.Direct() && r.Transport() >= punch.TCP }):
			m.trying, m.repeated = time.Time{}, false
		case !c.now.Before(at):
			keep = true
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	if keep != c.keeping {
		c.keeping = keep
		c.tell(rendezvous.AgentInput{Op: rendezvous.AgentKeepStream, Keep: keep})
	}
	return next
}

// seenByTCP asks for the peers to which there is no hole once more: the server sees our
// TCP now.
func (c *Core) seenByTCP() {
	for _, m := range slices.Clone(c.members) {
		c.step(m, path.Input{Op: path.CandidatesChanged, Again: m.byTCP && !m.trying.IsZero()})
	}
}

const (
	// relayCheck is how often we look whether the server is there while it relays for
	// us: who only receives misses nothing when nothing comes.
	relayCheck = 3 * time.Second
	// relayQuiet is how long nothing was relayed when we stop to.
	relayQuiet = 15 * time.Second
)

// relaying takes note that data leaves by a route.
func (c *Core) relaying(by path.Key) {
	if by.Channel == 0 {
		return
	}
	if c.relayed = c.now; c.checkAt.IsZero() {
		c.checkAt = c.now.Add(relayCheck)
	}
}

func (c *Core) checkRelay() {
	c.checkAt = time.Time{}
	if c.now.Sub(c.relayed) < relayQuiet {
		c.checkAt = c.now.Add(relayCheck)
		c.tell(rendezvous.AgentInput{Op: rendezvous.AgentCheck})
	}
}

// viaOf is by what the server is reached.
func viaOf(a rendezvous.AgentAction) Via {
	switch {
	case a.TLS:
		return ViaTLS
	case a.ICMP:
		return ViaICMP
	case a.Stream:
		return ViaTCP
	}
	return ViaUDP
}

// Via is by what the server is reached.
type Via string

// Ways to the server.
const (
	ViaUDP  Via = "udp"
	ViaTCP  Via = "tcp"
	ViaTLS  Via = "tls"
	ViaICMP Via = "icmp"
)
