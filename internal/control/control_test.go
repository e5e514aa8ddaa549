//go:build !windows

package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/app/pipe"
	"bodkin/peer"
)

func TestStatusAndServer(t *testing.T) {
	n := &fake{status: bodkin.Status{Services: []string{"pipe"}, Peers: []bodkin.PeerStatus{{ID: newID(t)}}}}
	_, c := run(t, n)
	got, err := c.Status(t.Context())
	if err != nil || got.ID != n.status.ID || len(got.Peers) != 1 || got.Peers[0].ID != n.status.Peers[0].ID {
		t.Errorf("status %+v, %v", got, err)
	}
	if c.Server() != "bodkin://server" {
		t.Errorf("server %q", c.Server())
	}
}

func TestPing(t *testing.T) {
	want := bodkin.Pong{RTT: time.Second, Route: bodkin.Route{Transport: "udp"}}
	n := &fake{ping: func(context.Context) (bodkin.Pong, error) { return want, nil }}
	_, c := run(t, n)
	if got, err := c.Ping(t.Context(), newID(t)); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	timeUp := errors.New("time is up")
	n.ping = func(ctx context.Context) (bodkin.Pong, error) {
		<-ctx.Done() // when the command has gone
		return bodkin.Pong{}, ctx.Err()
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, timeUp)
	defer cancel()
	if _, err := c.Ping(ctx, newID(t)); !errors.Is(err, timeUp) {
		t.Errorf("ended with %v", err)
	}
}

func TestExplain(t *testing.T) {
	want := bodkin.Explanation{
		Version: 1, Peer: newID(t), Way: "relay", Blame: []bodkin.Blame{{Side: "both", Layer: "mapping"}}, Help: []string{"IPv6"},
		Attempt: &bodkin.Attempt{Won: "plain", First: time.Second},
	}
	n := &fake{explain: func() (bodkin.Explanation, error) { return want, nil }}
	_, c := run(t, n)
	if got, err := c.Explain(t.Context(), newID(t)); !reflect.DeepEqual(got, want) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	n.explain = func() (bodkin.Explanation, error) { return want, bodkin.ErrClosed }
	if _, err := c.Explain(t.Context(), newID(t)); err == nil || err.Error() != bodkin.ErrClosed.Error() {
		t.Errorf("failed with %v", err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	cases := map[string]struct {
		err  error
		kind string
	}{
		"server":        {&bodkin.ServerError{Server: "x", Err: errors.New("silent")}, KindServer},
		"not reachable": {&bodkin.DialError{Err: bodkin.ErrNotReachable}, KindNotReachable},
		"no answer":     {&bodkin.DialError{Err: bodkin.ErrNoAnswer}, KindNotReachable},
		"refused":       {&bodkin.RefusedError{Reason: "no"}, KindRefused},
		"other":         {errors.New("anything"), KindOther},
	}
	n := &fake{}
	_, c := run(t, n)
	for name, x := range cases {
		t.Run(name, func(t *testing.T) {
			n.dial = func(peer.ID, string) (forward.Conn, error) { return nil, x.err }
			n.ping = func(context.Context) (bodkin.Pong, error) { return bodkin.Pong{}, x.err }
			for _, f := range []func() error{
				func() error { _, err := c.Dial(t.Context(), newID(t), "x"); return err },
				func() error { _, err := c.Ping(t.Context(), newID(t)); return err },
			} {
				var e *Error
				if err := f(); !errors.As(err, &e) || e.Kind != x.kind || e.Text != x.err.Error() {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestDialNamesPeerAndService(t *testing.T) {
	var id peer.ID
	var service string
	n := &fake{dial: func(i peer.ID, s string) (forward.Conn, error) {
		id, service = i, s
		return nil, errors.New("seen")
	}}
	_, c := run(t, n)
	want := newID(t)
	for _, name := range []string{"ssh", "..", "a/b", "sp ace?&=ü"} {
		if _, err := c.Dial(t.Context(), want, name); err == nil || err.Error() != "seen" {
			t.Error(err)
		}
		if id != want || service != name {
			t.Errorf("node was asked for %v, %q", id, service)
		}
	}
}

func TestStreamThroughTheNodeEndsEachWayAlone(t *testing.T) {
	_, c, f := dialled(t)
	big := bytes.Repeat([]byte("0123456789"), 1<<16)
	go func() {
		_, _ = c.Write(big)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(f); !bytes.Equal(got, big) || err != nil {
		t.Errorf("peer read %d bytes, %v", len(got), err)
	}
	go func() {
		_, _ = f.Write(big)
		_ = f.CloseWrite()
	}()
	if got, err := io.ReadAll(c); !bytes.Equal(got, big) || err != nil {
		t.Errorf("command read %d bytes, %v", len(got), err)
	}
}

func TestPeerEndsFirst(t *testing.T) {
	_, c, f := dialled(t)
	_ = f.CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	go func() {
		_, _ = io.WriteString(c, "afterwards")
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(f); string(got) != "afterwards" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
}

func TestPeerThatReadsNoMoreIsNoticedWithoutAWrite(t *testing.T) {
	_, c, f := dialled(t)
	f.unread()
	<-c.Context().Done()
	if _, err := c.Write([]byte("x")); err == nil || err.Error() != errUnread.Error() {
		t.Errorf("write ended with %v", err)
	}
	// The other direction lives on.
	go func() {
		_, _ = io.WriteString(f, "still here")
		_ = f.CloseWrite()
	}()
	if got, err := io.ReadAll(c); string(got) != "still here" || err != nil {
		t.Errorf("command read %q, %v", got, err)
	}
}

func TestRefusalComesWithTheFirstRead(t *testing.T) {
	_, c, f := dialled(t)
	_ = f.out.CloseWithError(&bodkin.RefusedError{Service: "x", Reason: "not today"})
	var e *Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &e) || e.Kind != KindRefused || !strings.Contains(e.Text, "not today") {
		t.Errorf("read ended with %v", err)
	}
}

func TestCommandThatDiesBreaksTheConnectionOff(t *testing.T) {
	for name, die := range map[string]func(pipe.Conn){
		"killed":  func(c pipe.Conn) { _ = c.(*stream).socket.Close() },
		"aborted": func(c pipe.Conn) { _ = c.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			s, c, f := dialled(t)
			_, _ = io.WriteString(c, "half of it")
			die(c)
			if _, err := io.ReadAll(f); !errors.Is(err, errBroken) {
				t.Errorf("the peer took it for the whole: %v", err)
			}
			_ = f.CloseWrite()
			s.Wait(t.Context())
		})
	}
}

func TestNodeThatEndsBreaksTheConnectionOff(t *testing.T) {
	s, c, f := dialled(t)
	if s.Busy() != 1 {
		t.Errorf("%d connections", s.Busy())
	}
	s.Close()
	if _, err := io.ReadAll(c); !errors.Is(err, ErrGone) {
		t.Errorf("the command took it for the whole: %v", err)
	}
	if _, err := io.ReadAll(f); !errors.Is(err, errBroken) {
		t.Errorf("the peer took it for the whole: %v", err)
	}
}

func TestWaitLetsCommandsFinish(t *testing.T) {
	s, c, f := dialled(t)
	s.Leave()
	waited := make(chan struct{})
	go func() {
		s.Wait(t.Context())
		close(waited)
	}()
	go func() {
		_, _ = io.WriteString(c, "the rest")
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(f); string(got) != "the rest" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
	select {
	case <-waited:
		t.Error("did not wait for the peer's direction")
	default:
	}
	_ = f.CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	<-waited
}

func TestNothingRuns(t *testing.T) {
	dir := inFolder(t)
	id := newID(t)
	if _, err := Connect(t.Context(), id); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	// A process that was killed leaves its socket behind.
	stale := filepath.Join(dir, id.String()[:20]+".sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := Connect(t.Context(), id); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a stale socket: %v", err)
	}
	s, err := Serve(id, &fake{status: bodkin.Status{ID: id}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(t.Context(), id); err != nil {
		t.Errorf("a stale socket was not taken over: %v", err)
	}
	s.Close()
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("Close left %v, %v", left, err)
	}
}

func TestOtherNodeOnTheSocketIsNotOurs(t *testing.T) {
	inFolder(t)
	id := newID(t)
	s, err := Serve(id, &fake{status: bodkin.Status{ID: newID(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Connect(t.Context(), id); !errors.Is(err, ErrNotRunning) {
		t.Errorf("connected: %v", err)
	}
}

// Whichever of the two closes first, the newer one's socket stays.
func TestDisplacedNodeLeavesTheNewOnesSocket(t *testing.T) {
	inFolder(t)
	id := newID(t)
	serve := func(name string) *Server {
		s, err := Serve(id, &fake{status: bodkin.Status{ID: id, Server: name}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	first := serve("first")
	second := serve("second")
	first.Close()
	c, err := Connect(t.Context(), id)
	if err != nil || c.Server() != "second" {
		t.Fatalf("found %v, %v", c, err)
	}
	second.Close()
	if _, err := Connect(t.Context(), id); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the second's end: %v", err)
	}
}

func TestFolderThatIsNotOursAloneIsRefused(t *testing.T) {
	dir := inFolder(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"serve":   func() error { _, err := Serve(newID(t), &fake{}); return err },
		"connect": func() error { _, err := Connect(t.Context(), newID(t)); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "not this user's alone; remove it") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Path(newID(t)); err == nil {
		t.Error("a file in the folder's place was taken")
	}
}

func TestPathThatIsTooLongSaysSo(t *testing.T) {
	dir := inFolder(t)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(filepath.Dir(dir), strings.Repeat("long", 30)))
	if _, err := Serve(newID(t), &fake{}); err == nil || !strings.Contains(err.Error(), "set XDG_RUNTIME_DIR") {
		t.Error(err)
	}
}

func TestReport(t *testing.T) {
	s, c := run(t, &fake{})
	var got map[string]int
	if err := Report(t.Context(), c, &got); !errors.Is(err, ErrNoReport) {
		t.Errorf("%v of a process that has nothing to tell", err)
	}
	s.Report(func() any { return map[string]int{"forwards": 2} })
	if err := Report(t.Context(), c, &got); err != nil || got["forwards"] != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if err := Report(t.Context(), &fake{}, &got); !errors.Is(err, ErrNoReport) {
		t.Errorf("%v of a node of our own", err)
	}
	s.Close()
	if err := Report(t.Context(), c, &got); err == nil || errors.Is(err, ErrNoReport) {
		t.Errorf("%v of a process that has ended", err)
	}
}

// Only root looks at the system's service, and at its own place first.
func TestPlaces(t *testing.T) {
	_, c := run(t, &fake{})
	got, err := places(c.ID())
	own, errOwn := Path(c.ID())
	if err != nil || errOwn != nil || got[0] != own {
		t.Fatalf("%v, %v, %v", got, err, errOwn)
	}
	if want := os.Getuid() == 0; (len(got) == 2) != want || want && got[1] != filepath.Join("/run/bodkin", filepath.Base(own)) {
		t.Errorf("%v", got)
	}
}
