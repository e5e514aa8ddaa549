package daemon

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// started is a daemon that runs a plan until the test ends.
func started(t *testing.T, n *fake, p Plan) (d *Daemon, events <-chan forward.Event) {
	t.Helper()
	told := make(chan forward.Event, 100)
	d = New(p, func(e forward.Event) { told <- e })
	d.Start(context.Background(), n)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Serve(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		d.Close()
		wg.Wait()
	})
	return d, told
}

// await is the next event of a kind.
func await(t *testing.T, events <-chan forward.Event, k forward.Kind) forward.Event {
	t.Helper()
	for e := range events {
		if e.Kind == k {
			return e
		}
	}
	panic("unreachable")
}

// echo is a port that sends back what comes.
func echo(t *testing.T) forward.Endpoint {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return forward.Endpoint{Network: forward.TCP, Address: l.Addr().String()}
}

func connect(t *testing.T, at string) *net.TCPConn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func rule(t *testing.T, id peer.ID, to forward.Endpoint) forward.Rule {
	t.Helper()
	r, err := forward.ParseRule(to.String())
	if err != nil {
		t.Fatal(err)
	}
	r.Peer = id
	return r
}

var anyPort = forward.Endpoint{Network: forward.TCP, Address: "127.0.0.1:0"}

// A forward is counted, allowed until it is not, and its port is free when it is over.
func TestForwardFromDaemonToDaemon(t *testing.T) {
	t.Parallel()
	w := &world{all: make(map[peer.ID]*fakeListener)}
	a, b := w.node(1), w.node(2)
	target := echo(t)
	there, _ := started(t, b, Plan{Peers: []peer.ID{a.id}, Rules: forward.Rules{rule(t, a.id, target)}})
	eventually(t, "b serves", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.all[b.id] != nil
	})
	here, events := started(t, a, Plan{Forwards: []forward.Forward{{Peer: b.id, Listen: anyPort, To: target}}})
	at := await(t, events, forward.Listening).Forward.Listen.Address
	await(t, events, forward.Ready)

	c := connect(t, at)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	s := here.Status().Forwards[0]
	if s.Listen != at || s.State != Ready || s.Open != 1 || s.Total != 1 || s.Sent < 5 || s.Received < 5 || s.Reason != "" {
		t.Errorf("%+v", s)
	}
	_ = c.CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	eventually(t, "the connection is over", func() bool { return here.Status().Forwards[0].Open == 0 })
	if got := there.Status().Allows; len(got) != 1 || got[0].Used < 1 || got[0].To != target.String() || got[0].Peer != a.id {
		t.Errorf("%+v", got)
	}

	// Without the allowance the next one is refused.
	if err := there.Apply(Plan{Peers: []peer.ID{a.id, id(3)}}); err != nil {
		t.Fatal(err)
	}
	if got := b.admits(); !slices.Equal(got, []peer.ID{a.id, id(3)}) || !there.Allows(id(3), "") {
		t.Errorf("%d may connect", len(got))
	}
	// It is broken off, as early as while it connects.
	if c, err := new(net.Dialer).DialContext(t.Context(), "tcp4", at); err == nil {
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%q came back", got)
		}
		_ = c.Close()
	}
	await(t, events, forward.Refused)
	if s := here.Status().Forwards[0]; s.State != Refused || !strings.Contains(s.Reason, "does not allow") {
		t.Errorf("%+v", s)
	}

	// A forward that is not in the plan any more gives its port back.
	if err := here.Apply(Plan{}); err != nil {
		t.Fatal(err)
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp4", at); err == nil {
		t.Error("the port is still open")
	}
	if s := here.Status(); len(s.Forwards) != 0 || s.Allows == nil {
		t.Errorf("%+v", s)
	}
}

// What is the same in both plans runs on, with its connections.
func TestWhatIsTheSameRunsOn(t *testing.T) {
	t.Parallel()
	w := &world{all: make(map[peer.ID]*fakeListener)}
	a, b := w.node(1), w.node(2)
	target := echo(t)
	started(t, b, Plan{Rules: forward.Rules{rule(t, peer.ID{}, target)}})
	eventually(t, "b serves", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.all[b.id] != nil
	})
	stays := forward.Forward{Peer: b.id, Listen: anyPort, To: target}
	here, events := started(t, a, Plan{Forwards: []forward.Forward{stays}})
	c := connect(t, await(t, events, forward.Listening).Forward.Listen.Address)
	more := forward.Forward{Peer: b.id, Listen: anyPort, To: forward.Endpoint{Network: forward.TCP, Address: "localhost:1"}}
	if err := here.Apply(Plan{Forwards: []forward.Forward{more, stays}}); err != nil {
		t.Fatal(err)
	}
	await(t, events, forward.Listening)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	if s := here.Status(); len(s.Forwards) != 2 || s.Forwards[0].To != "localhost:1" || s.Forwards[1].Open != 1 {
		t.Errorf("%+v", s.Forwards)
	}
}

// A port that is taken is tried again until it is free.
func TestTakenPortIsTriedAgain(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := forward.Endpoint{Network: forward.TCP, Address: taken.Addr().String()}
	w := &world{all: make(map[peer.ID]*fakeListener)}
	d, events := started(t, w.node(1), Plan{Forwards: []forward.Forward{{Peer: id(2), Listen: at, To: at}}})
	e := await(t, events, forward.Failed)
	if s := d.Status().Forwards[0]; s.State != Failed || !strings.Contains(s.Reason, "another program does already") || e.Err == nil {
		t.Errorf("%+v, %v", s, e.Err)
	}
	_ = taken.Close()
	await(t, events, forward.Listening)
	await(t, events, forward.Unreachable)
	if s := d.Status().Forwards[0]; s.State != Unreachable || !strings.Contains(s.Reason, "offline") {
		t.Errorf("%+v", s)
	}
}

// A daemon that is closed starts nothing more.
func TestClosedDaemonStaysClosed(t *testing.T) {
	t.Parallel()
	w := &world{all: make(map[peer.ID]*fakeListener)}
	d, _ := started(t, w.node(1), Plan{})
	d.Close()
	if err := d.Apply(Plan{Forwards: []forward.Forward{{Peer: id(2), Listen: anyPort, To: anyPort}}}); err != nil {
		t.Error(err)
	}
	if s := d.Status(); len(s.Forwards) != 0 {
		t.Errorf("%+v", s.Forwards)
	}
}
