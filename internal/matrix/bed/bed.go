// Package bed punches with whole nodes, in network namespaces with real kernels:
// the matrix of package matrix, in real time. Each run has a network, a server and
// two nodes of its own.
//
//	bed.go    one run
//	count.go  what it costs
package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bodkin"
	"bodkin/internal/matrix"
	"bodkin/natlab/netbed"
	"bodkin/peer"
	"bodkin/rendezvous"
)

const (
	// registerLimit is how long both nodes may take to register.
	registerLimit = 30 * time.Second
	defaultLimit  = 12 * time.Second
	// The dialler's flow: as many bytes as in virtual time.
	flowEvery = 20 * time.Millisecond
	flowSize  = 1000

	service = "matrix"
)

// Punch is a run on such a bed, for matrix.Grid.
func Punch(on netbed.Bed) func(context.Context, matrix.Config) (matrix.Result, error) {
	return func(ctx context.Context, cfg matrix.Config) (matrix.Result, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		lab, err := on.Start(ctx, cfg.Topology)
		if err != nil {
			return matrix.Result{}, err
		}
		defer lab.Close()
		r := run{lab: lab, transports: cfg.Transports, count: newCount(on, lab, cfg.Topology)}
		if cfg.Observe != nil {
			lab.Observe(cfg.Observe)
		}
		defer r.end()
		if err := r.build(ctx); err != nil {
			return matrix.Result{}, err
		}
		limit := cfg.Limit
		if limit == 0 {
			limit = defaultLimit
		}
		result, err := r.punch(ctx, limit)
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		return result, err
	}
}

// run is the state of one.
type run struct {
	lab *netbed.Lab

	transports []string
	count      *count
	server     *rendezvous.Server
	a, b       *bodkin.Node
	wg         sync.WaitGroup
	close      []func()
}

// end ends what build began, the last first.
func (r *run) end() {
	for _, f := range slices.Backward(r.close) {
		f()
	}
	r.wg.Wait()
}

// build starts the server and the nodes.
func (r *run) build(ctx context.Context) (err error) {
	host := r.lab.Host("server")
	if r.server, err = serverOn(ctx, host); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	r.close = append(r.close, stop)
	r.wg.Go(func() { _ = r.server.Serve(serving) })
	url := r.server.URL(host.Addr().String()).String()
	if r.a, err = r.node(ctx, "a", url); err != nil {
		return err
	}
	if r.b, err = r.node(ctx, "b", url); err != nil {
		return err
	}
	l, err := r.b.Listen(service)
	if err != nil {
		return err
	}
	r.close = append(r.close, func() { _ = l.Close() })
	r.wg.Go(func() { drain(l) })
	return nil
}

func serverOn(ctx context.Context, host *netbed.Host) (*rendezvous.Server, error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return nil, err
	}
	cfg := rendezvous.ServerConfig{Key: key, Network: host}
	for _, a := range []netip.Addr{host.Addr(), host.Addr6()} {
		if a.IsValid() {
			cfg.Listen = append(cfg.Listen, netip.AddrPortFrom(a, rendezvous.DefaultPort), netip.AddrPortFrom(a, rendezvous.OtherPort))
		}
	}
	cfg.ListenTCP = cfg.Listen
	return rendezvous.NewServer(ctx, cfg)
}

func (r *run) node(ctx context.Context, host, url string) (*bodkin.Node, error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return nil, err
	}
	n, err := bodkin.Start(ctx, bodkin.Config{Key: key, Server: url, Network: r.lab.Host(host), Transports: r.transports})
	if err == nil {
		r.close = append(r.close, func() { _ = n.Close() })
	}
	return n, err
}

// drain takes every connection and reads all that comes.
func drain(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}()
	}
}

func (r *run) punch(ctx context.Context, limit time.Duration) (matrix.Result, error) {
	registering, cancel := context.WithTimeout(ctx, registerLimit)
	defer cancel()
	for _, n := range []*bodkin.Node{r.b, r.a} {
		if err := n.WaitRegistered(registering); err != nil {
			return matrix.Result{Why: r.name(n) + " is not registered: " + reason(err)}, nil
		}
	}
	for _, n := range []*bodkin.Node{r.b, r.a} {
		measured(registering, n)
	}
	ctx, cancel = context.WithTimeout(ctx, limit)
	defer cancel()
	// Subscribed before anything can happen.
	a, b := watch(ctx, r.a), watch(ctx, r.b)
	relayed := r.server.Stats().RelayedBytes
	r.count.begin()
	begin := time.Now()
	flowing := make(chan error, 1)
	go func() { flowing <- r.flow(ctx) }()
	atA, atB := <-a, <-b
	cancel()
	flowed := <-flowing
	res := r.count.result()
	res.RelayedBytes = r.server.Stats().RelayedBytes - relayed
	return sum(res, begin, atA, atB, flowed, r.count), nil
}

// measured waits until a node knows its NAT.
func measured(ctx context.Context, n *bodkin.Node) {
	for range n.Events(ctx) {
		if n.NAT().Complete || n.Status().ServerVia != bodkin.ViaUDP {
			return
		}
	}
}

func (r *run) name(n *bodkin.Node) string {
	if n == r.a {
		return "a"
	}
	return "b"
}

// reason is an error without where the server is, which says nothing here.
func reason(err error) string {
	if server, ok := errors.AsType[*bodkin.ServerError](err); ok && server.Err != nil {
		return server.Err.Error()
	}
	return err.Error()
}

// flow dials and sends until the run is over.
func (r *run) flow(ctx context.Context) error {
	c, err := r.a.Dial(ctx, r.b.ID(), service)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Now()) })
	defer stop()
	every := time.NewTicker(flowEvery)
	defer every.Stop()
	data := make([]byte, flowSize)
	for {
		if _, err := c.Write(data); err != nil {
			return nil //nolint:nilerr // the run is over, or its route is
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// seen is what a node told of a run.
type seen struct {
	introduced, direct time.Time
	route              bodkin.Route
}

// watch collects a node's events until its traffic is direct, or ctx ends.
func watch(ctx context.Context, n *bodkin.Node) <-chan *seen {
	out, events := make(chan *seen, 1), n.Events(ctx)
	go func() {
		s := &seen{}
		defer func() { out <- s }()
		for e := range events {
			switch {
			case e.Kind == bodkin.EventIntroduced && s.introduced.IsZero():
				s.introduced = e.Time
			case e.Kind == bodkin.EventSwitched && e.Route.Direct():
				s.direct, s.route = e.Time, e.Route
				return
			}
		}
	}()
	return out
}

func sum(res matrix.Result, begin time.Time, a, b *seen, flowed error, c *count) matrix.Result {
	since := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return t.Sub(begin)
	}
	res.Introduced, res.Told = since(a.introduced), since(b.introduced)
	res.ToDirect = since(a.direct)
	res.Direct = !a.direct.IsZero() && !b.direct.IsZero()
	switch {
	case res.Direct:
		res.Both = max(res.ToDirect, since(b.direct))
		res.Kind, res.Endpoint = a.route.Kind, a.route.Endpoint
	case a.introduced.IsZero() && flowed != nil:
		res.Why = fmt.Sprintf("not introduced: %v", flowed)
	case a.introduced.IsZero():
		res.Why = "not introduced"
	default:
		res.Why = c.why()
	}
	return res
}
