package share

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"bodkin"
	"bodkin/peer"
)

// fakeNet is a network of nodes in memory, whose processes can be killed.
type fakeNet struct {
	mu    sync.Mutex
	nodes map[peer.ID]*fakeNode
}

// fakeNode is a process: its streams break when it is killed.
type fakeNode struct {
	net    *fakeNet
	id     peer.ID
	route  func() bodkin.Route
	explan bodkin.Explanation

	mu     sync.Mutex
	dead   bool
	queue  chan accepted
	conns  []*fakeConn
	budget int64  // bytes that it may still write; 0: any
	spent  func() // is called then
}

type accepted struct {
	conn Conn
	id   peer.ID
}

func newFakeNet() *fakeNet { return &fakeNet{nodes: make(map[peer.ID]*fakeNode)} }

// node starts a process, in place of one of the same name.
func (n *fakeNet) node(name byte) *fakeNode {
	id := peer.NewKey([32]byte{name}).ID()
	x := &fakeNode{net: n, id: id, route: func() bodkin.Route { return bodkin.Route{Transport: "udp"} }}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[id] = x
	return x
}

var errOffline = errors.New("nobody is there")

func (n *fakeNode) Dial(ctx context.Context, id peer.ID, _ string) (Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	n.net.mu.Lock()
	other := n.net.nodes[id]
	n.net.mu.Unlock()
	if other == nil {
		return nil, errOffline
	}
	other.mu.Lock()
	queue := other.queue
	other.mu.Unlock()
	if queue == nil {
		return nil, errOffline
	}
	ours, theirs := newFakeConns(n, other)
	if !n.add(ours) || !other.add(theirs) {
		return nil, errOffline
	}
	select {
	case queue <- accepted{theirs, n.id}:
		return ours, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (n *fakeNode) add(c *fakeConn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return !n.dead
}

func (n *fakeNode) Listen(context.Context, string) (Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue = make(chan accepted, 64)
	return &fakeListener{n: n, queue: n.queue, done: make(chan struct{})}, nil
}

func (n *fakeNode) Route(context.Context, peer.ID) bodkin.Route { return n.route() }

func (n *fakeNode) Explain(context.Context, peer.ID) (bodkin.Explanation, error) {
	return n.explan, nil
}

// kill ends the process: nothing that it had open says goodbye.
func (n *fakeNode) kill() {
	n.mu.Lock()
	n.dead, n.queue = true, nil
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Abort()
	}
}

// spend counts what is written.
func (n *fakeNode) spend(bytes int) {
	n.mu.Lock()
	if n.budget == 0 {
		n.mu.Unlock()
		return
	}
	n.budget -= int64(bytes)
	over := n.budget <= 0
	if over {
		n.budget = 0 // once
	}
	n.mu.Unlock()
	if over {
		n.spent()
	}
}

type fakeListener struct {
	n     *fakeNode
	queue chan accepted
	done  chan struct{}
	once  sync.Once
}

func (l *fakeListener) Accept() (Conn, peer.ID, error) {
	select {
	case a := <-l.queue:
		return a.conn, a.id, nil
	case <-l.done:
		return nil, peer.ID{}, net.ErrClosed
	}
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.queue == l.queue {
		l.n.queue = nil
	}
	return nil
}

// fakeConn is one end of a stream.
type fakeConn struct {
	owner *fakeNode
	in    *pipe
	out   *pipe
}

func newFakeConns(a, b *fakeNode) (x, y *fakeConn) {
	up, down := newPipe(), newPipe()
	return &fakeConn{a, down, up}, &fakeConn{b, up, down}
}

func (c *fakeConn) Read(b []byte) (int, error) { return c.in.read(b) }

func (c *fakeConn) Write(b []byte) (int, error) {
	n, err := c.out.write(b)
	c.owner.spend(n)
	return n, err
}

func (c *fakeConn) CloseWrite() error {
	c.out.end(io.EOF)
	return nil
}

func (c *fakeConn) Close() error {
	c.in.end(io.ErrClosedPipe)
	return c.CloseWrite()
}

var errAborted = errors.New("broke off")

func (c *fakeConn) Abort() error {
	c.in.end(errAborted)
	c.out.end(errAborted)
	return nil
}

// pipe is one direction, with room for some bytes.
type pipe struct {
	mu   sync.Mutex
	wake *sync.Cond
	buf  bytes.Buffer
	err  error
}

const pipeRoom = 64 << 10

func newPipe() *pipe {
	p := &pipe{}
	p.wake = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() == 0 && p.err == nil {
		p.wake.Wait()
	}
	if p.buf.Len() == 0 || p.err != nil && !errors.Is(p.err, io.EOF) {
		return 0, p.err
	}
	p.wake.Broadcast()
	return p.buf.Read(b)
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		for p.buf.Len() >= pipeRoom && p.err == nil {
			p.wake.Wait()
		}
		if p.err != nil {
			return n, io.ErrClosedPipe
		}
		k, _ := p.buf.Write(b[:min(len(b), pipeRoom-p.buf.Len())])
		n, b = n+k, b[k:]
		p.wake.Broadcast()
	}
	return n, nil
}

func (p *pipe) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.wake.Broadcast()
}

// must ends a test that cannot go on.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
