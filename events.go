package bodkin

import (
	"context"
	"iter"
	"sync"
)

// eventBacklog is how many events wait for a slow reader.
const eventBacklog = 256

// broadcaster hands each event to every subscriber, and those before the first
// subscriber to that one: a node can be registered before Start has returned.
type broadcaster struct {
	mu    sync.Mutex
	subs  map[chan Event]struct{}
	early []Event // until there is a subscriber
}

func (b *broadcaster) publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil && len(b.early) < eventBacklog {
		b.early = append(b.early, e)
	}
	for c := range b.subs {
		select {
		case c <- e:
		default: // the reader is far behind: it misses this one
		}
	}
}

// subscribe begins at once, so that nothing between the call and the loop over
// the sequence is missed. It ends with either context.
func (b *broadcaster) subscribe(ctx, node context.Context) iter.Seq[Event] {
	c := make(chan Event, eventBacklog)
	b.mu.Lock()
	if b.subs == nil {
		b.subs = make(map[chan Event]struct{})
	}
	for _, e := range b.early {
		c <- e
	}
	b.early = nil
	b.subs[c] = struct{}{}
	b.mu.Unlock()
	leave := func() {
		b.mu.Lock()
		delete(b.subs, c)
		b.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, leave)
	return func(yield func(Event) bool) {
		defer stop()
		defer leave()
		for {
			select {
			case e := <-c:
				if !yield(e) {
					return
				}
			case <-ctx.Done():
				return
			case <-node.Done():
				return
			}
		}
	}
}
