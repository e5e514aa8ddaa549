package node

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// member is a peer and the overlay address under which packets reach it. A peer
// that we dialled is known under its address of instance 0 first, and of its
// real instance too once the introduction told it.
type member struct {
	peer     *path.Peer
	overlay  netip.Addr
	next     time.Time
	released time.Time // since when nobody uses it; zero: in use
	trying   time.Time // since when there is no hole; zero: there is one, or no attempt
	byTCP    bool      // the server sees its TCP
	repeated bool      // we asked again because it did not
}

// linger is how long a hole that nobody uses is kept: the next dial finds it.
const linger = time.Minute

// goes is when the member will be forgotten.
func (m *member) goes() time.Time {
	if m.released.IsZero() {
		return time.Time{}
	}
	return m.released.Add(linger)
}

// member finds or makes the peer of an ID and instance.
func (c *Core) member(id peer.ID, instance uint64) (*member, error) {
	overlay := peer.Overlay(id, instance)
	if m := c.byOverlay[overlay]; m != nil {
		return m, nil
	}
	p, err := path.NewPeer(&c.self, id)
	if err != nil {
		return nil, err
	}
	p.Instance = instance
	m := &member{peer: p, overlay: overlay, released: c.now}
	c.members, c.byOverlay[overlay] = append(c.members, m), m
	c.emit(Action{Op: AddPeer, ID: id, Overlay: overlay})
	if c.up {
		c.step(m, path.Input{Op: path.ServerUp})
	}
	return m, nil
}

// errSelf refuses to dial our own ID: between two processes of one key the two
// directions of a probe would have the same keys.
var errSelf = errors.New("that is this node's own ID")

func (c *Core) dial(id peer.ID) {
	m, err := c.member(id, 0)
	if id == c.cfg.Key.ID() {
		err = errSelf
	}
	if err != nil {
		c.emit(Action{Op: Happened, ID: id, Overlay: peer.Overlay(id, 0), Event: path.Happening{Kind: path.Failed, Err: err}})
		return
	}
	m.released = time.Time{}
	c.step(m, path.Input{Op: path.Want})
}

// alias makes the member that we dialled known under its real instance, or, where
// the same process of the peer is known already because it dialled us, hands our
// introduction over to that member: one endpoint is one member.
func (c *Core) alias(m *member, instance uint64) *member {
	overlay := peer.Overlay(m.peer.ID, instance)
	other := c.byOverlay[overlay]
	switch other {
	case m:
		return m
	case nil:
		c.byOverlay[overlay] = m
		c.emit(Action{Op: Alias, ID: m.peer.ID, Overlay: overlay, Of: m.overlay})
		return m
	}
	if m.peer.Instance != 0 {
		// It was another process's until now, which is gone.
		c.emit(Action{Op: Happened, ID: m.peer.ID, Overlay: m.overlay, Event: path.Happening{Kind: path.Restarted}})
	}
	c.step(m, path.Input{Op: path.Forget})
	for _, a := range c.addresses(m) {
		c.byOverlay[a] = other
		c.emit(Action{Op: Alias, ID: m.peer.ID, Overlay: a, Of: other.overlay})
	}
	c.members = slices.DeleteFunc(c.members, func(x *member) bool { return x == m })
	for token, x := range c.asks {
		if x == m {
			c.asks[token] = other
		}
	}
	other.released = m.released
	sources, relays := other.peer.Adopt(m.peer)
	for _, k := range sources {
		c.emit(Action{Op: Unhear, By: k})
	}
	for _, k := range relays {
		c.step(other, path.Input{Op: path.Asking, By: k})
	}
	return other
}

// addresses are all overlay addresses of a member, always in the same order.
func (c *Core) addresses(m *member) (out []netip.Addr) {
	for a, x := range c.byOverlay {
		if x == m {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func (c *Core) remove(m *member) {
	c.step(m, path.Input{Op: path.Forget})
	for _, a := range c.addresses(m) {
		delete(c.byOverlay, a)
	}
	c.members = slices.DeleteFunc(c.members, func(x *member) bool { return x == m })
	for token, x := range c.asks {
		if x == m {
			delete(c.asks, token)
		}
	}
	for _, r := range m.peer.Routes() {
		c.closeChannel(r.Key)
	}
	c.emit(Action{Op: RemovePeer, ID: m.peer.ID, Overlay: m.overlay})
}

// step steps one peer and passes on what it wants.
func (c *Core) step(m *member, in path.Input) {
	var out []path.Action
	out, m.next = m.peer.Step(c.now, in, nil)
	for _, a := range out {
		switch a.Op {
		case path.Send:
			if a.By.Channel != 0 {
				a.Data = wire.AppendChannelData(nil, a.By.Channel, a.Data)
			}
			c.emit(Action{Op: Send, By: a.By, TTL: a.TTL, Data: a.Data})
		case path.Doubt:
			c.tell(rendezvous.AgentInput{Op: rendezvous.AgentDoubt})
		case path.AskServer:
			c.ask(m, a.Data)
		case path.Hear:
			c.emit(Action{Op: Hear, Overlay: m.overlay, By: a.By})
		case path.Unhear:
			c.emit(Action{Op: Unhear, By: a.By})
		case path.Publish:
			c.emit(Action{Op: Publish, ID: m.peer.ID, Overlay: m.overlay, Routes: a.Routes})
		case path.Bind:
			c.extra[a.By.Local] = m
			c.emit(Action{Op: Bind, By: path.Key{Local: a.By.Local, To: anyPort(true)}})
		case path.Unbind:
			delete(c.extra, a.By.Local)
			c.emit(Action{Op: Unbind, By: a.By})
		case path.Connect:
			c.extra[a.By.Local] = m
			c.emit(Action{Op: ConnectPeer, By: a.By, Port: a.Port})
		case path.Event:
			c.emit(Action{Op: Happened, ID: m.peer.ID, Overlay: m.overlay, Event: a.Event})
		default: // inputs
		}
	}
}
