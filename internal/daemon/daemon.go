// Package daemon is what `bodkin up` runs on a node: the forwards of a configuration
// file, and what peers may reach; anew after each change of the file.
//
//	plan.go   what a configuration file wants
//	daemon.go starting, stopping and starting again
//	status.go what there is to show
//	tally.go  what forwards carry
//	node.go   a node of the library to run on
package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// Node is a node that a daemon runs on.
type Node interface {
	forward.Node
	// SetPeers changes who may connect, as the server is told.
	SetPeers(ids []peer.ID) error
}

// Daemon runs a [Plan], and another one after each Apply.
type Daemon struct {
	tell func(forward.Event)
	node Node
	ctx  context.Context
	stop context.CancelFunc

	applying sync.Mutex
	mu       sync.Mutex
	plan     Plan
	uses     map[forward.Rule]uint64
	forwards map[forward.Forward]*running
}

// New begins nothing yet: its node is to be started with its Peers and with Allows.
// tell is told what happens, from several goroutines.
func New(p Plan, tell func(forward.Event)) *Daemon {
	return &Daemon{
		tell: tell, plan: p, uses: make(map[forward.Rule]uint64), forwards: make(map[forward.Forward]*running),
	}
}

// Peers are whom the server may introduce to the node: nil, which is everybody, if
// there are more than it takes. Allows refuses the rest then.
func (d *Daemon) Peers() []peer.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.plan.introduced()
}

// Allows reports whether a peer may connect.
func (d *Daemon) Allows(id peer.ID, _ string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.plan.Peers, id)
}

// Start runs the plan on a node until Close, or until ctx ends.
func (d *Daemon) Start(ctx context.Context, n Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node = n
	d.ctx, d.stop = context.WithCancel(ctx)
	for _, f := range d.plan.Forwards {
		d.forwards[f] = d.start(f)
	}
}

// Apply starts what is new in a plan and stops what is not in it any more. What is the
// same runs on, with its connections; so do connections that were allowed when they
// began.
func (d *Daemon) Apply(p Plan) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if err := d.node.SetPeers(p.introduced()); err != nil {
		return err
	}
	wanted := make(map[forward.Forward]bool)
	for _, f := range p.Forwards {
		wanted[f] = true
	}
	var over []*running
	d.mu.Lock()
	d.plan = p
	for f, r := range d.forwards {
		if !wanted[f] {
			delete(d.forwards, f)
			over = append(over, r)
		}
	}
	d.mu.Unlock()
	for _, r := range over {
		r.end() // before others start: they may want its port
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for f := range wanted {
		if d.forwards[f] == nil && d.ctx.Err() == nil {
			d.forwards[f] = d.start(f)
		}
	}
	return nil
}

// Serve lets peers reach what the plan allows, until the daemon is closed. It returns
// an error if that ends otherwise.
func (d *Daemon) Serve() error { return forward.Serve(d.ctx, d.node, d.allow, d.told) }

// allow is asked for every connection.
func (d *Daemon) allow(id peer.ID, w forward.Wish) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.plan.Rules {
		if (forward.Rules{r}).Allow(id, w) {
			d.uses[r]++
			return true
		}
	}
	return false
}

// told hands on what happened on the serving side.
func (d *Daemon) told(e forward.Event) {
	if e.Kind != forward.Serving { // a daemon always does
		d.tell(e)
	}
}

// Close ends all of it.
func (d *Daemon) Close() {
	d.stop()
	d.applying.Lock()
	defer d.applying.Unlock()
	d.mu.Lock()
	all := d.forwards
	d.forwards = nil
	d.mu.Unlock()
	for _, r := range all {
		r.end()
	}
}

const (
	// firstRetry and lastRetry are how long a forward waits that could not begin:
	// another program may give up its port, an address may come.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// running is a forward that runs, or waits for its next try.
type running struct {
	forward.Forward
	tally
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	at     forward.Endpoint // where it listens
	state  State
	reason error
}

// start is called under the lock.
func (d *Daemon) start(f forward.Forward) *running {
	ctx, cancel := context.WithCancel(d.ctx)
	r := &running{Forward: f, cancel: cancel, done: make(chan struct{}), at: f.Listen, state: Starting}
	go func() {
		defer close(r.done)
		d.keep(ctx, r)
	}()
	return r
}

func (r *running) end() {
	r.cancel()
	<-r.done
}

// keep runs a forward until ctx ends.
func (d *Daemon) keep(ctx context.Context, r *running) {
	wait := firstRetry
	for {
		err := forward.Run(ctx, counting{d.node, &r.tally}, r.Forward, func(e forward.Event) {
			wait = firstRetry
			r.happened(e)
			d.tell(e)
		})
		if ctx.Err() != nil {
			return
		}
		if r.failed(err) {
			d.tell(forward.Event{Kind: forward.Failed, Forward: r.Forward, Err: err})
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, lastRetry)
		case <-ctx.Done():
			return
		}
	}
}

// happened keeps what status shows.
func (r *running) happened(e forward.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = e.Err
	switch e.Kind {
	case forward.Listening:
		r.state, r.at = Listening, e.Forward.Listen
		if r.Reverse {
			r.state = Ready
		}
	case forward.Ready:
		r.state = Ready
	case forward.Unreachable:
		r.state = Unreachable
	case forward.Refused:
		r.state = Refused
	case forward.Missed:
		r.state = Missed
	default:
	}
}

// failed notes why a forward could not begin, and reports whether that is news.
func (r *running) failed(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.state != Failed || r.reason == nil || r.reason.Error() != err.Error()
	r.state, r.reason = Failed, err
	return news
}
