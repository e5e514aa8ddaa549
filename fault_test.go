package bodkin_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// lane is two nodes whose machines can move, in fake time, and a server that can.
type lane struct {
	*testing.T
	net    *natlab.Live
	names  *names
	server func() // ends it
	cfg    rendezvous.ServerConfig
	a, b   *bodkin.Node
	at     [2]*machine
	url    string
	keyB   peer.Key
	events []bodkin.Event // of a
	mu     sync.Mutex     // of events
}

const serverName = "rendezvous.test"

func newLane(t *testing.T) *lane {
	t.Helper()
	top := natlab.TwoHomes(natlab.Options{})
	for _, x := range []string{"c", "d"} {
		top.Boxes = append(top.Boxes, natlab.Box{Name: "home-" + x, Link: natlab.Link{Delay: 25 * time.Millisecond}})
		top.Hosts = append(top.Hosts, natlab.Host{Name: x, Behind: "home-" + x})
	}
	top.Hosts = append(top.Hosts, natlab.Host{Name: "server2", Link: natlab.Link{Delay: 10 * time.Millisecond}})
	l, err := natlab.NewLive(top)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	x := &lane{T: t, net: l, names: &names{}, cfg: rendezvous.ServerConfig{Key: newKey(t)}}
	x.serve("server")
	x.url, x.keyB = rendezvous.URL{Host: serverName, Port: 3478, ID: x.cfg.Key.ID()}.String(), newKey(t)
	for i, hosts := range [][]string{{"a", "c"}, {"b", "d"}} {
		m := &machine{names: x.names}
		for _, h := range hosts {
			m.hosts = append(m.hosts, l.Host(h))
		}
		x.at[i] = m
	}
	x.a = startNode(t, bodkin.Config{Server: x.url, Network: x.at[0]})
	x.b = startNode(t, bodkin.Config{Key: x.keyB, Server: x.url, Network: x.at[1]})
	return x
}

// serve starts the server on a host, in place of one that runs.
func (x *lane) serve(host string) {
	x.Helper()
	h := x.net.Host(host)
	x.cfg.Network, x.cfg.Listen = h, []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)}
	_, x.server = startServer(x.T, x.cfg)
	x.names.set(h.Addr())
}

func (x *lane) home(box string) netip.Addr {
	x.Helper()
	return public(x.T, x.net, box)
}

// follow keeps a's events.
func (x *lane) follow(ctx context.Context) {
	events := x.a.Events(ctx)
	go func() {
		for e := range events {
			x.mu.Lock()
			x.events = append(x.events, e)
			x.mu.Unlock()
		}
	}()
}

// direct reports whether traffic of both takes a direct route.
func (x *lane) direct() bool { return goesDirect(x.a) && goesDirect(x.b) }

func goesDirect(n *bodkin.Node) bool {
	p := n.Status().Peers
	return len(p) == 1 && len(p[0].Routes) > 0 && p[0].Routes[0].Direct()
}

// until waits for something in fake time, and says how long it took.
func (x *lane) until(what string, limit time.Duration, ok func() bool) time.Duration {
	x.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			x.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond) // of fake time
	}
	return time.Since(begin)
}

// names is a name service with one name in it.
type names struct {
	mu sync.Mutex
	at netip.Addr
}

func (n *names) set(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = a
}

// machine is a host that can move to another network: what its sockets send leaves
// there from then on.
type machine struct {
	names *names
	hosts []*natlab.LiveHost
	mu    sync.Mutex
	at    int
}

// nowhere is no network at all: what is sent is lost, as with a process that was
// killed.
const nowhere = -1

func (m *machine) move(to int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = to
}

func (m *machine) where() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// LookupNetIP is the name service of wherever the machine is.
func (m *machine) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	m.names.mu.Lock()
	defer m.names.mu.Unlock()
	if host != serverName {
		return nil, fmt.Errorf("no such name: %s", host)
	}
	return []netip.Addr{m.names.at}, nil
}

func (m *machine) Prefixes() ([]netip.Prefix, error) { return m.hosts[max(m.where(), 0)].Prefixes() }

func (m *machine) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	c := &movingConn{on: m, arrived: make(chan arrival, 1024), closed: make(chan struct{})}
	for i, h := range m.hosts {
		p, err := h.ListenPacket(ctx, network, local)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		c.conns = append(c.conns, p)
		local = p.LocalAddr().(*net.UDPAddr).AddrPort()
		go c.read(i, p)
	}
	return c, nil
}

// movingConn is a socket of a machine.
type movingConn struct {
	net.PacketConn
	on      *machine
	conns   []net.PacketConn
	arrived chan arrival
	once    sync.Once
	closed  chan struct{}
}

type arrival struct {
	b    []byte
	from net.Addr
}

func (c *movingConn) read(i int, p net.PacketConn) {
	for {
		b := make([]byte, 2048)
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		if c.on.where() != i {
			continue
		}
		select {
		case c.arrived <- arrival{b[:n], from}:
		case <-c.closed:
			return
		}
	}
}

func (c *movingConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case a := <-c.arrived:
		return copy(b, a.b), a.from, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *movingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	return c.WriteToTTL(b, to, 0)
}

func (c *movingConn) WriteToTTL(b []byte, to net.Addr, ttl uint8) (int, error) {
	at := c.on.where()
	if at == nowhere {
		return len(b), nil
	}
	return c.conns[at].(interface {
		WriteToTTL([]byte, net.Addr, uint8) (int, error)
	}).WriteToTTL(b, to, ttl)
}

func (c *movingConn) LocalAddr() net.Addr { return c.conns[0].LocalAddr() }

func (c *movingConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		for _, p := range c.conns {
			_ = p.Close()
		}
	})
	return nil
}

// flow is what one side hears of the other: when last, and the longest silence.
type flow struct {
	mu    sync.Mutex
	last  time.Time
	worst time.Duration
	total int
	err   error
}

func (f *flow) heard(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.worst = max(f.worst, time.Since(f.last)); f.last.IsZero() {
		f.worst = 0
	}
	f.last, f.total = time.Now(), f.total+n
}

func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = errors.Join(f.err, err)
}

// begin forgets silences of before.
func (f *flow) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.worst = 0
}

func (f *flow) silence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.worst, time.Since(f.last))
}

// load is a stream and a flow of datagrams between two nodes, both ways.
type load struct {
	*testing.T
	stop      chan struct{}
	wg        sync.WaitGroup
	streams   [2]flow // what a and b hear
	datagrams [2]flow
	sent      [2]int // bytes on the stream, by a and by b
}

const (
	chunk     = 1200
	chunkPace = 20 * time.Millisecond
)

// pattern is what stands at an offset of a stream: any byte lost, repeated or out
// of place shows.
func pattern(b []byte, at int) {
	for i := range b {
		n := at + i
		b[i] = byte(n>>13) ^ byte(n*7)
	}
}

func (x *lane) load(ctx context.Context) *load {
	x.Helper()
	l := &load{T: x.T, stop: make(chan struct{})}
	listener, err := x.b.Listen("stream")
	if err != nil {
		x.Fatal(err)
	}
	packets, err := x.b.ListenPacket("datagrams")
	if err != nil {
		x.Fatal(err)
	}
	if err := x.b.WaitRegistered(ctx); err != nil {
		x.Fatal(err)
	}
	out, err := x.a.Dial(ctx, x.b.ID(), "stream")
	if err != nil {
		x.Fatal(err)
	}
	l.wg.Go(func() { l.write(out, 0) })
	l.wg.Go(func() { l.read(out, 0) })
	in, err := listener.Accept()
	if err != nil {
		x.Fatal(err)
	}
	l.wg.Go(func() { l.write(in, 1) })
	l.wg.Go(func() { l.read(in, 1) })
	d, err := x.a.DialPacket(ctx, x.b.ID(), "datagrams")
	if err != nil {
		x.Fatal(err)
	}
	l.wg.Go(func() { l.count(d) })
	go l.collect(&l.datagrams[0], func(b []byte) (int, error) { return d.Read(b) })
	go l.collect(&l.datagrams[1], func(b []byte) (int, error) {
		n, from, err := packets.ReadFrom(b)
		if err == nil {
			_, err = packets.WriteTo(b[:n], from)
		}
		return n, err
	})
	return l
}

// write writes the pattern at a pace, and ends the stream when told to.
func (l *load) write(c net.Conn, side int) {
	b := make([]byte, chunk)
	pace := time.NewTicker(chunkPace)
	defer pace.Stop()
	for {
		select {
		case <-l.stop:
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			return
		case <-pace.C:
		}
		pattern(b, l.sent[side])
		if _, err := c.Write(b); err != nil {
			l.streams[side].fail(fmt.Errorf("write: %w", err))
			return
		}
		l.sent[side] += len(b)
	}
}

func (l *load) read(c net.Conn, side int) {
	f := &l.streams[side]
	got, want := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, err := c.Read(got)
		if n > 0 {
			pattern(want[:n], f.total)
			if !bytes.Equal(got[:n], want[:n]) {
				f.fail(fmt.Errorf("what came after %d bytes was not what was sent", f.total))
				return
			}
			f.heard(n)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				f.fail(fmt.Errorf("read: %w", err))
			}
			return
		}
	}
}

// count sends numbered datagrams.
func (l *load) count(c net.Conn) {
	pace := time.NewTicker(chunkPace)
	defer pace.Stop()
	for i := uint64(0); ; i++ {
		select {
		case <-l.stop:
			return
		case <-pace.C:
		}
		if _, err := c.Write(binary.BigEndian.AppendUint64(make([]byte, 92), i)); err != nil {
			l.datagrams[0].fail(fmt.Errorf("datagram: %w", err))
			return
		}
	}
}

// collect takes numbered datagrams: none may come twice.
func (l *load) collect(f *flow, read func([]byte) (int, error)) {
	seen := map[uint64]bool{}
	b := make([]byte, 2048)
	for {
		n, err := read(b)
		if err != nil {
			return
		}
		i := binary.BigEndian.Uint64(b[n-8:])
		if n != 100 || seen[i] {
			f.fail(fmt.Errorf("datagram %d of %d bytes came twice or changed", i, n))
		}
		seen[i] = true
		f.heard(1)
	}
}

func (l *load) each(f func(*flow)) {
	for i := range 2 {
		f(&l.streams[i])
		f(&l.datagrams[i])
	}
}

// finish ends the flows, and checks that everything arrived once.
func (l *load) finish() {
	l.Helper()
	close(l.stop)
	l.wg.Wait()
	for i := range 2 {
		if got, want := l.streams[i].total, l.sent[1-i]; got != want {
			l.Errorf("%d bytes of %d arrived", got, want)
		}
	}
	l.each(func(f *flow) {
		if f.err != nil {
			l.Error(f.err)
		}
	})
}

// worst is the longest silence of a stream and of the datagrams' echo.
func (l *load) worst() (stream, datagrams time.Duration) {
	return max(l.streams[0].silence(), l.streams[1].silence()), l.datagrams[0].silence()
}

// fault is something that happens to a network while two nodes talk.
type fault struct {
	name  string
	lasts time.Duration // until it is mended; 0: it stays
	// strike does it, and returns how to mend it.
	strike func(x *lane) (mend func())
	// silent is for how long streams may be silent at the most.
	silent time.Duration
	// back is when traffic must be direct again, counted from the mending.
	back time.Duration
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func link(name string, change func(*natlab.Link)) func(x *lane) func() {
	return func(x *lane) func() {
		x.Helper()
		was := map[string]natlab.Link{
			"home-a": {Delay: 20 * time.Millisecond}, "home-b": {Delay: 30 * time.Millisecond},
			"server": {Delay: 10 * time.Millisecond},
		}[name]
		now := was
		change(&now)
		must(x.T, x.net.SetLink(name, now))
		return func() { must(x.T, x.net.SetLink(name, was)) }
	}
}

func nothing() {}

const (
	// introduced is two seconds and an introduction, where no second route is warm.
	introduced = 2160 * time.Millisecond
	// pause is none but that of the flows' own pace and of what is still under way.
	pause = 250 * time.Millisecond
	// outage is as long as nothing passes at all.
	outage = 80 * time.Second
)

var faults = []fault{
	{"direct blocked", 10 * time.Second, func(x *lane) func() {
		return x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
	}, time.Second, time.Second},
	{"direct blocked from a to b", 10 * time.Second, func(x *lane) func() {
		from, to := x.home("home-a"), x.home("home-b")
		return x.net.Block(func(p natlab.Packet) bool { return p.From.Addr() == from && p.To.Addr() == to })
	}, time.Second, time.Second},
	{"direct blocked from b to a", 10 * time.Second, func(x *lane) func() {
		from, to := x.home("home-b"), x.home("home-a")
		return x.net.Block(func(p natlab.Packet) bool { return p.From.Addr() == from && p.To.Addr() == to })
	}, time.Second, time.Second},
	{"direct blocked above 600 bytes", 30 * time.Second, func(x *lane) func() {
		between := natlab.Between(x.home("home-a"), x.home("home-b"))
		return x.net.Block(func(p natlab.Packet) bool { return between(p) && len(p.Data) > 600 })
	}, 2 * time.Second, 25 * time.Second},
	{"direct blocked above 600 bytes for a second", time.Second, func(x *lane) func() {
		between := natlab.Between(x.home("home-a"), x.home("home-b"))
		return x.net.Block(func(p natlab.Packet) bool { return between(p) && len(p.Data) > 600 })
	}, 2 * time.Second, 8 * time.Second},
	{"30% loss for 10 s", 10 * time.Second, link("home-a", func(l *natlab.Link) { l.Loss = 0.3 }), 15 * time.Second, 30 * time.Second},
	{"200 ms jitter", 10 * time.Second, link("home-a", func(l *natlab.Link) { l.Jitter = 200 * time.Millisecond }), 2 * time.Second, 30 * time.Second},
	{"reordering", 10 * time.Second, link("home-a", func(l *natlab.Link) { l.Reorder = 0.2 }), time.Second, time.Second},
	{"mapping of a dropped", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-a", false)); return nothing }, time.Second, time.Second},
	{"mapping of b dropped", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-b", false)); return nothing }, time.Second, time.Second},
	{"NAT of a rebooted with a new address", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-a", true)); return nothing }, introduced, introduced},
	{"NAT of b rebooted with a new address", 0, func(x *lane) func() { must(x.T, x.net.Reboot("home-b", true)); return nothing }, introduced, introduced},
	{"both NATs rebooted with new addresses", 0, func(x *lane) func() {
		must(x.T, x.net.Reboot("home-a", true))
		must(x.T, x.net.Reboot("home-b", true))
		return nothing
	}, introduced, introduced},
	{"a moved", 0, func(x *lane) func() { x.at[0].move(1); return nothing }, introduced, introduced},
	{"b moved", 0, func(x *lane) func() { x.at[1].move(1); return nothing }, introduced, introduced},
	{"both moved", 0, func(x *lane) func() { x.at[0].move(1); x.at[1].move(1); return nothing }, introduced, introduced},
	{"server restarted elsewhere", 0, func(x *lane) func() {
		x.server()
		x.serve("server2")
		return nothing
	}, pause, pause},
	{"server gone for 5 minutes", 5 * time.Minute, func(x *lane) func() {
		x.server()
		return func() { x.serve("server") }
	}, pause, pause},
	{"direct blocked while the server is gone", 20 * time.Second, func(x *lane) func() {
		x.server()
		return x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
	}, outage, 15 * time.Second},
	{"everything lost for a minute", time.Minute, link("home-a", func(l *natlab.Link) { l.Loss = 1 }), outage, 15 * time.Second},
	{"ten packets a second pass between the homes", 30 * time.Second, func(x *lane) func() {
		between, next := natlab.Between(x.home("home-a"), x.home("home-b")), time.Now()
		return x.net.Block(func(p natlab.Packet) bool {
			if !between(p) {
				return false
			}
			if time.Now().Before(next) {
				return true
			}
			next = time.Now().Add(100 * time.Millisecond)
			return false
		})
	}, 15 * time.Second, 2 * time.Minute},
	{"direct blocked again and again", 0, func(x *lane) func() {
		for range 20 {
			unblock := x.net.Block(natlab.Between(x.home("home-a"), x.home("home-b")))
			time.Sleep(5 * time.Second) // of fake time
			unblock()
			time.Sleep(5 * time.Second)
		}
		return nothing
	}, 2 * time.Second, 35 * time.Second},
	{"relay slow", 10 * time.Second, link("server", func(l *natlab.Link) { l.Delay, l.Rate = 300*time.Millisecond, 200_000 }), pause, pause},
}

// What a network does to two nodes that talk: no byte is lost or repeated, and the
// direct route comes back.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f.run)
		})
	}
}

func (f fault) run(t *testing.T) {
	x := newLane(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	x.follow(ctx)
	l := x.load(ctx)
	x.until("the first hole", 5*time.Second, x.direct)
	time.Sleep(5 * time.Second) // of fake time
	l.each((*flow).begin)
	struck := time.Now()
	mend := f.strike(x)
	time.Sleep(f.lasts)
	mend()
	mended := time.Now()
	// A fault is not noticed at once: direct is what stays so.
	last := mended
	for begin := mended; time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) { // of fake time
		if !x.direct() {
			last = time.Now()
			if begin = last; last.Sub(mended) > 10*time.Minute {
				t.Fatal("never direct again")
			}
		}
	}
	back := last.Sub(mended)
	stream, datagrams := l.worst()
	l.finish()
	t.Logf("%-40s stream silent for %v, datagrams for %v; direct %v after the end", f.name, stream, datagrams, back)
	if stream > f.silent || back > f.back {
		t.Errorf("stream silent for %v, direct after %v; %v and %v at the most", stream, back, f.silent, f.back)
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, e := range x.events {
			t.Logf("%v %v %v %v", e.Time.Sub(struck), e.Kind, e.Route, e.Reason)
		}
	}
}
