package bodkin

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"bodkin/internal/node"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// policy is who may connect: as Config.Peers says, and whom Node.Admit let in.
type policy struct {
	mu     sync.RWMutex
	peers  []peer.ID
	guests map[guest]int
	turn   sync.Mutex // of those who change it
}

// guest is a peer that one service is open to.
type guest struct {
	id      peer.ID
	service string
}

// admits reports whether a peer may connect at all.
func (p *policy) admits(id peer.ID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.peers == nil || slices.Contains(p.peers, id) {
		return true
	}
	for g := range p.guests {
		if g.id == id {
			return true
		}
	}
	return false
}

// names reports whether a peer is among Config.Peers, and whether it is a guest of
// that service.
func (p *policy) names(id peer.ID, service string) (peer, invited bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.peers == nil || slices.Contains(p.peers, id), p.guests[guest{id, service}] > 0
}

// all are those whom the server may introduce to us; nil: everybody.
func (p *policy) all() []peer.ID {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.peers == nil {
		return nil
	}
	out := slices.Clone(p.peers)
	for _, g := range slices.SortedFunc(maps.Keys(p.guests), compareGuests) {
		if !slices.Contains(out, g.id) {
			out = append(out, g.id)
		}
	}
	return out
}

func compareGuests(a, b guest) int { return slices.Compare(a.id[:], b.id[:]) }

// set changes Config.Peers.
func (p *policy) set(ids []peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers = ids
}

// invite counts how often a guest is let in.
func (p *policy) invite(g guest, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.guests == nil {
		p.guests = make(map[guest]int)
	}
	if p.guests[g] += n; p.guests[g] == 0 {
		delete(p.guests, g)
	}
}

// SetPeers changes Config.Peers while the node runs: who may connect to it, or with
// nil, everybody. Connections that are there go on, but a peer that is no longer
// among them begins nothing new. [Node.WaitRegistered] waits until the server knows.
func (n *Node) SetPeers(ids []peer.ID) error {
	ids = slices.Clone(ids)
	return n.changePolicy(ids, func() { n.policy.set(ids) }, nil)
}

// Admit lets one more peer in, to one service, beside Config.Peers and Config.Allow,
// until end is called: somebody who joined by a code, for what the code was made for.
// [Node.WaitRegistered] waits until the server knows.
func (n *Node) Admit(id peer.ID, service string) (end func(), err error) {
	if err := CheckService(service); err != nil {
		return nil, err
	}
	g := guest{id, service}
	err = n.changePolicy([]peer.ID{id}, func() { n.policy.invite(g, 1) }, func() { n.policy.invite(g, -1) })
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		_ = n.changePolicy(nil, func() { n.policy.invite(g, -1) }, nil)
	}), nil
}

// changePolicy does a change that brings these IDs in, and tells the server whom it
// may introduce now. Too many are taken back.
func (n *Node) changePolicy(ids []peer.ID, do, undo func()) error {
	if err := checkPeers(ids); err != nil {
		return err
	}
	n.policy.turn.Lock() // the loop hears of changes in their order
	defer n.policy.turn.Unlock()
	before := n.policy.all()
	do()
	now := n.policy.all()
	if undo != nil && len(now) > rendezvous.MaxPeers {
		undo()
		return checkPeers(now)
	}
	if (before == nil) != (now == nil) || !slices.Equal(before, now) {
		n.known.change(func() { n.known.admits, n.known.settled = n.known.admits+1, false })
		n.tell(node.Input{Op: node.Admit, Peers: now})
	}
	return nil
}

func checkPeers(ids []peer.ID) error {
	if len(ids) > rendezvous.MaxPeers {
		return fmt.Errorf("bodkin: there are %d peers to let in, and room for %d; let everybody in, and decide in Config.Allow", len(ids), rendezvous.MaxPeers)
	}
	for _, id := range ids {
		if err := id.Check(); err != nil {
			return fmt.Errorf("bodkin: a peer to let in: %w", err)
		}
	}
	return nil
}

// allows reports whether a peer may use a service: a peer that we dialled may open
// connections too, and has to be among those who may.
func (n *Node) allows(id peer.ID, service string) bool {
	known, invited := n.policy.names(id, service)
	return invited || known && (n.cfg.Allow == nil || n.cfg.Allow(id, service))
}
