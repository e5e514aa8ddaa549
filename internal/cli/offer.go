package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bodkin/internal/app/share"
	"bodkin/internal/control"
	"bodkin/peer"
)

// offer sends to those who have a code.
func (a *app) offer(ctx context.Context, f sendFlags, src *share.Source) error {
	tell := a.newShareTeller(verbSent, func(e shareEvent) { _ = a.print(e, "") })
	options, err := f.options(tell)
	if err != nil {
		return err
	}
	n, stop, err := a.listening(ctx, []peer.ID{}) // nobody, until a code is used
	if err != nil {
		return err
	}
	err = a.offerBy(ctx, f, src, n, options, tell)
	stop(err)
	return part(ctx, n, err, err == nil)
}

func (a *app) offerBy(ctx context.Context, f sendFlags, src *share.Source, n control.Node, o share.Options, tell *shareTeller) error {
	node := shareNode{n}
	l, err := node.Listen(ctx, share.Service)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g := &guests{node: n, missing: make(chan error), admitted: make(map[peer.ID]bool)}
	for i := range f.receivers {
		if err := a.invites(watching, f, g, i); err != nil {
			return err
		}
	}
	go a.watchServer(watching, n)
	tell.run(ctx, node)
	defer tell.end()
	return (&share.Sender{Options: o, Node: node, Source: src}).Serve(ctx, l, g.admits, f.receivers, g.missing)
}

// guests are those who have used a code.
type guests struct {
	node    control.Node
	missing chan error // of codes that nobody can use any more

	mu       sync.Mutex
	admitted map[peer.ID]bool
}

func (g *guests) admits(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.admitted[id]
}

// invites makes a code, prints it, and lets in who uses it.
func (a *app) invites(ctx context.Context, f sendFlags, g *guests, number int) error {
	asking, cancel := context.WithTimeoutCause(ctx, registerTime, errNoServerNow)
	defer cancel()
	i, err := g.node.Invite(asking, f.expires)
	if err != nil {
		return err
	}
	go func() {
		err := g.wait(ctx, i)
		_ = i.Close()
		if err != nil {
			select {
			case g.missing <- err:
			case <-ctx.Done():
			}
		}
	}()
	server := g.node.Server()
	if err := a.print(shareEvent{Event: "code", Code: i.Code(), Until: i.Until().Format(time.RFC3339), Server: server}, "%s", i.Code()); err != nil {
		return err
	}
	command := fmt.Sprintf("bodkin receive --server %s %s", server, i.Code())
	switch {
	case a.json:
	case f.receivers > 1:
		a.say("within %s, on machine %d: %s", inWords(f.expires), number+1, command)
	default:
		a.say("within %s, on the other machine: %s", inWords(f.expires), command)
	}
	if f.qr {
		return a.printQR(command)
	}
	return nil
}

// wait lets in who uses a code. It may come back without one, for as long as we run.
func (g *guests) wait(ctx context.Context, i control.Invitation) error {
	id, err := i.Wait(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.admitted[id] = true
	g.mu.Unlock()
	_, err = g.node.Admit(ctx, id, share.Service) // until we end
	return err
}
