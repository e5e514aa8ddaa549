package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// fake is a node whose connections are loopback's.
type fake struct {
	id    peer.ID
	world *world

	mu    sync.Mutex
	peers []peer.ID
}

// world is where fakes find each other.
type world struct {
	mu  sync.Mutex
	all map[peer.ID]*fakeListener
}

func (w *world) node(n byte) *fake { return &fake{id: id(n), world: w} }

func (f *fake) ID() peer.ID { return f.id }

func (f *fake) SetPeers(ids []peer.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = ids
	return nil
}

func (f *fake) admits() []peer.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.peers)
}

func (f *fake) Dial(ctx context.Context, to peer.ID, _ string) (forward.Conn, error) {
	f.world.mu.Lock()
	l := f.world.all[to]
	f.world.mu.Unlock()
	if l == nil {
		return nil, errors.New("it is offline")
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	_, err = c.Write(f.id[:])
	return newFakeConn(c, to), err
}

func (f *fake) Listen(ctx context.Context, _ string) (forward.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	f.world.all[f.id] = &fakeListener{l}
	return f.world.all[f.id], nil
}

type fakeListener struct{ net.Listener }

func (l *fakeListener) AcceptConn() (forward.Incoming, error) {
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	var from peer.ID
	if _, err := io.ReadFull(c, from[:]); err != nil {
		return nil, err
	}
	return newFakeConn(c, from), nil
}

type fakeConn struct {
	*net.TCPConn
	peer   peer.ID
	ctx    context.Context
	cancel context.CancelFunc
}

func newFakeConn(c net.Conn, id peer.ID) *fakeConn {
	f := &fakeConn{TCPConn: c.(*net.TCPConn), peer: id}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

func (c *fakeConn) Peer() peer.ID            { return c.peer }
func (c *fakeConn) Context() context.Context { return c.ctx }

func (c *fakeConn) Close() error {
	c.cancel()
	return c.TCPConn.Close()
}

func (c *fakeConn) Abort() error {
	_ = c.SetLinger(0)
	return c.Close()
}

// Packets are none: what cannot be sent beside a stream goes in it.
func (c *fakeConn) Packets() io.ReadWriteCloser { return noPackets{} }

type noPackets struct{}

func (noPackets) Read([]byte) (int, error)    { return 0, io.EOF }
func (noPackets) Write(b []byte) (int, error) { return len(b), nil }
func (noPackets) Close() error                { return nil }

// eventually waits for what no event tells.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	timeUp := time.After(time.Minute)
	for !is() {
		select {
		case <-look.C:
		case <-timeUp:
			t.Fatalf("it did not come: %s", what)
		}
	}
}
