package bodkin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/pair"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// DefaultCodeLife is how long a code is good that nobody uses.
const DefaultCodeLife = 10 * time.Minute

// Invitation is a code that this node waits under for whoever is told it. It takes
// part in one attempt to join; then the code is used up, whatever came of it.
type Invitation struct {
	node *Node
	*pairing
}

// Invite makes a code for one other node at the same server, good for
// [DefaultCodeLife]. Afterwards each of the two knows the other's ID, proved by the
// code alone: the server cannot put its own in their place. What the node is then
// allowed is the caller's to say, with [Node.SetPeers] or Config.Allow. Invite waits
// for the server until ctx ends.
func (n *Node) Invite(ctx context.Context) (*Invitation, error) {
	return n.InviteFor(ctx, DefaultCodeLife)
}

// InviteFor is Invite with another life, of whole seconds. Servers give a day at the
// most.
func (n *Node) InviteFor(ctx context.Context, life time.Duration) (*Invitation, error) {
	if life < time.Second {
		return nil, fmt.Errorf("bodkin: a code cannot be good for %v; a second is the least", life)
	}
	ctx, stop := n.bound(ctx)
	defer stop()
	if err := n.WaitRegistered(ctx); err != nil {
		return nil, err
	}
	i := &Invitation{n, n.pairings.add()}
	n.tell(node.Input{Op: node.Invite, Token: i.token, Lifetime: life})
	select {
	case <-i.invited:
		return i, nil
	case <-i.ended:
		return nil, n.pairingError(i.err)
	case <-ctx.Done():
		n.endPairing(i.pairing)
		return nil, context.Cause(ctx)
	}
}

// Code is what the other side has to be told, as 42-lantern-copper.
func (i *Invitation) Code() string { return i.code.String() }

// Until is when the code expires.
func (i *Invitation) Until() time.Time { return i.until }

// Wait returns who joined, or why nobody can any more: [ErrCodeTried],
// [ErrCodeUnfinished], [ErrCodeExpired] or [ErrCodeLost].
func (i *Invitation) Wait(ctx context.Context) (peer.ID, error) {
	return i.node.waitPairing(ctx, i.pairing)
}

// partingTime is how long the last word to the other side may take.
const partingTime = 3 * time.Second

// Close takes the code back. After Wait it waits some moments until the server has
// our last word to the other side.
func (i *Invitation) Close() error {
	select {
	case <-i.ended:
		select {
		case <-i.over:
		case <-time.After(partingTime):
		case <-i.node.ctx.Done():
		}
	default:
	}
	i.node.endPairing(i.pairing)
	return nil
}

// Join finds the node that made a code, and returns its ID. A code is good for one
// try. [ErrBadCode], [ErrOwnCode] and [ErrTooManyCodes] leave it as it is; [ErrNoCode],
// [ErrCodeUsed], [ErrWrongCode] and [ErrCodeSilent] mean that another one is needed.
// Join waits for the server until ctx ends.
func (n *Node) Join(ctx context.Context, code string) (peer.ID, error) {
	c, err := pair.ParseCode(code)
	if err != nil {
		return peer.ID{}, err
	}
	if n.pairings.own(c.Plate) {
		return peer.ID{}, ErrOwnCode
	}
	ctx, stop := n.bound(ctx)
	defer stop()
	if err := n.WaitRegistered(ctx); err != nil {
		return peer.ID{}, err
	}
	p := n.pairings.add()
	defer n.endPairing(p)
	n.tell(node.Input{Op: node.Join, Token: p.token, Code: c})
	return n.waitPairing(ctx, p)
}

// CheckCode says what is wrong with a code that somebody typed, if that can be seen
// before the server is asked.
func CheckCode(code string) error {
	_, err := pair.ParseCode(code)
	return err
}

// CompleteCode is what a code may go on with that somebody has begun to type, for
// shells: whole codes, or beginnings that end in a hyphen.
func CompleteCode(typed string) []string { return pair.Complete(typed) }

func (n *Node) waitPairing(ctx context.Context, p *pairing) (peer.ID, error) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return peer.ID{}, context.Cause(ctx)
	case <-n.ctx.Done():
		return peer.ID{}, ErrClosed
	}
	if p.err != nil {
		return peer.ID{}, n.pairingError(p.err)
	}
	return p.id, nil
}

// pairingError names the server where it is the server's fault.
func (n *Node) pairingError(err error) error {
	if errors.Is(err, rendezvous.ErrNoPairing) {
		return &ServerError{Server: n.url.String(), Err: err}
	}
	return err
}

func (n *Node) endPairing(p *pairing) {
	if n.pairings.remove(p.token) {
		n.tell(node.Input{Op: node.Unpair, Token: p.token})
	}
}

// pairings are what the loop and the methods know of pairings that are under way.
type pairings struct {
	mu      sync.Mutex
	last    uint64
	byToken map[uint64]*pairing
}

// pairing is an invitation, or a try to join. What its channels guard is written
// before they are closed.
type pairing struct {
	token   uint64
	invited chan struct{} // closed when there is a code
	code    pair.Code
	until   time.Time
	ended   chan struct{} // closed when it has come out well or not
	id      peer.ID
	err     error
	over    chan struct{} // closed when the other side has been told
}

func (p *pairings) add() *pairing {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byToken == nil {
		p.byToken = make(map[uint64]*pairing)
	}
	p.last++
	x := &pairing{token: p.last, invited: make(chan struct{}), ended: make(chan struct{}), over: make(chan struct{})}
	p.byToken[x.token] = x
	return x
}

// remove reports whether it was there.
func (p *pairings) remove(token uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.byToken[token]
	delete(p.byToken, token)
	return ok
}

// own reports whether a nameplate is one of our invitations.
func (p *pairings) own(plate uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.byToken {
		if x.code.Plate == plate {
			return true
		}
	}
	return false
}

// happened takes in what the core says of one. It says each at most once.
func (p *pairings) happened(a node.Action) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.byToken[a.Token]
	if x == nil {
		return
	}
	switch a.Op {
	case node.Invited:
		x.code, x.until = a.Code, a.Until
		close(x.invited)
	case node.Paired, node.NotPaired:
		x.id, x.err = a.ID, a.Err
		close(x.ended)
	case node.PairingOver:
		close(x.over)
		delete(p.byToken, a.Token)
	default:
	}
}
