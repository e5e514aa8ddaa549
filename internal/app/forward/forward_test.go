package forward_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/internal/app/pipe"
	"bodkin/internal/control"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// patience is how long what must come may take. It is no measurement.
const patience = time.Minute

// world is two nodes with a server, and what they have told.
type world struct {
	t    *testing.T
	ctx  context.Context
	url  string
	on   func(host string) bodkin.Network
	a, b *bodkin.Node
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, func(string) bodkin.Network { return nil }, netip.MustParseAddrPort("127.0.0.1:0"))
}

// newWorldOn is a world on the hosts server, a and b.
func newWorldOn(t *testing.T, on func(host string) bodkin.Network, server netip.AddrPort) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: newKey(t), Network: on("server"), Listen: []netip.AddrPort{server},
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(running) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	w := &world{t: t, ctx: ctx, url: s.URL(server.Addr().String()).String(), on: on}
	w.a, w.b = w.node("a", newKey(t)), w.node("b", newKey(t))
	return w
}

func (w *world) node(host string, k peer.Key) *bodkin.Node {
	w.t.Helper()
	n, err := bodkin.Start(w.ctx, bodkin.Config{Key: k, Server: w.url, Network: w.on(host), Transports: []string{"udp"}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = n.Close() })
	return n
}

func newKey(t *testing.T) peer.Key {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// told is what somebody has been told.
type told struct {
	t      *testing.T
	mu     sync.Mutex
	all    []forward.Event
	change chan struct{}
}

func (o *told) tell(e forward.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, e)
	close(o.change)
	o.change = make(chan struct{})
}

func newTold(t *testing.T) *told {
	t.Helper()
	return &told{t: t, change: make(chan struct{})}
}

// await returns the event of a kind with these words in it, the nth from 0.
func (o *told) await(n int, kind forward.Kind, words string) forward.Event {
	o.t.Helper()
	late := time.After(patience)
	for {
		o.mu.Lock()
		left := n
		for _, e := range o.all {
			if e.Kind == kind && strings.Contains(e.String(), words) {
				if left == 0 {
					o.mu.Unlock()
					return e
				}
				left--
			}
		}
		all, change := fmt.Sprint(o.all), o.change
		o.mu.Unlock()
		select {
		case <-change:
		case <-late:
			o.t.Fatalf("no event %s with %q, only %s", kind, words, all)
		}
	}
}

func (o *told) count(kind forward.Kind) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.all {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// begin does something until the test ends, or stop is called.
func (w *world) begin(do func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := do(ctx); err != nil {
			w.t.Errorf("ended with %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			w.t.Error("it did not end")
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// serve lets a do what the rules say, at b.
func (w *world) serve(rules ...string) *told {
	w.t.Helper()
	return w.serveBy(control.Local(w.b), rules...)
}

func (w *world) serveBy(n forward.Node, rules ...string) *told {
	w.t.Helper()
	o := newTold(w.t)
	w.begin(func(ctx context.Context) error { return forward.Serve(ctx, n, w.rules(rules...).Allow, o.tell) })
	o.await(0, forward.Serving, "")
	return o
}

func (w *world) rules(texts ...string) (rules forward.Rules) {
	w.t.Helper()
	for _, text := range texts {
		text, reverse := strings.CutPrefix(text, "reverse ")
		r, err := forward.ParseRule(text)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Peer, r.Reverse = w.a.ID(), reverse
		rules = append(rules, r)
	}
	return rules
}

// forward runs a forward at a, and returns where it listens.
func (w *world) forward(listen, to string) (string, *told) {
	w.t.Helper()
	return w.forwardBy(control.Local(w.a), listen, to, false)
}

func (w *world) reverse(listen, to string) (string, *told) {
	w.t.Helper()
	return w.forwardBy(control.Local(w.a), listen, to, true)
}

func (w *world) forwardBy(n forward.Node, listen, to string, reverse bool) (string, *told) {
	w.t.Helper()
	l, target, err := forward.Parse(listen, to)
	if err != nil {
		w.t.Fatal(err)
	}
	o := newTold(w.t)
	w.begin(func(ctx context.Context) error {
		return forward.Run(ctx, n, forward.Forward{Peer: w.b.ID(), Listen: l, To: target, Reverse: reverse}, o.tell)
	})
	return o.await(0, forward.Listening, "").Forward.Listen.Address, o
}

// target serves connections on a port of loopback until the test ends.
func target(t *testing.T, serve func(*net.TCPConn)) (port string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
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
				defer func() { _ = c.Close() }()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) }

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// unanswered is a client that is broken off, at whatever moment it notices.
func unanswered(t *testing.T, address string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = c.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client read %d bytes, %v", n, err)
	}
}

// say sends a line and reads it again.
func say(t *testing.T, c io.ReadWriter, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
		t.Fatalf("%q came back, %v", got, err)
	}
}

// sum is a target that reads to the end, and then says what it read.
func sum(c *net.TCPConn) {
	h := sha256.New()
	_, _ = io.Copy(h, c)
	_, _ = c.Write(h.Sum(nil))
}

func TestEachDirectionEndsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up, ended := target(t, sum), make(chan struct{})
	down := target(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "that is all")
		_ = c.CloseWrite()
		got, err := io.ReadAll(c)
		if string(got) != "and this" || err != nil {
			t.Errorf("the target read %q, %v", got, err)
		}
		close(ended)
	})
	w.serve(up, down)
	at, o := w.forward("0", up)
	o.await(0, forward.Ready, "")
	c := dial(t, at)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	want := sha256.Sum256(data)
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("read %x, %v", got, err)
	}
	at, _ = w.forward("0", down)
	c = dial(t, at)
	if got, err := io.ReadAll(c); string(got) != "that is all" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	_, _ = io.WriteString(c, "and this")
	_ = c.CloseWrite()
	<-ended
}

// A client whose target reads nothing is stopped, before it has filled anybody's
// memory; its neighbours are not, and in the end all of it arrives.
func TestSlowTargetStopsItsClientAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	read := make(chan struct{})
	slow := target(t, func(c *net.TCPConn) {
		<-read
		sum(c)
	})
	quick := target(t, echo)
	w.serve(slow, quick)
	at, _ := w.forward("0", slow)
	c := dial(t, at)
	const most = 256 << 20
	h, sent, piece := sha256.New(), 0, make([]byte, 1<<16)
	for sent < most {
		_, _ = rand.Read(piece[:64])
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Write(piece)
		h.Write(piece[:n])
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if sent >= most {
		t.Fatalf("%d bytes were taken, and nobody read them", sent)
	}
	t.Logf("%d bytes were under way", sent)
	other, _ := w.forward("0", quick)
	say(t, dial(t, other), "meanwhile")
	close(read)
	_ = c.SetDeadline(time.Now().Add(patience))
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, h.Sum(nil)) {
		t.Errorf("read %x, %v", got, err)
	}
}

// Two thousand connections at once, all open before the first one is used.
func TestThousandsOfConnections(t *testing.T) {
	t.Parallel()
	const files = 4*thousands + 500
	if have := openFiles(t); have < files {
		t.Skipf("it needs %d open files, and may have %d", files, have)
	}
	w := newWorld(t)
	var open atomic.Int32
	all := make(chan struct{})
	port := target(t, func(c *net.TCPConn) {
		if open.Add(1) == thousands {
			close(all)
		}
		<-all
		echo(c)
	})
	w.serve(port)
	at, o := w.forward("0", port)
	o.await(0, forward.Ready, "")
	var wg sync.WaitGroup
	for i := range thousands {
		c := dial(t, at)
		wg.Go(func() {
			say(t, c, fmt.Sprintf("%08d", i))
			_ = c.CloseWrite()
			if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
				t.Errorf("connection %d ended with %q, %v", i, rest, err)
			}
		})
	}
	wg.Wait()
	if n := o.count(forward.Refused) + o.count(forward.Unreachable); n > 0 {
		t.Errorf("%d complaints", n)
	}
}

const thousands = 2000

// What breaks off does so at the other end too, and is no end.
func TestBreakingOffPasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := make(chan error, 1)
	breaks := target(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})
	broke := target(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("x"))
		_, err := io.Copy(io.Discard, c)
		broken <- err
	})
	w.serve(breaks, broke)
	at, _ := w.forward("0", breaks)
	c := dial(t, at)
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client's read ended with %v", err)
	}
	at, _ = w.forward("0", broke)
	c = dial(t, at)
	_, _ = io.ReadFull(c, make([]byte, 1))
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-broken; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target's read ended with %v", err)
	}
}

// What the peer does not do is told with its reason, once for all that fail alike,
// and the client is not left waiting.
func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	closed := target(t, echo)
	gone := target(t, echo)
	served := w.serve(gone, "nowhere.invalid:80", "unix:/nowhere/at/all")
	for to, want := range map[string]string{
		closed:                 "does not allow us to reach localhost:" + closed + "; on that machine, allow it with: bodkin serve-port --peer " + w.a.ID().String() + " localhost:" + closed,
		"nowhere.invalid:80":   "knows no host of the name in nowhere.invalid:80",
		"unix:/nowhere/at/all": "nothing listens at unix:/nowhere/at/all of peer",
	} {
		at, o := w.forward("0", to)
		if to == closed {
			// It is asked at the start, and no client is needed.
			o.await(0, forward.Refused, want)
		}
		for range 3 {
			unanswered(t, at)
		}
		o.await(0, forward.Refused, want)
		if n := o.count(forward.Refused); n != 1 {
			t.Errorf("%s: told %d times", to, n)
		}
	}
	served.await(0, forward.Denied, "wanted to reach localhost:"+closed+", which is not allowed")
	if n := served.count(forward.Denied); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestPeerThatServesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := w.b.Listen("other")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := w.b.WaitRegistered(w.ctx); err != nil {
		t.Fatal(err)
	}
	_, o := w.forward("0", "22")
	o.await(0, forward.Refused, "forwards nothing; on that machine, allow it with: bodkin serve-port --peer ")
	err = forward.Connect(w.ctx, control.Local(w.a), w.b.ID(), forward.Endpoint{Network: forward.TCP, Address: "localhost:22"},
		pipe.Streams{In: strings.NewReader(""), Out: io.Discard})
	if _, ok := errors.AsType[*forward.RefusedError](err); !ok {
		t.Errorf("connected, %v", err)
	}
}

// A forward outlives the peer's process, and says once that it is away and once that
// it is back.
func TestPeerIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := target(t, echo)
	key := newKey(t)
	first := w.node("b", key)
	w.b = first
	served := newTold(t)
	stop := w.begin(func(ctx context.Context) error {
		return forward.Serve(ctx, control.Local(first), w.rules(port).Allow, served.tell)
	})
	served.await(0, forward.Serving, "")
	at, o := w.forward("0", port)
	say(t, dial(t, at), "hello")
	stop()
	_ = first.Close()
	for range 3 {
		unanswered(t, at)
	}
	o.await(0, forward.Unreachable, "cannot be reached")
	w.b = w.node("b", key)
	w.serve(port)
	ready := o.count(forward.Ready)
	say(t, dial(t, at), "hello again")
	o.await(ready, forward.Ready, "")
}

// udpTarget answers each datagram with the port that it came from, and the datagram.
func udpTarget(t *testing.T) (port string) {
	t.Helper()
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 0 || buf[0] != '?' {
				_, _ = c.WriteTo(buf[:n], from)
				continue
			}
			_, _ = c.WriteTo([]byte(from.String()), from)
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	_, port, _ = net.SplitHostPort(c.LocalAddr().String())
	return port
}

// ask sends a datagram until an answer comes.
func ask(t *testing.T, c net.Conn, d []byte) []byte {
	t.Helper()
	buf := make([]byte, 1<<16)
	for range 100 {
		if _, err := c.Write(d); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(buf)
		if err == nil {
			return buf[:n]
		}
	}
	t.Fatalf("no answer to %d bytes", len(d))
	return nil
}

func dialUDP(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFlowsHavePortsOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := udpTarget(t)
	w.serve(port+"/udp", "reverse 0/udp")
	for name, at := range map[string]string{
		"forward": first(w.forward("0", port+"/udp")),
		"reverse": first(w.reverse("0", port+"/udp")),
	} {
		seen := make(map[string]bool)
		for range 5 {
			c := dialUDP(t, at)
			one := string(ask(t, c, []byte("?")))
			if two := string(ask(t, c, []byte("?"))); two != one {
				t.Errorf("%s: a client came from %s, and then from %s", name, one, two)
			}
			seen[one] = true
		}
		if len(seen) != 5 {
			t.Errorf("%s: five clients came from %v", name, seen)
		}
	}
}

// A port on every address answers from the one that it was asked at. (Only Linux has all
// of 127.0.0.0/8.)
func TestFlowsAnswerFromWhereTheyWereAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := udpTarget(t)
	w.serve(port + "/udp")
	for _, listen := range []string{"*:0", "0.0.0.0:0"} {
		at, _ := w.forward(listen, port+"/udp")
		_, bound, _ := net.SplitHostPort(at)
		for _, host := range []string{"127.0.0.5", "127.0.0.1", "::1"} {
			if host == "::1" && listen != "*:0" {
				continue
			}
			if got := ask(t, dialUDP(t, net.JoinHostPort(host, bound)), []byte("!")); string(got) != "!" {
				t.Errorf("%q came back from %s", got, host)
			}
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

// A datagram arrives whole whatever its size: beside the stream, in two, or in it.
func TestDatagramsOfAllSizesArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := udpTarget(t)
	w.serve(port + "/udp")
	at, _ := w.forward("0", port+"/udp")
	c := dialUDP(t, at)
	ask(t, c, []byte("first")) // from here on they travel beside the stream
	for _, n := range []int{0, 1, 512, 1149, 1150, 1200, 1452, 2294, 2295, 4096, 16 << 10, 65507} {
		d := make([]byte, n)
		_, _ = rand.Read(d)
		if n > 0 {
			d[0] = '.'
		}
		for {
			// An earlier one may have been answered twice.
			if got := ask(t, c, d); len(got) == n {
				if !bytes.Equal(got, d) {
					t.Errorf("%d bytes came back changed", n)
				}
				break
			}
		}
	}
}

// Addresses of loopback that no other test uses: a port there that is free stays so.
const (
	nobodyAt   = "127.0.0.77:4001"
	reversedAt = "127.0.0.78:4002"
	absentAt   = "127.0.0.79:4003"
)

func TestNothingListensAtAUDPTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(nobodyAt + "/udp")
	at, o := w.forward("0", nobodyAt+"/udp")
	client := dialUDP(t, at)
	_, _ = client.Write([]byte("x"))
	o.await(0, forward.Refused, "nothing listens at "+nobodyAt+"/udp of peer")
	// The flow is there for what comes to listen later.
	late, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", nobodyAt)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 10)
		for {
			n, from, err := late.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = late.WriteTo(buf[:n], from)
		}
	})
	if got := ask(t, client, []byte("y")); string(got) != "y" {
		t.Errorf("%q came back", got)
	}
	_ = late.Close()
	wg.Wait()
}

func TestReverse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := target(t, echo)
	served := w.serve("reverse 0")
	at, _ := w.reverse("0", port)
	var wg sync.WaitGroup
	for i := range 50 { // more than there are streams to spare
		c := dial(t, at)
		wg.Go(func() { say(t, c, fmt.Sprintf("client %d", i)) })
	}
	wg.Wait()
	// What the peer must not do for us.
	_, l, _ := net.SplitHostPort(at)
	other := newTold(t)
	w.begin(func(ctx context.Context) error {
		return forward.Run(ctx, control.Local(w.a), forward.Forward{
			Peer: w.b.ID(), Listen: forward.Endpoint{Network: forward.TCP, Address: "127.0.0.1:" + l}, Reverse: true,
			To: forward.Endpoint{Network: forward.TCP, Address: "localhost:" + port},
		}, other.tell)
	})
	other.await(0, forward.Refused, "does not allow us to listen on 127.0.0.1:"+l+"; on that machine, allow it with: bodkin serve-port --peer "+w.a.ID().String()+" --reverse 127.0.0.1:"+l)
	served.await(0, forward.Denied, "wanted to listen on 127.0.0.1:"+l)
}

func TestReverseTellsOfAMissingTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve("reverse 0")
	at, o := w.reverse("0", absentAt)
	unanswered(t, at)
	o.await(0, forward.Missed, "connection refused")
}

// The same forward begun again takes the place of the one before: its process may be
// dead, and nobody know it.
func TestReverseIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := target(t, echo)
	w.serve("reverse " + reversedAt)
	f := forward.Forward{
		Peer: w.b.ID(), Listen: forward.Endpoint{Network: forward.TCP, Address: reversedAt}, Reverse: true,
		To: forward.Endpoint{Network: forward.TCP, Address: "localhost:" + port},
	}
	before, ended := newTold(t), make(chan error, 1)
	go func() { ended <- forward.Run(w.ctx, control.Local(w.a), f, before.tell) }()
	before.await(0, forward.Listening, "")
	at, _ := w.reverse(reversedAt, port)
	if err := <-ended; !errors.Is(err, forward.ErrReplaced) {
		t.Errorf("ended with %v", err)
	}
	say(t, dial(t, at), "the new one")
}

// A port that another program at the peer has is said to be taken.
func TestReverseWhereThePortIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	taken := target(t, echo)
	w.serve("reverse *")
	o := newTold(t)
	w.begin(func(ctx context.Context) error {
		return forward.Run(ctx, control.Local(w.a), forward.Forward{
			Peer: w.b.ID(), Listen: forward.Endpoint{Network: forward.TCP, Address: "127.0.0.1:" + taken}, Reverse: true,
			To: forward.Endpoint{Network: forward.TCP, Address: "localhost:22"},
		}, o.tell)
	})
	o.await(0, forward.Refused, "cannot listen on 127.0.0.1:"+taken+": another program there does")
}

func TestPortHereIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	taken := target(t, echo)
	for _, network := range []string{forward.TCP, forward.UDP} {
		l := forward.Endpoint{Network: network, Address: "127.0.0.1:" + taken}
		if network == forward.UDP {
			l.Address = "127.0.0.1:" + udpTarget(t)
		}
		err := forward.Run(w.ctx, control.Local(w.a), forward.Forward{
			Peer: w.b.ID(), Listen: l, To: forward.Endpoint{Network: network, Address: "localhost:22"},
		}, func(forward.Event) {})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another program does already; choose another") {
			t.Errorf("%s: %v", network, err)
		}
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, err := os.MkdirTemp("", "bk") //nolint:usetesting // its path would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	there, here := filepath.Join(dir, "there"), filepath.Join(dir, "here")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", there)
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
				_, _ = io.Copy(c, struct{ io.Reader }{c})
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	// A socket that a process left behind when it was killed.
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: here, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	_ = old.Close()
	w.serve("unix:" + there)
	w.forward("unix:"+here, "unix:"+there)
	info, err := os.Stat(here)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", here)
	if err != nil {
		t.Fatal(err)
	}
	say(t, c, "through two sockets")
	_ = c.(*net.UnixConn).CloseWrite()
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
		t.Errorf("ended with %q, %v", rest, err)
	}
	_ = c.Close()
	// One that somebody listens on is not touched, nor is a file.
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{here, file} {
		err := forward.Run(w.ctx, control.Local(w.a), forward.Forward{
			Peer: w.b.ID(), Listen: forward.Endpoint{Network: forward.Unix, Address: path}, To: forward.Endpoint{Network: forward.Unix, Address: there},
		}, func(forward.Event) {})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
