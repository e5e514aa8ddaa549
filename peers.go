package bodkin

import (
	"fmt"
	"slices"
	"sync"

	"bodkin/internal/node"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// policy is who may connect, as Config.Peers says it.
type policy struct {
	mu    sync.RWMutex
	peers []peer.ID
	turn  sync.Mutex // of those who change it
}

// admits reports whether a peer may connect at all.
func (p *policy) admits(id peer.ID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.peers == nil || slices.Contains(p.peers, id)
}

// set reports whether that is news.
func (p *policy) set(ids []peer.ID) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = (p.peers == nil) != (ids == nil) || !slices.Equal(p.peers, ids)
	p.peers = ids
	return news
}

// SetPeers changes Config.Peers while the node runs: who may connect to it, or with
// nil, everybody. Connections that are there go on, but a peer that is no longer
// among them begins nothing new. [Node.WaitRegistered] waits until the server knows.
func (n *Node) SetPeers(ids []peer.ID) error {
	if err := checkPeers(ids); err != nil {
		return err
	}
	ids = slices.Clone(ids)
	n.policy.turn.Lock() // the loop hears of changes in their order
	defer n.policy.turn.Unlock()
	if n.policy.set(ids) {
		n.known.change(func() { n.known.admits, n.known.settled = n.known.admits+1, false })
		n.tell(node.Input{Op: node.Admit, Peers: ids})
	}
	return nil
}

func checkPeers(ids []peer.ID) error {
	if len(ids) > rendezvous.MaxPeers {
		return fmt.Errorf("bodkin: Config.Peers has %d peers and holds %d; leave it nil and decide in Config.Allow", len(ids), rendezvous.MaxPeers)
	}
	for _, id := range ids {
		if err := id.Check(); err != nil {
			return fmt.Errorf("bodkin: Config.Peers: %w", err)
		}
	}
	return nil
}

// allows reports whether a peer may use a service: a peer that we dialled may open
// connections too, and has to be among those who may.
func (n *Node) allows(id peer.ID, service string) bool {
	return n.policy.admits(id) && (n.cfg.Allow == nil || n.cfg.Allow(id, service))
}
