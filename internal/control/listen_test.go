//go:build !windows

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// callers is a listener of a running node, on which peers connect as the test says.
type callers struct {
	queue chan forward.Incoming
	done  chan struct{}
	once  sync.Once
	err   error // at the end
}

func newCallers() *callers {
	return &callers{queue: make(chan forward.Incoming), done: make(chan struct{}), err: net.ErrClosed}
}

func (c *callers) AcceptConn() (forward.Incoming, error) {
	select {
	case in := <-c.queue:
		return in, nil
	case <-c.done:
		return nil, c.err
	}
}

func (c *callers) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// caller is a peer's connection.
type caller struct {
	*near
	id peer.ID
}

func (c caller) Peer() peer.ID { return c.id }

// calls has a peer connect, and returns its end.
func (c *callers) calls(id peer.ID) *far {
	f := newFar()
	c.queue <- caller{f.other, id}
	return f
}

// listening is a command that listens through a running node.
func listening(t *testing.T) (*Server, forward.Listener, *callers) {
	t.Helper()
	c := newCallers()
	s, node := run(t, &fake{listen: func(_ context.Context, service string) (forward.Listener, error) {
		if service != "x" {
			return nil, bodkin.ErrServiceTaken
		}
		return c, nil
	}})
	l, err := node.Listen(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if _, err := node.Listen(t.Context(), "y"); !errors.Is(err, bodkin.ErrServiceTaken) {
		t.Errorf("the other service: %v", err)
	}
	return s, l, c
}

func TestCommandTakesConnections(t *testing.T) {
	s, l, c := listening(t)
	for i := range 3 {
		id := newID(t)
		f := c.calls(id)
		in, err := l.AcceptConn()
		if err != nil || in.Peer() != id {
			t.Fatalf("%v connected, %v", in, err)
		}
		text := fmt.Sprintf("hello %d", i)
		go func() {
			_, _ = io.WriteString(f, text)
			_ = f.CloseWrite()
			_, _ = io.Copy(io.Discard, f)
		}()
		if got, err := io.ReadAll(in); string(got) != text || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		_ = in.Close()
	}
	if s.Busy() == 0 {
		t.Error("a command that listens counts for nothing")
	}
	// A connection that nobody has taken ends with the listener.
	f := c.calls(newID(t))
	_ = l.Close()
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, errBroken) {
		t.Errorf("ended with %v", err)
	}
	<-c.done
	if _, err := l.AcceptConn(); err == nil {
		t.Error("a closed listener took a connection")
	}
}

func TestListenerEndsWithItsReason(t *testing.T) {
	_, l, c := listening(t)
	c.err = bodkin.ErrDisplaced
	_ = c.Close()
	if _, err := l.AcceptConn(); !errors.Is(err, bodkin.ErrDisplaced) {
		t.Errorf("ended with %v", err)
	}
}

func TestListenerEndsWithTheRunningNode(t *testing.T) {
	s, l, c := listening(t)
	s.Close()
	if _, err := l.AcceptConn(); !errors.Is(err, ErrGone) {
		t.Errorf("ended with %v", err)
	}
	<-c.done
}

// Datagrams pass through a running node, beside a stream that has ended in part.
func TestPacketsThroughARunningNode(t *testing.T) {
	_, c, f := dialled(t)
	buf := make([]byte, 100)
	p := c.Packets()
	for i := range 3 {
		text := fmt.Sprintf("there %d", i)
		if _, err := p.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if n, err := f.beside.Read(buf); string(buf[:n]) != text || err != nil {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
		if _, err := f.beside.Write([]byte("back")); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(buf); string(buf[:n]) != "back" || err != nil {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
		if i == 0 {
			_ = c.CloseWrite()
		}
	}
	if _, err := p.Write(make([]byte, bodkin.MaxDatagram+1)); err == nil {
		t.Error("a larger one was sent")
	}
	_ = c.Close()
	if _, err := p.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}
	if _, err := p.Write([]byte("x")); err == nil {
		t.Error("wrote after the end")
	}
	// The far end is let go, too.
	if _, err := f.beside.Read(buf); !errors.Is(err, io.EOF) {
		t.Errorf("the peer's end: %v", err)
	}
}
