package share

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"bodkin/peer"
)

// routeAge is how long the route to a peer is taken for what it was.
const routeAge = 100 * time.Millisecond

// gate lets data pass while the route to a peer is direct.
type gate struct {
	node Node
	id   peer.ID

	mu     sync.Mutex
	looked time.Time // when it was direct
}

// gate is that of a transfer.
func (o *Options) gate(n Node, id peer.ID) func(context.Context) error {
	if !o.DirectOnly {
		return func(context.Context) error { return nil }
	}
	g := &gate{node: n, id: id}
	return g.pass
}

// pace bounds a rate.
type pace struct {
	rate int64 // bytes a second; 0: any

	mu   sync.Mutex
	next time.Time // when more may leave
}

// take returns when so many bytes may leave.
func (p *pace) take(ctx context.Context, bytes int) error {
	if p.rate <= 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	at := now
	if p.next.After(now) {
		at = p.next
	}
	p.next = at.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	if at.Equal(now) {
		return nil
	}
	select {
	case <-time.After(at.Sub(now)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pass returns when the route is direct. If it is not in time, the error is the reason.
func (g *gate) pass(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.looked) < routeAge {
		return nil
	}
	if !g.node.Route(ctx, g.id).Direct() {
		e, err := g.node.Explain(ctx, g.id) // it waits for an attempt that is under way
		if err != nil {
			return err
		}
		if e.Way != "direct" {
			text := e.Reason
			if len(e.Help) > 0 {
				text += "; what would help: " + strings.Join(e.Help, ", or ")
			}
			return &stopError{failRoute, fmt.Errorf("no direct route, and the relay shall not be used: %s", text)}
		}
	}
	g.looked = time.Now()
	return nil
}
