//go:build !windows

package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// fake is a running node that dials the peer that the test plays.
type fake struct {
	Node
	status bodkin.Status
	dial   func(id peer.ID, service string) (forward.Conn, error)
	listen func(ctx context.Context, service string) (forward.Listener, error)
	ping   func(ctx context.Context) (bodkin.Pong, error)

	explain func() (bodkin.Explanation, error)
	invite  func(life time.Duration) (Invitation, error)
	join    func(code string) (peer.ID, error)
	admit   func(id peer.ID, service string) (func(), error)
}

func (f *fake) Invite(_ context.Context, life time.Duration) (Invitation, error) {
	return f.invite(life)
}

func (f *fake) Join(_ context.Context, code string) (peer.ID, error) { return f.join(code) }

func (f *fake) Admit(_ context.Context, id peer.ID, service string) (func(), error) {
	return f.admit(id, service)
}

func (f *fake) Explain(context.Context, peer.ID) (bodkin.Explanation, error) { return f.explain() }

func (f *fake) Status(context.Context) (bodkin.Status, error) { return f.status, nil }

func (f *fake) Ping(ctx context.Context, _ peer.ID) (bodkin.Pong, error) { return f.ping(ctx) }

func (f *fake) Dial(_ context.Context, id peer.ID, service string) (forward.Conn, error) {
	return f.dial(id, service)
}

func (f *fake) Listen(ctx context.Context, service string) (forward.Listener, error) {
	return f.listen(ctx, service)
}

func newID(t *testing.T) peer.ID {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.ID()
}

// inFolder gives the test a folder for sockets, with a path that is short enough.
func inFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bk") //nolint:usetesting // its path would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return filepath.Join(dir, "bodkin")
}

// run serves a node until the test ends, and connects a command with it.
func run(t *testing.T, n *fake) (*Server, Node) {
	t.Helper()
	inFolder(t)
	n.status.ID, n.status.Server = newID(t), "bodkin://server"
	s, err := Serve(n.status.ID, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := Connect(t.Context(), n.status.ID)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// far is the peer's end of a connection in memory, whose near end the running
// node has.
type far struct {
	near
	other *near
}

// near is one end; its directions end apart.
type near struct {
	in     *io.PipeReader
	out    *io.PipeWriter
	beside net.Conn // datagrams
	ctx    context.Context
	cancel context.CancelFunc
}

var errBroken = errors.New("broken off by the other end")

func newFar() *far {
	f := &far{other: &near{}}
	f.in, f.other.out = io.Pipe()
	f.other.in, f.out = io.Pipe()
	f.beside, f.other.beside = net.Pipe()
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.other.ctx, f.other.cancel = context.WithCancel(context.Background())
	return f
}

func (n *near) Read(b []byte) (int, error)  { return n.in.Read(b) }
func (n *near) Write(b []byte) (int, error) { return n.out.Write(b) }
func (n *near) Context() context.Context    { return n.ctx }
func (n *near) Packets() io.ReadWriteCloser { return n.beside }

func (n *near) CloseWrite() error {
	n.cancel()
	return n.out.Close()
}

func (n *near) Close() error {
	_ = n.in.Close()
	return n.CloseWrite()
}

func (n *near) CloseRead() error { return n.in.CloseWithError(errBroken) }

func (n *near) Abort() error {
	n.cancel()
	_ = n.in.Close()
	return n.out.CloseWithError(errBroken)
}

// unread gives up on what the near end writes.
func (f *far) unread() {
	_ = f.in.CloseWithError(errors.New("not read"))
	f.other.cancel()
}

// dialled is a connection through a running node, with the peer's end of it.
func dialled(t *testing.T) (*Server, forward.Conn, *far) {
	t.Helper()
	f := newFar()
	n := &fake{dial: func(peer.ID, string) (forward.Conn, error) { return f.other, nil }}
	s, node := run(t, n)
	c, err := node.Dial(t.Context(), newID(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, c, f
}
