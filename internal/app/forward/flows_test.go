package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// end is one end of a connection in memory.
type end struct {
	in     *io.PipeReader
	out    *io.PipeWriter
	beside net.Conn
	ctx    context.Context
	cancel context.CancelFunc
}

func newEnds() (near, far *end) {
	near, far = &end{}, &end{}
	near.in, far.out = io.Pipe()
	far.in, near.out = io.Pipe()
	near.beside, far.beside = net.Pipe()
	for _, e := range []*end{near, far} {
		e.ctx, e.cancel = context.WithCancel(context.Background())
	}
	return near, far
}

func (e *end) Read(b []byte) (int, error)  { return e.in.Read(b) }
func (e *end) Write(b []byte) (int, error) { return e.out.Write(b) }
func (e *end) Context() context.Context    { return e.ctx }
func (e *end) Packets() io.ReadWriteCloser { return e.beside }

func (e *end) CloseWrite() error {
	e.cancel()
	return e.out.Close()
}

func (e *end) Close() error {
	_ = e.in.Close()
	return e.CloseWrite()
}

func (e *end) Abort() error {
	_ = e.in.Close()
	return e.out.CloseWithError(errors.New("broken off"))
}

// clients is a UDP socket in memory: what clients send, and what they get.
type clients struct {
	sent chan sent
	got  chan sent
	done chan struct{}
}

type sent struct {
	text string
	at   client
}

func (c *clients) read(b []byte) (int, client, error) {
	select {
	case s := <-c.sent:
		return copy(b, s.text), s.at, nil
	case <-c.done:
		return 0, client{}, net.ErrClosed
	}
}

func (c *clients) write(b []byte, to client) error {
	c.got <- sent{string(b), to}
	return nil
}

func (c *clients) Close() error {
	close(c.done)
	return nil
}

// port is a UDP port in memory whose flows the test has the other ends of.
type port struct {
	*clients
	opened chan *end
	away   atomic.Bool
	failed atomic.Int32
	worked atomic.Int32
}

func withPort(t *testing.T, test func(t *testing.T, p *port)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &port{
			clients: &clients{sent: make(chan sent), got: make(chan sent, 10), done: make(chan struct{})},
			opened:  make(chan *end, 2*maxFlows),
		}
		e := &entry{
			open: func(context.Context) (Conn, error) {
				if p.away.Load() {
					return nil, errors.New("away")
				}
				near, far := newEnds()
				p.opened <- far
				return near, nil
			},
			failed: func(error) { p.failed.Add(1) },
			worked: func() { p.worked.Add(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			e.serveFlows(ctx, p.clients)
		}()
		test(t, p)
		cancel()
		<-ended
	})
}

func player(port int) client {
	return client{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(port))}
}

var playerOne, playerTwo = player(1), player(2)

func (e *end) frame(t *testing.T, want string) {
	t.Helper()
	kind, body, err := readFrame(e, make([]byte, maxUDP))
	if kind != frameDatagram || string(body) != want || err != nil {
		t.Errorf("frame %d %q, %v; want %q", kind, body, err, want)
	}
}

func (e *end) packet(t *testing.T, want string) {
	t.Helper()
	b := make([]byte, 100)
	n, err := e.beside.Read(b)
	if n < 1 || b[0] != contextWhole || string(b[1:n]) != want || err != nil {
		t.Errorf("packet %q, %v; want %q", b[:n], err, want)
	}
}

// Before the peer has answered everything travels in the stream, which loses nothing;
// then beside it. What comes back goes to the client that is meant.
func TestFlowsBeginInTheirStreams(t *testing.T) {
	t.Parallel()
	withPort(t, func(t *testing.T, p *port) {
		p.sent <- sent{"one", playerOne}
		p.sent <- sent{"two", playerOne}
		p.sent <- sent{"other", playerTwo}
		one, two := <-p.opened, <-p.opened
		if kind, body, err := readFrame(one, make([]byte, maxUDP)); string(body) == "other" {
			one, two = two, one
			one.frame(t, "one")
		} else if string(body) != "one" {
			t.Errorf("frame %d %q, %v", kind, body, err)
		} else {
			two.frame(t, "other")
		}
		one.frame(t, "two")
		_, _ = one.Write(reply{}.bytes())
		synctest.Wait()
		p.sent <- sent{"three", playerOne}
		one.packet(t, "three")
		for _, by := range []io.Writer{one.beside, one} {
			b := append([]byte{contextWhole}, "answer"...)
			if by == one {
				b = appendFrame(nil, frameDatagram, []byte("answer"))
			}
			_, _ = by.Write(b)
			if got := <-p.got; got != (sent{"answer", playerOne}) {
				t.Errorf("%v came back", got)
			}
		}
		if n := p.worked.Load(); n != 1 {
			t.Errorf("it worked %d times", n)
		}
	})
}

// A flow ends when nothing passes for a while, in either direction; the client begins
// another one then.
func TestIdleFlowsEnd(t *testing.T) {
	t.Parallel()
	withPort(t, func(t *testing.T, p *port) {
		p.sent <- sent{"x", playerOne}
		far := <-p.opened
		far.frame(t, "x")
		_, _ = far.Write(reply{}.bytes())
		begin := time.Now()
		for range 10 { // only one direction is used
			time.Sleep(idleTime - time.Second)
			_, _ = far.beside.Write([]byte{contextWhole, 'y'})
			<-p.got
		}
		last := time.Now()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("ended with %v", err)
		}
		if idle := time.Since(last); idle < idleTime || idle > 2*idleTime || last.Sub(begin) < 9*idleTime {
			t.Errorf("ended after %v", idle)
		}
		synctest.Wait()
		p.sent <- sent{"again", playerOne}
		(<-p.opened).frame(t, "again")
		if n := p.failed.Load(); n != 0 {
			t.Errorf("%d complaints", n)
		}
	})
}

// A game sends on while the peer is away: it is not dialled for each packet.
func TestFlowsThatFailAreNotTriedAtOnce(t *testing.T) {
	t.Parallel()
	withPort(t, func(t *testing.T, p *port) {
		p.away.Store(true)
		for range 600 {
			p.sent <- sent{"x", playerOne}
			time.Sleep(time.Second / 60)
		}
		if n := p.failed.Load(); n < 9 || n > 11 {
			t.Errorf("tried %d times in ten seconds", n)
		}
		p.away.Store(false)
		time.Sleep(holdOff)
		p.sent <- sent{"back", playerOne}
		(<-p.opened).frame(t, "back")
	})
}

// The peer that ends a flow ends it for the client's next datagram, too.
func TestFlowThatThePeerEnds(t *testing.T) {
	t.Parallel()
	withPort(t, func(t *testing.T, p *port) {
		p.sent <- sent{"x", playerOne}
		far := <-p.opened
		far.frame(t, "x")
		_, _ = far.Write(reply{}.bytes())
		_ = far.Close()
		synctest.Wait()
		p.sent <- sent{"y", playerOne}
		(<-p.opened).frame(t, "y")
		if n := p.failed.Load(); n != 0 {
			t.Errorf("%d complaints", n)
		}
	})
}

func TestFlowsAreBounded(t *testing.T) {
	t.Parallel()
	withPort(t, func(t *testing.T, p *port) {
		for i := range maxFlows + 100 {
			p.sent <- sent{"x", player(i + 1)}
		}
		synctest.Wait()
		if n := len(p.opened); n != maxFlows {
			t.Errorf("%d flows", n)
		}
	})
}
