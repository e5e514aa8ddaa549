package bodkin

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"bodkin/internal/node"
	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/peer"
	"bodkin/punch"
)

// known is what the loop has published for the methods to read: peers by
// overlay address, and how the server stands to us.
type known struct {
	mu        sync.Mutex
	peers     map[netip.Addr]*knownPeer
	changed   chan struct{} // closed and replaced at every change
	server    wire.Registered
	via       node.Via // how the server is reached
	up        bool
	settled   bool   // the server knows that we accept, if we do, and whom
	err       error  // why we are not registered
	accepting bool   // the wish
	admits    uint64 // counts changes of whom
	displaced bool
	nat       nat.Report
	mapped    []netip.AddrPort // by routers
}

type knownPeer struct {
	id       peer.ID
	overlay  netip.Addr // the first one
	routes   []path.Route
	account  *path.Account
	changes  []Event // of the routes
	failures int
	err      error
	told     string // the latest failure; empty since an introduction
}

// measured takes in what is known of our NAT.
func (k *known) measured(r nat.Report) { k.change(func() { k.nat = r }) }

// change does f under the lock and wakes those who wait.
func (k *known) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	if k.changed != nil {
		close(k.changed)
	}
	k.changed = make(chan struct{})
}

// wait returns when done says so; it is called under the lock at every change.
func (k *known) wait(ctx context.Context, done func() (bool, error)) error {
	for {
		k.mu.Lock()
		ok, err := done()
		if k.changed == nil {
			k.changed = make(chan struct{})
		}
		changed := k.changed
		k.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// peer is the entry of an overlay address, made if need be. Under the lock.
func (k *known) peer(overlay netip.Addr) *knownPeer {
	p := k.peers[overlay]
	if p == nil {
		if k.peers == nil {
			k.peers = make(map[netip.Addr]*knownPeer)
		}
		p = &knownPeer{overlay: overlay}
		k.peers[overlay] = p
	}
	return p
}

func (k *known) add(overlay netip.Addr, id peer.ID) {
	k.change(func() { k.peer(overlay).id = id })
}

func (k *known) alias(overlay, of netip.Addr) {
	k.change(func() {
		p := k.peer(of)
		if old := k.peers[overlay]; old != nil && old != p {
			p.failures, p.err = max(p.failures, old.failures), old.err
			if p.account == nil {
				p.account = old.account
			}
		}
		k.peers[overlay] = p
	})
}

func (k *known) remove(overlay netip.Addr) {
	k.change(func() {
		p := k.peers[overlay]
		for a, x := range k.peers {
			if x == p {
				delete(k.peers, a)
			}
		}
	})
}

func (k *known) routes(overlay netip.Addr, routes []path.Route) {
	k.change(func() { k.peer(overlay).routes = routes })
}

func (k *known) accounted(overlay netip.Addr, a *path.Account) {
	k.change(func() {
		p := k.peer(overlay)
		if p.account == nil || !p.account.Began.Equal(a.Began) {
			p.err = nil // there was another introduction since
		}
		p.account = a
	})
}

// maxChanges is how many changes of a peer's routes are remembered.
const maxChanges = 16

// happened remembers what changed a peer's routes.
func (k *known) happened(overlay netip.Addr, e Event) {
	k.change(func() {
		p := k.peer(overlay)
		switch e.Kind {
		case EventRouteConfirmed, EventRouteLost, EventSwitched:
		case EventIntroduced:
			p.told = ""
			return
		default:
			return
		}
		if len(p.changes) == maxChanges {
			p.changes = p.changes[:copy(p.changes, p.changes[1:])]
		}
		p.changes = append(p.changes, e)
	})
}

// failed reports whether this is news: the first failure, or another one than before.
func (k *known) failed(overlay netip.Addr, err error) (news bool) {
	k.change(func() {
		p := k.peer(overlay)
		news = p.told != err.Error()
		p.failures, p.err, p.told = p.failures+1, err, err.Error()
	})
	return news
}

// seenAt is where the server sees this node, over UDP if it does.
func seenAt(r wire.Registered) netip.AddrPort {
	return firstOf(append(slices.Clip(r.Observed), r.ObservedTCP...))
}

// registered reports whether this is news.
func (k *known) registered(a node.Action) (news bool) {
	k.change(func() {
		news = !k.up || k.via != a.Via || seenAt(k.server) != seenAt(a.Registered)
		k.server, k.via, k.up, k.err = a.Registered, a.Via, true, nil
		k.settled = a.Settled && a.Accepting == k.accepting && a.Admits == k.admits
	})
	return news
}

func (k *known) unregistered(err error) {
	k.change(func() { k.up, k.err = false, err })
}

func (k *known) displace() {
	k.change(func() { k.accepting, k.displaced = false, true })
}

// accept notes the wish to accept; true if it is news for the server.
func (k *known) accept() (news bool) {
	k.change(func() {
		if news = !k.accepting; news {
			k.accepting, k.displaced, k.settled = true, false, false
		}
	})
	return news
}

// identify says whose overlay address that is.
func (k *known) identify(overlay netip.Addr) (peer.ID, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.peers[overlay]
	if p == nil {
		return peer.ID{}, false
	}
	return p.id, !p.id.IsZero()
}

// route is the route in use to a peer.
func (k *known) route(overlay netip.Addr) Route {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.peers[overlay]; p != nil && len(p.routes) > 0 {
		return routeOf(p.routes[0])
	}
	return Route{}
}

// WaitRegistered returns when the server knows this node, and that it listens if it
// does, and to whom, or with the reason why not, as a *[ServerError]. Without a server
// there is nothing to wait for.
func (n *Node) WaitRegistered(ctx context.Context) error {
	if n.cfg.Serverless != nil {
		return nil
	}
	ctx, stop := n.bound(ctx)
	defer stop()
	err := n.known.wait(ctx, func() (bool, error) { return n.known.up && n.known.settled, n.known.err })
	return n.serverReason(ctx, err)
}

// serverReason prefers what is known of the server to "deadline exceeded".
func (n *Node) serverReason(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	n.known.mu.Lock()
	defer n.known.mu.Unlock()
	if n.cfg.Serverless != nil {
		return err
	}
	if !n.known.up && n.known.err != nil {
		return n.known.err
	}
	if !n.known.up && n.ctx.Err() == nil {
		return &ServerError{Server: n.url.String(), Err: fmt.Errorf("no answer yet: %w", err)}
	}
	return err
}

// bound ends a context with the node, too.
func (n *Node) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// reach asks for the peer to be introduced and does f once packets can leave
// for it. f ends early if the introduction fails.
func reach[T any](ctx context.Context, n *Node, id peer.ID, f func(context.Context, netip.AddrPort) (T, error)) (T, error) {
	var none T
	if err := id.Check(); err != nil {
		return none, &DialError{id, err}
	}
	ctx, stop := n.bound(ctx)
	defer stop()
	overlay := peer.Overlay(id, 0)
	before := n.known.failures(overlay)
	n.tell(node.Input{Op: node.Dial, ID: id})
	// state is under known's lock: whether packets can leave, or why not.
	state := func() (bool, error) {
		p := n.known.peer(overlay)
		if len(p.routes) == 0 && p.failures > before {
			return false, p.err
		}
		return len(p.routes) > 0, nil
	}
	waiting, enough := n.untilReached(ctx)
	err := n.known.wait(waiting, state)
	enough()
	if err != nil {
		err = n.unreached(id, err)
		n.release(overlay)
		return none, &DialError{id, n.serverReason(ctx, err)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		err := n.known.wait(ctx, func() (bool, error) {
			_, err := state()
			return false, err
		})
		cancel(err)
	}()
	out, err := f(ctx, netip.AddrPortFrom(overlay, uint16(classRelay)))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		n.release(overlay)
		return none, &DialError{id, err}
	}
	return out, nil
}

func (k *known) failures(overlay netip.Addr) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.peers[overlay]; p != nil {
		return p.failures
	}
	return 0
}

// canonical is the one of a peer's overlay addresses that stands for all.
func (k *known) canonical(overlay netip.Addr) netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.peers[overlay]; p != nil {
		return p.overlay
	}
	return overlay
}

// best is the transport of the route in use to a peer.
func (k *known) best(overlay netip.Addr) punch.Transport {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.peers[overlay]; p != nil && len(p.routes) > 0 {
		return p.routes[0].Transport()
	}
	return 0
}
