package bodkin

import (
	"net"
	"net/netip"

	"bodkin/internal/node"
	"bodkin/internal/session"
	"bodkin/punch"
)

const classRelay = punch.Relay

// Conn is a connection to a service of a peer. It is a [net.Conn], with
// CloseWrite for half-close, and tells which way its packets take at the moment.
type Conn struct {
	*session.Conn
	node *Node
}

// Route is the route in use now: it changes while the connection lives.
func (c *Conn) Route() Route { return c.node.known.route(c.Overlay()) }

// listener returns Conns, and says why it ended.
type listener struct {
	*session.Listener
	node *Node
}

// Accept implements [net.Listener]; what it returns are *[Conn]s.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		if l.node.Displaced() {
			err = ErrDisplaced
		}
		return nil, err
	}
	return &Conn{Conn: c, node: l.node}, nil
}

// sessionConfig connects the sessions to the path and to the loop.
func (n *Node) sessionConfig() session.Config {
	return session.Config{
		Key:    n.cfg.Key,
		Accept: n.path.Accept(),
		Dial:   n.path.Dial(),
		Moved:  n.path.Moved,

		Identify:  n.known.identify,
		Canonical: n.known.canonical,
		Best:      n.known.best,
		Again:     n.path.Again,
		Admit:     n.policy.admits,
		Allow:     n.allows,
		TCP:       n.handovers.expect,
		Opened:    func(a netip.Addr) { n.tell(node.Input{Op: node.Retain, Overlay: a}) },
		Closed:    n.release,
		Logger:    n.cfg.Logger,
	}
}

// release lets go of a peer that nobody here uses any more.
func (n *Node) release(overlay netip.Addr) {
	if n.sessions.Count(overlay) == 0 {
		n.tell(node.Input{Op: node.Release, Overlay: overlay})
	}
}
