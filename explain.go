package bodkin

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/why"
	"bodkin/nat"
	"bodkin/peer"
	"bodkin/punch"
)

// Explanation says why a peer is reached directly, over the relay, or not at all.
// What it says of the other side and of the network between is the most probable,
// and not a proof.
type Explanation struct {
	Version int     `json:"version"` // of this form: 1
	Peer    peer.ID `json:"peer"`
	Way     string  `json:"way"` // direct, relay or none
	Route   Route   `json:"route,omitzero"`
	// Pending says that it is too early to tell: an attempt is under way.
	Pending bool `json:"pending"`
	// Blame are the explanations of what is not direct, the most probable first.
	Blame []Blame `json:"blame"`
	// Certain says that it is known, and not only probable.
	Certain bool     `json:"certain"`
	Reason  string   `json:"reason"` // for people, without a capital and a full stop
	Help    []string `json:"help"`   // what would help, for people
	// Attempt is the one that found the hole, or else the latest; nil if there was
	// none.
	Attempt *Attempt `json:"attempt,omitempty"`
}

// Blame is where the fault lies, and in what.
type Blame struct {
	// Side is ours, theirs, both (it takes the two together), between (the network
	// between the sides) or server.
	Side string `json:"side"`
	// Layer is udp (none passes), filtering, mapping (the port towards a peer cannot
	// be known before), early (a packet that comes too early moves the mapping),
	// hairpin, family (no address family in common), policy, offline, key (another
	// server than the URL names), name (the server's leads nowhere) or unmeasured (it
	// is not known yet what the NAT does).
	Layer string `json:"layer"`
}

const (
	explanationVersion = 1
	// registerWait, answerWait and attemptWait bound what Explain waits for: the
	// server, an answer of a peer that we are connected with, and the end of an
	// attempt, or of the next one, which begins when our NAT has been measured.
	registerWait = 10 * time.Second
	answerWait   = 5 * time.Second
	attemptWait  = 20 * time.Second
)

// Explain says why a peer is reached the way it is. If there is no connection with
// it, it makes one, and it waits for the end of an attempt that is under way, some
// ten seconds. The error says that nothing could be found out: ctx has ended, or the
// node is closed.
func (n *Node) Explain(ctx context.Context, id peer.ID) (Explanation, error) {
	if err := id.Check(); err != nil {
		return Explanation{}, &DialError{id, err}
	}
	bounded, stop := n.bound(ctx)
	defer stop()
	f := why.Facts{RelayOnly: n.cfg.Transports != nil && len(n.cfg.Transports) == 0}
	overlay, connected := n.connected(id)
	if connected {
		answer, cancel := context.WithTimeout(bounded, answerWait)
		_, err := n.sessions.Ping(answer, id, netip.AddrPortFrom(overlay, uint16(classRelay)))
		cancel()
		f.Silent = err != nil
	} else {
		overlay = peer.Overlay(id, 0)
		n.try(bounded, id, &f)
	}
	if f.Server == nil && f.Failed == nil && !f.Silent && !f.RelayOnly {
		n.attempted(bounded, overlay)
	}
	switch {
	case n.ctx.Err() != nil:
		return Explanation{}, &DialError{id, ErrClosed}
	case ctx.Err() != nil:
		return Explanation{}, &DialError{id, context.Cause(ctx)}
	}
	return n.explain(id, overlay, f), nil
}

// connected is the overlay address of a process of the peer that there is a session
// with, one that is reached directly if there are several.
func (n *Node) connected(id peer.ID) (overlay netip.Addr, ok bool) {
	var all []netip.Addr
	n.known.mu.Lock()
	for a, p := range n.known.peers {
		if p.id != id || a != p.overlay || len(p.routes) == 0 {
			continue
		}
		if all = append(all, a); p.routes[0].Direct() {
			all[0], all[len(all)-1] = all[len(all)-1], all[0]
		}
	}
	n.known.mu.Unlock()
	for _, a := range all {
		if n.sessions.Count(a) > 0 {
			return a, true
		}
	}
	return overlay, false
}

// try connects with a peer, and notes what is in the way.
func (n *Node) try(ctx context.Context, id peer.ID, f *why.Facts) {
	wait, cancel := context.WithTimeout(ctx, registerWait)
	err := n.WaitRegistered(wait)
	cancel()
	if err == nil {
		_, err = n.Ping(ctx, id)
	}
	var server *ServerError
	var dial *DialError
	switch {
	case err == nil:
	case errors.As(err, &server):
		f.Server = server.Err
	case errors.Is(err, ErrNoAnswer):
		f.Silent = true
	case errors.As(err, &dial):
		f.Failed = dial.Err
	default:
		f.Server = err
	}
}

// attempted waits until there is a hole, or the latest attempt is over.
func (n *Node) attempted(ctx context.Context, overlay netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	_ = n.known.wait(ctx, func() (bool, error) {
		p := n.known.peers[overlay]
		return p == nil || len(p.routes) > 0 && p.routes[0].Direct() || p.account != nil && attemptOf(p.account).Over(), nil
	})
}

// today is an account with what is known of our NAT by now: where it makes no other
// plan there has been no other attempt. Under the lock.
func (k *known) today(a *path.Account) *path.Account {
	if a == nil || k.nat.Profile.Mapping == nat.Unknown {
		return a
	}
	out := *a
	out.Self.Profile = k.nat.Profile
	return &out
}

// explain judges by what is known now.
func (n *Node) explain(id peer.ID, overlay netip.Addr, f why.Facts) Explanation {
	out := Explanation{Version: explanationVersion, Peer: id, Blame: []Blame{}, Help: []string{}}
	n.known.mu.Lock()
	var account *path.Account
	if p := n.known.peers[overlay]; p != nil {
		account = n.known.today(p.account)
		if len(p.routes) > 0 {
			f.Route, out.Route = p.routes[0].Transport(), routeOf(p.routes[0])
		}
		if f.Failed == nil && f.Silent {
			f.Failed = p.err
		}
	}
	n.known.mu.Unlock()
	if account != nil {
		f.Introduced, f.Self, f.Other, f.Report = true, account.Self, account.Other, account.Report
		out.Attempt = attemptOf(account)
	}
	if f.Silent && f.Route > punch.Relay {
		f.Route = 0 // a hole by which nobody answers
	}
	v := why.Explain(f)
	if v.Way == why.None {
		out.Route = Route{}
	}
	out.Way, out.Pending, out.Certain, out.Reason = string(v.Way), v.Pending, v.Certain, v.Reason
	for _, b := range v.Blame {
		out.Blame = append(out.Blame, Blame{string(b.Side), string(b.Layer)})
	}
	out.Help = append(out.Help, v.Help...)
	return out
}
