package node

import (
	"slices"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/punch"
)

// NewLocal numbers a connection that came in.
func (c *Core) NewLocal(t punch.Transport) punch.Local { return c.self.NewLocal(t) }

// Expects reports whether a packet says that it is a probe of a session with a peer. It
// may still be forged.
func (c *Core) Expects(packet []byte) bool {
	probe, err := wire.ParseProbe(packet)
	if err != nil || !slices.ContainsFunc(c.members, func(m *member) bool { return m.peer.Session(probe.Session) }) {
		c.ignored.add(unknownSession, 1)
		return false
	}
	return true
}

// gatherTCP adds the TCP ports to what punches, and the endpoints at which they may be
// reached to what the server is told.
func (c *Core) gatherTCP() {
	c.self.Ports = nil
	if !c.cfg.Abilities.Has(punch.ByTCP) {
		return
	}
	c.self.Ports = c.ports
	c.self.Side.Candidates = append(c.self.Side.Candidates, hostCandidates(c.ports, c.self.Links, punch.TCP)...)
}

// connection tells the peer's attempts that a connection stands, or not any more.
func (c *Core) connection(in Input) {
	m := c.extra[in.Local]
	if m == nil {
		if in.Op == PeerConnected {
			c.emit(Action{Op: Unbind, By: path.Key{Local: in.Local}}) // nobody wants it any more
		}
		return
	}
	op := path.Connected
	if in.Op == PeerGone {
		op = path.Disconnected
		delete(c.extra, in.Local)
	}
	c.step(m, path.Input{Op: op, By: path.Key{Local: in.Local, To: in.From}, Why: in.Why})
}

// accepted gives a connection that came in to the peer whose probe is the first that it
// carries. One on which a stranger speaks is closed.
func (c *Core) accepted(in Input) {
	l := in.By.Local
	c.packet(in)
	for _, m := range c.members {
		if m.peer.Owns(l) {
			c.extra[l] = m
			return
		}
	}
	c.emit(Action{Op: Unbind, By: path.Key{Local: l}})
}
