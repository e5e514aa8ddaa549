// Package forward carries TCP connections, UDP flows and connections of Unix sockets
// from a port on one machine to a port that another one reaches.
//
//	forward.go the types, and Run
//	address.go endpoints as people write them
//	rule.go    who may reach what
//	message.go what is said at the beginning of a stream
//	event.go   what happened, and the words for it
//	entry.go   the side that clients connect to: connections
//	flows.go   the same, UDP flows
//	udp.go     the sockets of these
//	exit.go    the side that connects to the target
//	packet.go  a datagram beside the stream, in two, or in it
//	splice.go  copying both ways, with half-close
//	serve.go   takes requests, and refuses what no rule allows
//	reverse.go entry and exit change sides
//
// Each connection or flow is a stream of its own to the service "forward": its back-
// pressure, its half-close and its end are the stream's. It begins with a request, and
// what the client sends follows at once; the peer's reply is the first thing that
// comes back. Datagrams of a flow travel beside its stream, as [bodkin.Conn.Packets],
// and those that are too large for that in it.
//
// Nothing may be reached unless a [Rule] of the serving side allows it.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"bodkin/internal/app/pipe"
	"bodkin/peer"
)

// Service is the name of the service that takes requests.
const Service = "forward"

// Conn is a connection with a peer: a [bodkin.Conn], or one through a running node.
type Conn interface {
	pipe.Conn
	// Packets are datagrams beside the stream.
	Packets() io.ReadWriteCloser
}

// Incoming is a connection that a peer opened.
type Incoming interface {
	Conn
	Peer() peer.ID
}

// Listener takes connections.
type Listener interface {
	AcceptConn() (Incoming, error)
	Close() error
}

// Node is what a forward needs of a node.
type Node interface {
	ID() peer.ID
	Dial(ctx context.Context, id peer.ID, service string) (Conn, error)
	Listen(ctx context.Context, service string) (Listener, error)
}

// Counter is a Node that wants to know of what a forward carries: Count is called with
// each connection or flow that has a client, and its result takes the place of it.
type Counter interface {
	Count(Conn) Conn
}

// Forward is a port here that leads to a target there, or the other way round.
type Forward struct {
	Peer peer.ID
	// Listen is where clients connect, and To where the other side connects to.
	Listen, To Endpoint
	// Reverse has the peer listen, and us connect to the target.
	Reverse bool
}

// Check says what is wrong with a Forward, if anything.
func (f Forward) Check() error {
	if err := f.Peer.Check(); err != nil {
		return err
	}
	switch {
	case f.To.Network == Stdio:
		return errors.New("standard input and output can be forwarded from, and not to")
	case f.Listen.Network == Stdio && (f.Reverse || f.To.Network == UDP):
		return errors.New("standard input and output carry one connection: no --reverse, no UDP")
	case (f.Listen.Network == UDP) != (f.To.Network == UDP):
		return fmt.Errorf("%s cannot lead to %s: both have to be UDP, or neither", f.Listen, f.To)
	}
	return nil
}

const (
	// dialTime is how long a connection may take to reach the peer.
	dialTime = 30 * time.Second
	// targetTime is how long the target may take to answer.
	targetTime = 15 * time.Second
	// idleTime ends a UDP flow on which nothing passes. RFC 4787, REQ-5: a NAT must
	// not forget one in less than two minutes, and five are recommended.
	idleTime = 5 * time.Minute
)

// Run keeps a forward until ctx ends. It returns an error only if it cannot begin:
// the port is taken, or the Forward is none. That the peer is not there is told, and
// tried again with the next connection; a reverse forward asks until it is. Calls of
// tell do not overlap.
func Run(ctx context.Context, n Node, f Forward, tell func(Event)) error {
	if err := f.Check(); err != nil {
		return err
	}
	r := &runner{node: n, Forward: f, say: tell}
	switch {
	case f.Listen.Network == Stdio:
		return errors.New("standard input and output are for Connect")
	case f.Reverse:
		return r.reverse(ctx)
	}
	e := entry{open: r.dial, failed: r.failed, worked: r.worked}
	at, serve, err := e.listen(ctx, f.Listen)
	if err != nil {
		return err
	}
	r.Listen = at
	r.tell(Event{Kind: Listening})
	var wg sync.WaitGroup
	wg.Go(func() { r.ask(ctx) })
	serve(ctx)
	wg.Wait()
	return nil
}

// Connect connects streams with a target that the peer reaches, once.
func Connect(ctx context.Context, n Node, id peer.ID, to Endpoint, s pipe.Streams) error {
	r := &runner{node: n, Forward: Forward{Peer: id, To: to}}
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	return pipe.Run(ctx, &replied{Conn: c, explain: r.explain}, s)
}

// replied is a connection whose first Read takes the reply off.
type replied struct {
	Conn
	explain func(error) error
	once    sync.Once
	err     error
}

// Read implements [io.Reader].
func (p *replied) Read(b []byte) (int, error) {
	p.once.Do(func() {
		_, err := readReply(p.Conn)
		p.err = p.explain(err)
	})
	if p.err != nil {
		return 0, p.err
	}
	return p.Conn.Read(b)
}

// runner is a forward that runs.
type runner struct {
	Forward
	node Node
	say  func(Event)

	mu   sync.Mutex
	said string // the last complaint
}

// tell hands on what happened.
func (r *runner) tell(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sayLocked(e)
}

func (r *runner) sayLocked(e Event) {
	e.Forward = r.Forward
	r.say(e)
}

// failed tells why a connection did not come about, once for all that fail alike; why
// the peer cannot be reached may have other words each time.
func (r *runner) failed(err error) {
	err = r.explain(err)
	e, alike := Event{Kind: Unreachable, Err: err}, string(Unreachable)
	if _, ok := errors.AsType[*RefusedError](err); ok {
		e.Kind, alike = Refused, err.Error()
	}
	r.complain(e, alike)
}

// complain tells what is alike once, until something works again.
func (r *runner) complain(e Event, alike string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said != alike {
		r.said = alike
		r.sayLocked(e)
	}
}

// worked notes that a connection came about.
func (r *runner) worked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said != "" {
		r.said = ""
		r.sayLocked(Event{Kind: Ready})
	}
}

// dial opens a connection to the target.
func (r *runner) dial(ctx context.Context) (Conn, error) {
	c, err := r.request(ctx, request{op: opConnect, network: r.To.Network, text: r.To.Address})
	if err != nil {
		return nil, err
	}
	return r.counted(c), nil
}

// counted is a connection that has a client from now on.
func (r *runner) counted(c Conn) Conn {
	if n, ok := r.node.(Counter); ok {
		return n.Count(c)
	}
	return c
}

// request opens a stream that begins with a request.
func (r *runner) request(ctx context.Context, q request) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := r.node.Dial(ctx, r.Peer, Service)
	if err != nil {
		return nil, r.explain(err)
	}
	if _, err := c.Write(q.bytes()); err != nil {
		_ = c.Abort()
		return nil, r.explain(err)
	}
	return c, nil
}

// ask finds out at the start whether the peer is there and allows it, so that one
// need not wait for a client to be told.
func (r *runner) ask(ctx context.Context) {
	c, err := r.request(ctx, request{op: opAsk, network: r.To.Network, text: r.To.Address})
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
		defer stop()
		_, err = readReply(c)
		_ = c.Close()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.failed(err)
	default:
		r.tell(Event{Kind: Ready})
	}
}
