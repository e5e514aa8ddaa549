package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/peer"
	"bodkin/punch"
)

// scenario runs f with two nodes and simulated time. When f returns the nodes are
// closed, and anything of them that still runs fails the test.
func scenario(t *testing.T, f func(t *testing.T, a, b *node), change ...func(*Config)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := h.node(t, 1), h.node(t, 2, change...)
		f(t, a, b)
		_ = a.Close()
		_ = b.Close()
	})
}

func (n *node) listen(t *testing.T, service string) *Listener {
	t.Helper()
	l, err := n.Listen(service)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *node) connect(t *testing.T, to *node, service string) *Conn {
	t.Helper()
	c, err := n.Dial(t.Context(), to.id(), to.at(), service)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pair is both ends of a stream from a to b.
func pair(t *testing.T, a, b *node, l *Listener) (at, bt *Conn) {
	t.Helper()
	at = a.connect(t, b, l.service)
	bt, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	return at, bt
}

func mustWrite(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
		t.Errorf("wrote %d of %d, %v", n, len(s), err)
	}
}

func mustRead(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Errorf("read %q, %v, want %q", b, err, want)
	}
}

func mustEnd(t *testing.T, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || len(b) != 0 {
		t.Errorf("read %q, %v, want the end", b, err)
	}
}

func TestStreamWithHalfClose(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		if at.Peer() != b.id() || bt.Peer() != a.id() || bt.Service() != "echo" || bt.Overlay() != a.overlay {
			t.Errorf("%v and %v, service %s", at.Peer(), bt.Peer(), bt.Service())
		}
		if got := at.RemoteAddr().String(); got != b.id().String()+"/echo" || at.LocalAddr().Network() != "bodkin" {
			t.Errorf("addresses %v %v", at.LocalAddr(), got)
		}
		mustWrite(t, at, "question")
		if err := at.CloseWrite(); err != nil {
			t.Error(err)
		}
		mustRead(t, bt, "question")
		mustEnd(t, bt)
		mustWrite(t, bt, "answer") // the other direction is open
		mustRead(t, at, "answer")
		_ = bt.CloseWrite()
		mustEnd(t, at)
		if _, err := at.Write([]byte("x")); err == nil {
			t.Error("wrote after CloseWrite")
		}
	})
}

func TestManyServicesOverOneSession(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		var wg sync.WaitGroup
		for i := range 20 {
			l := b.listen(t, fmt.Sprint("service ", i))
			wg.Go(func() {
				at := a.connect(t, b, l.service)
				bt, err := l.AcceptConn()
				if err != nil {
					t.Error(err)
					return
				}
				mustWrite(t, at, l.service)
				mustRead(t, bt, l.service)
			})
		}
		wg.Wait()
		if a.Count(b.overlay) != 1 || b.Count(a.overlay) != 1 {
			t.Errorf("%d and %d sessions", a.Count(b.overlay), b.Count(a.overlay))
		}
		if s := b.Services(); len(s) != 20 || s[0] != "service 0" {
			t.Errorf("services %v", s)
		}
		if !slices.Equal(a.opened, []netip.Addr{b.overlay}) {
			t.Errorf("opened %v", a.opened)
		}
	})
}

func TestWrongPeerIsRefused(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		b.listen(t, "echo")
		stranger := testKey(9).ID()
		if _, err := a.Dial(t.Context(), stranger, b.at(), "echo"); !errors.Is(err, ErrWrongPeer) {
			t.Errorf("dialled another peer: %v", err)
		}
		synctest.Wait()
		if b.Count(a.overlay) != 0 {
			t.Error("a session stays")
		}
	})
}

// The acceptor knows another peer under the address that packets come from.
func TestAddressOfAnotherPeerIsRefused(t *testing.T) {
	for name, identify := range map[string]func(netip.Addr) (peer.ID, bool){
		"another": func(netip.Addr) (peer.ID, bool) { return testKey(9).ID(), true },
		"nobody":  func(netip.Addr) (peer.ID, bool) { return peer.ID{}, false },
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, func(t *testing.T, a, b *node) {
				b.listen(t, "echo")
				c, err := a.Dial(t.Context(), b.id(), b.at(), "echo")
				if err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Peer != b.id() {
					t.Errorf("refused with %v", err)
				}
				if b.Count(a.overlay) != 0 {
					t.Error("a session stays")
				}
			}, func(c *Config) { c.Identify = identify })
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*Config)
		service string
		reason  string
	}{
		"not admitted":    {func(c *Config) { c.Admit = func(peer.ID) bool { return false } }, "echo", "ask its owner"},
		"not allowed":     {func(c *Config) { c.Allow = func(_ peer.ID, s string) bool { return s != "echo" } }, "echo", "not allowed"},
		"unknown service": {func(*Config) {}, "nothing", "nothing listens"},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, func(t *testing.T, a, b *node) {
				b.listen(t, "echo")
				conn, err := a.Dial(t.Context(), b.id(), b.at(), c.service)
				if err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Peer != b.id() || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("refused with %v", err)
				}
				if err == nil || conn == nil {
					return
				}
				// Writing says the same, sooner or later.
				for err = nil; err == nil; {
					_, err = conn.Write(make([]byte, 1<<16))
				}
				if !errors.As(err, &refused) {
					t.Errorf("writing failed with %v", err)
				}
			}, c.change)
		})
	}
}

func TestFullBacklogIsBusy(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listen(t, "echo")
		for range backlog {
			a.connect(t, b, "echo")
		}
		synctest.Wait()
		time.Sleep(time.Second)
		c := a.connect(t, b, "echo")
		var refused *RefusedError
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "try again later") {
			t.Errorf("refused with %v", err)
		}
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
		// Closing refuses those who wait.
		other := a.connect(t, b, "echo")
		_ = l.Close()
		_ = l.Close()
		if _, err := other.Read(make([]byte, 1)); !errors.As(err, &refused) {
			t.Errorf("ended with %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept ended with %v", err)
		}
		b.listen(t, "echo") // the name is free again
	})
}

func TestServiceNames(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		for _, name := range []string{"", strings.Repeat("x", MaxService+1)} {
			if _, err := a.Dial(t.Context(), b.id(), b.at(), name); err == nil {
				t.Errorf("dialled %q", name)
			}
			if _, err := a.DialPacket(t.Context(), b.id(), b.at(), name); err == nil {
				t.Errorf("dialled datagrams of %q", name)
			}
			if _, err := b.Listen(name); err == nil {
				t.Errorf("listened for %q", name)
			}
			if _, err := b.ListenPacket(name); err == nil {
				t.Errorf("listened for datagrams of %q", name)
			}
		}
		long := strings.Repeat("x", MaxService)
		at, bt := pair(t, a, b, b.listen(t, long))
		mustWrite(t, at, "hello")
		mustRead(t, bt, "hello")
		if _, err := b.Listen(long); !errors.Is(err, ErrServiceTaken) {
			t.Errorf("listened twice: %v", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		begin := time.Now()
		_ = at.SetReadDeadline(begin.Add(time.Second))
		var timeout net.Error
		if _, err := at.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read ended with %v", err)
		}
		if time.Since(begin) != time.Second {
			t.Errorf("after %v", time.Since(begin))
		}
		_ = at.SetReadDeadline(time.Time{})
		mustWrite(t, bt, "after all")
		mustRead(t, at, "after all")
		// Nobody reads there: the window fills.
		_ = at.SetWriteDeadline(time.Now().Add(time.Minute))
		var err error
		for err == nil {
			_, err = at.Write(make([]byte, 1<<16))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write ended with %v", err)
		}
	})
}

func TestPing(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		if _, err := a.Ping(t.Context(), b.id(), b.at()); err != nil {
			t.Fatal(err)
		}
		rtt, err := a.Ping(t.Context(), b.id(), b.at())
		if err != nil || rtt < 2*a.hub.delay || rtt > 3*a.hub.delay {
			t.Errorf("%v, %v", rtt, err)
		}
		a.hub.block(punch.Relay, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Ping(ctx, b.id(), b.at()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a way: %v", err)
		}
		a.hub.block(punch.Relay, false)
		if _, err := a.Ping(t.Context(), b.id(), b.at()); err != nil {
			t.Error(err)
		}
	})
}

// Both dial at once: both connections stay, and new streams of both sides use the
// one that the smaller ID dialled.
func TestGlare(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		la, lb := a.listen(t, "a"), b.listen(t, "b")
		var toB, toA *Conn
		var wg sync.WaitGroup
		wg.Go(func() { toB = a.connect(t, b, "b") })
		wg.Go(func() { toA = b.connect(t, a, "a") })
		wg.Wait()
		atB, err := lb.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		atA, err := la.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		if a.Count(b.overlay) != 2 || b.Count(a.overlay) != 2 {
			t.Fatalf("%d and %d sessions", a.Count(b.overlay), b.Count(a.overlay))
		}
		mustWrite(t, toB, "one")
		mustRead(t, atB, "one")
		mustWrite(t, toA, "two")
		mustRead(t, atA, "two")
		aID, bID := a.id(), b.id()
		aSmaller := bytes.Compare(aID[:], bID[:]) < 0
		more, back := a.connect(t, b, "b"), b.connect(t, a, "a")
		if more.s.dialled != aSmaller || back.s.dialled == aSmaller {
			t.Errorf("a is the smaller: %v; its new stream is over a session that it dialled: %v, b's: %v",
				aSmaller, more.s.dialled, back.s.dialled)
		}
	})
}

// What several callers wait for is not lost because the first gives up.
func TestOneDiallerGivesUp(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		b.listen(t, "echo")
		a.hub.block(punch.Relay, true)
		gaveUp := errors.New("gave up")
		first, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.Dial(first, b.id(), b.at(), "echo"); !errors.Is(err, gaveUp) {
				t.Errorf("the first got %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if _, err := a.Dial(t.Context(), b.id(), b.at(), "echo"); err != nil {
					t.Errorf("another got %v", err)
				}
			})
		}
		short, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer done()
		if _, err := a.Dial(short, b.id(), b.at(), "echo"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient got %v", err)
		}
		a.hub.block(punch.Relay, false)
		cancel(gaveUp)
		wg.Wait()
		if n := a.Count(b.overlay); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

func TestNobodyThere(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		a.hub.kill(b)
		begin := time.Now()
		if _, err := a.Dial(t.Context(), b.id(), b.at(), "echo"); !errors.Is(err, ErrNoAnswer) || time.Since(begin) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestCloseSessionEndsItOnBothSides(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listen(t, "echo")
		at, bt := pair(t, a, b, l)
		a.CloseSession(b.overlay)
		if _, err := at.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "restarted") {
			t.Errorf("our stream: %v", err)
		}
		if _, err := bt.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "ended the session") {
			t.Errorf("the peer's stream: %v", err)
		}
		at, bt = pair(t, a, b, l)
		mustWrite(t, at, "again")
		mustRead(t, bt, "again")
		synctest.Wait()
		if !slices.Equal(a.closed, []netip.Addr{b.overlay}) {
			t.Errorf("closed %v", a.closed)
		}
	})
}

// Path learned that the peer's process is another one: what the old one had is
// over at once, and the next dial finds the new one.
func TestRestartedPeer(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, _ := pair(t, a, b, b.listen(t, "echo"))
		a.hub.kill(b)
		again := a.hub.node(t, 2)
		l := again.listen(t, "echo")
		mustWrite(t, at, "into the void")
		begin := time.Now()
		a.CloseSession(again.overlay)
		if _, err := at.Read(make([]byte, 1)); err == nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		now, there := pair(t, a, again, l)
		mustWrite(t, now, "hello")
		mustRead(t, there, "hello")
		_ = again.Close()
	})
}

func TestPeerThatOpensNoHeaderIsRefused(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, _ := pair(t, a, b, b.listen(t, "echo"))
		for _, head := range []string{"\x01", "\x01\x05ec", "\x01\x00", "\x03\x04name", "\x00\x00", "\x09\x01x"} {
			stream, err := at.s.conn.OpenStreamSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			mustWrite(t, stream, head)
			begin := time.Now()
			var refused *RefusedError
			if _, err := stream.Read(make([]byte, 1)); !errors.As(at.s.explain("", err), &refused) {
				t.Errorf("header %q: %v", head, err)
			}
			if d := time.Since(begin); d > headerTime+time.Second {
				t.Errorf("header %q: after %v", head, d)
			}
		}
		// The session itself is none the worse.
		if _, err := a.Ping(t.Context(), b.id(), b.at()); err != nil {
			t.Error(err)
		}
	})
}

func TestSessionsOfAPeerAreBounded(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		b.listen(t, "echo")
		for range maxSessions {
			if _, err := a.Manager.connect(t.Context(), b.id(), b.at()); err != nil {
				t.Fatal(err)
			}
		}
		s, err := a.Manager.connect(t.Context(), b.id(), b.at())
		if err != nil {
			t.Fatal(err)
		}
		<-s.conn.Context().Done()
		var refused *RefusedError
		if err := s.explain("", context.Cause(s.conn.Context())); !errors.As(err, &refused) {
			t.Errorf("the next one ended with %v", err)
		}
		if n := b.Count(a.overlay); n != maxSessions {
			t.Errorf("%d sessions", n)
		}
	})
}

func TestReadingEndsWhenThePeerCloses(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		mustWrite(t, bt, "last words")
		_ = bt.Close()
		mustRead(t, at, "last words")
		mustEnd(t, at)
		var err error
		for err == nil {
			_, err = at.Write(make([]byte, 1<<10))
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing to whom nobody reads: %v", err)
		}
	})
}

func TestAbortIsNotAnEnd(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		mustWrite(t, at, "half")
		mustRead(t, bt, "half")
		if err := at.Abort(); err != nil {
			t.Fatal(err)
		}
		if _, err := bt.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "broke the connection off") {
			t.Errorf("the peer reads %v", err)
		}
		<-bt.Context().Done()
		if _, err := bt.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the peer writes: %v", err)
		}
		_ = bt.Close()
	})
}

func TestClosedManager(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listen(t, "echo")
		at, bt := pair(t, a, b, l)
		p, err := b.ListenPacket("datagrams")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept ended with %v", err)
			}
		})
		wg.Go(func() {
			if _, _, err := p.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
				t.Errorf("ReadFrom ended with %v", err)
			}
		})
		wg.Go(func() {
			if _, err := bt.Read(make([]byte, 1)); err == nil {
				t.Error("read from a closed node")
			}
		})
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if _, err := at.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "ended the session") {
			t.Errorf("the peer learned %v", err)
		}
		_, dial := b.Dial(t.Context(), a.id(), a.at(), "x")
		_, packet := b.DialPacket(t.Context(), a.id(), a.at(), "x")
		_, ping := b.Ping(t.Context(), a.id(), a.at())
		_, listen := b.Listen("x")
		_, listenPacket := b.ListenPacket("x")
		for i, err := range []error{dial, packet, ping, listen, listenPacket} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("call %d after Close: %v", i, err)
			}
		}
	})
}

func TestCloseWhileDialling(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		a.hub.block(punch.Relay, true)
		done := make(chan error)
		go func() {
			_, err := a.Dial(t.Context(), b.id(), b.at(), "echo")
			done <- err
		}()
		synctest.Wait()
		_ = a.Close()
		if err := <-done; err == nil {
			t.Error("dialled from a closed node")
		}
	})
}

// Callers of every kind while the node is being closed: nothing may run on, or
// race with the end.
func TestCloseUnderLoad(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		l := b.listen(t, "echo")
		p, err := b.ListenPacket("echo")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					_, _ = io.Copy(c, c)
					_ = c.Close()
				})
			}
		})
		wg.Go(func() {
			buf := make([]byte, MaxDatagram)
			for {
				n, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = p.WriteTo(buf[:n], from)
			}
		})
		for range 8 {
			wg.Go(func() {
				for {
					c, err := a.Dial(t.Context(), b.id(), b.at(), "echo")
					if err != nil {
						return
					}
					_, _ = c.Write(make([]byte, 3000))
					_, _ = io.ReadFull(c, make([]byte, 3000))
					_ = c.Close()
				}
			})
			wg.Go(func() {
				for {
					f, err := a.DialPacket(t.Context(), b.id(), b.at(), "echo")
					if err != nil {
						return
					}
					_, _ = f.Write(make([]byte, 300))
					_ = f.SetReadDeadline(time.Now().Add(time.Second))
					_, _ = f.Read(make([]byte, 300))
					_ = f.Close()
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		wg.Go(func() { _ = b.Close() })
		_ = a.Close()
		wg.Wait()
	})
}
