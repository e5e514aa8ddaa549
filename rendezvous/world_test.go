package rendezvous

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
)

// world is servers and nodes and the network between them, in virtual time. The
// same seed gives the same run.
type world struct {
	testing.TB
	now     time.Time
	rng     *rand.Rand
	delay   time.Duration // one way
	jitter  time.Duration // more, at random
	loss    float64
	events  queue
	turn    int
	servers map[netip.AddrPort]*serverSocket
	ticks   map[*Registry]time.Time
	nodes   []*node
	conns   []*conn // by the server's number, from firstStream
	// tamper, if set, sees each packet and says what arrives instead.
	tamper func(p packet) []packet
	seen   []packet // everything that was sent
}

type packet struct {
	at       time.Time
	from, to netip.AddrPort
	data     []byte
}

type event struct {
	at   time.Time
	turn int
	do   func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].turn < q[j].turn
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any     { o := *q; e := o[len(o)-1]; *q = o[:len(o)-1]; return e }

// seeded is a source of bytes that is the same in every run.
type seeded struct{ *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

// serverSocket is one endpoint of a server.
type serverSocket struct {
	registry *Registry
	local    int
	addrs    []netip.AddrPort // of all its sockets
}

// node is an Agent and its sockets. A leg's public endpoint is what its NAT gave
// it.
type node struct {
	w        *world
	name     string
	key      peer.Key
	agent    *Agent
	public   map[uint32]netip.AddrPort
	next     time.Time
	done     []done
	received []relayed
	// blocked says what the node's network does not let through: "udp", "tcp" or "tls".
	blocked map[string]bool
	dialled []string // over "tcp" or "tls", in order
	streams uint32
}

// conn is a connection of a node to its server.
type conn struct {
	node   *node
	local  uint32 // the node's number
	number int    // the server's
	kind   string
	to     netip.AddrPort
	from   netip.AddrPort
	open   bool
	gone   bool // the node has given it up
}

type done struct {
	at time.Time
	AgentAction
}

type relayed struct {
	at      time.Time
	channel wire.Channel
	data    string
}

func testKey(n byte) peer.Key { return peer.NewKey([32]byte{n}) }

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	serverKey = testKey(200)
	server4   = ap("192.0.2.1:3478")
	server6   = ap("[2001:db8::1]:3478")
)

func newWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	return &world{
		TB: tb, now: time.Unix(1_800_000_000, 0), rng: rand.New(rand.NewPCG(seed, 0)),
		delay: 20 * time.Millisecond, servers: make(map[netip.AddrPort]*serverSocket),
		ticks: make(map[*Registry]time.Time),
	}
}

// serve starts a server, in the place of any that was there.
func (w *world) serve(limits Limits, addrs ...netip.AddrPort) *Registry {
	if len(addrs) == 0 {
		addrs = []netip.AddrPort{server4, server6}
	}
	r := NewRegistry(serverKey, limits, seeded{w.rng}, addrs...)
	for i, a := range addrs {
		w.servers[a] = &serverSocket{r, i, addrs}
	}
	w.tick(r, addrs, w.now)
	return r
}

// stop takes the server at these endpoints away.
func (w *world) stop(addrs ...netip.AddrPort) {
	for _, a := range addrs {
		delete(w.servers, a)
	}
}

// node makes a node with an IPv4 socket (1), and with an IPv6 socket (2) if six.
func (w *world) node(name string, key peer.Key, six bool) *node {
	n := len(w.nodes) + 1
	nd := &node{w: w, name: name, key: key, public: map[uint32]netip.AddrPort{}, blocked: map[string]bool{}, streams: 1000}
	nd.public[1] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), uint16(4000+n))
	if six {
		a := netip.MustParseAddr("2001:db8:1::").As16()
		binary.BigEndian.PutUint16(a[14:], uint16(n))
		nd.public[2] = netip.AddrPortFrom(netip.AddrFrom16(a), uint16(4000+n))
	}
	agent, err := NewAgent(AgentConfig{Key: key, Server: serverKey.ID(), Instance: uint64(n), Rand: seeded{w.rng}, NewStream: nd.newStream})
	if err != nil {
		w.Fatal(err)
	}
	nd.agent = agent
	w.nodes = append(w.nodes, nd)
	return nd
}

// register makes an accepting node that anybody may be introduced to, or only
// the peers, and waits until the server knows it.
func (w *world) register(name string, key peer.Key, peers ...peer.ID) *node {
	n := w.node(name, key, false)
	n.step(AgentInput{Op: AgentUpdate, Description: []byte(name), Accepting: true, Peers: peers})
	n.find(server4)
	w.until(5*time.Second, n.registered)
	return n
}

// find tells the node where its server is.
func (n *node) find(addrs ...netip.AddrPort) {
	var servers []ServerEndpoint
	for _, a := range addrs {
		local := uint32(1)
		if a.Addr().Is6() {
			local = 2
		}
		servers = append(servers, ServerEndpoint{local, a})
	}
	n.step(AgentInput{Op: AgentServers, Servers: servers})
}

// findAll tells it where its server is over TCP and TLS, too.
func (n *node) findAll() {
	n.step(AgentInput{
		Op: AgentServers, Servers: []ServerEndpoint{{1, server4}},
		Streams: []StreamEndpoint{{Addr: server4}, {Addr: server4TLS, TLS: true}},
	})
}

var server4TLS = ap("192.0.2.1:443")

func (n *node) newStream() uint32 {
	n.streams++
	return n.streams
}

// connect opens a connection, a round trip later if the network lets it through.
func (n *node) connect(a AgentAction) {
	kind := "tcp"
	if a.TLS {
		kind = "tls"
	}
	n.dialled = append(n.dialled, kind)
	w := n.w
	c := &conn{node: n, local: a.To.Local, number: firstStream + len(w.conns), kind: kind, to: a.To.Addr}
	c.from = netip.AddrPortFrom(n.public[1].Addr(), uint16(50000+len(w.conns)))
	w.conns = append(w.conns, c)
	if n.blocked[kind] || w.servers[server4] == nil {
		w.at(w.now.Add(2*w.delay), func() { n.step(AgentInput{Op: AgentDisconnected, Local: c.local}) })
		return
	}
	w.at(w.now.Add(2*w.delay), func() {
		if c.gone {
			return
		}
		c.open = true
		n.step(AgentInput{Op: AgentConnected, Local: c.local, From: c.to})
	})
}

// conn is the node's connection of that number, or nil.
func (n *node) conn(local uint32) *conn {
	i := slices.IndexFunc(n.w.conns, func(c *conn) bool { return c.node == n && c.local == local })
	if i < 0 {
		return nil
	}
	return n.w.conns[i]
}

// cut ends a node's connections, and those that are to come if it is blocked.
func (n *node) cut() {
	for _, c := range n.w.conns {
		if c.node == n && c.open {
			c.open = false
			if s := n.w.servers[server4]; s != nil {
				s.registry.Hangup(c.number)
			}
			n.step(AgentInput{Op: AgentDisconnected, Local: c.local})
		}
	}
}

func (n *node) registered() bool { return n.agent.primary != nil && n.agent.settled }

func (n *node) did(op AgentOp) (out []done) {
	for _, d := range n.done {
		if d.Op == op {
			out = append(out, d)
		}
	}
	return out
}

// last is the latest action of a kind; the test fails if there was none.
func (n *node) last(op AgentOp) done {
	n.w.Helper()
	all := n.did(op)
	if len(all) == 0 {
		n.w.Fatalf("%s: no action %d", n.name, op)
	}
	return all[len(all)-1]
}

// step steps the node's agent.
func (n *node) step(in AgentInput) {
	w := n.w
	var out []AgentAction
	out, n.next = n.agent.Step(w.now, in, nil)
	for _, a := range out {
		switch a.Op {
		case AgentSend:
			if c := n.conn(a.To.Local); c != nil {
				w.stream(c, a.Data)
			} else {
				w.send(packet{from: n.public[a.To.Local], to: a.To.Addr, data: a.Data})
			}
			continue
		case AgentConnect:
			n.connect(a)
		case AgentDisconnect:
			c := n.conn(a.To.Local)
			if c.gone = true; c.open {
				c.open = false
				if s := w.servers[server4]; s != nil {
					w.at(w.now.Add(w.delay), func() { s.registry.Hangup(c.number) })
				}
			}
		default:
		}
		n.done = append(n.done, done{w.now, a})
	}
	if at := n.next; !at.IsZero() {
		w.at(at, func() {
			if n.next.Equal(at) {
				n.step(AgentInput{Op: AgentTick})
			}
		})
	}
}

// ask asks for an introduction and returns its token.
func (n *node) ask(target *node, offer string) uint64 {
	return n.askID(target.key.ID(), offer)
}

func (n *node) askID(target peer.ID, offer string) uint64 {
	token := n.w.rng.Uint64()
	n.step(AgentInput{Op: AgentAsk, Token: token, Target: target, Offer: []byte(offer)})
	return token
}

// answer is what came of an ask, or nil.
func (n *node) answer(token uint64) *done {
	for _, d := range n.done {
		if d.Token == token && (d.Op == AgentIntroduced || d.Op == AgentNotIntroduced) {
			return &d
		}
	}
	return nil
}

// introduce has a introduced to b and returns the channel's two numbers.
func (w *world) introduce(a, b *node) (ca, cb wire.Channel) {
	w.Helper()
	told := len(b.did(AgentAsked))
	token := a.ask(b, "offer of "+a.name)
	w.until(10*time.Second, func() bool { return a.answer(token) != nil && len(b.did(AgentAsked)) > told })
	if d := a.answer(token); d.Err != nil {
		w.Fatalf("%s to %s: %v", a.name, b.name, d.Err)
	}
	return a.answer(token).Channel, b.last(AgentAsked).Channel
}

// say sends data on a relay channel.
func (n *node) say(c wire.Channel, data string) {
	p, b := n.agent.primary, wire.AppendChannelData(nil, c, []byte(data))
	if p.stream != nil {
		n.w.stream(n.conn(p.Local), b)
		return
	}
	n.w.send(packet{from: n.public[p.Local], to: p.Addr, data: b})
}

// stream carries a message over a connection to the server.
func (w *world) stream(c *conn, data []byte) {
	data = slices.Clone(data)
	w.at(w.now.Add(w.delay), func() {
		s := w.servers[server4]
		if s == nil || !c.open || c.node.blocked[c.kind] {
			return
		}
		out, next := s.registry.Step(w.now, c.number, c.from, data, nil)
		w.answers(s.addrs, out)
		w.tick(s.registry, s.addrs, next)
	})
}

// streamed hands a message to the node at the other end.
func (w *world) streamed(c *conn, o Outgoing) {
	data := slices.Clone(o.Data)
	w.at(w.now.Add(w.delay), func() {
		if c.open && !c.node.blocked[c.kind] {
			c.node.take(c.local, c.to, data)
		}
	})
}

// take gives a packet to the node.
func (n *node) take(local uint32, from netip.AddrPort, data []byte) {
	if c, d, ok := wire.ParseChannelData(data); ok {
		n.received = append(n.received, relayed{n.w.now, c, string(d)})
		return
	}
	n.step(AgentInput{Op: AgentPacket, Local: local, From: from, Data: data})
}

// at has something done at a time.
func (w *world) at(t time.Time, do func()) {
	w.turn++
	heap.Push(&w.events, event{t, w.turn, do})
}

// send carries a packet, if the network lets it through.
func (w *world) send(p packet) {
	p.at, p.data = w.now, slices.Clone(p.data)
	w.seen = append(w.seen, p)
	arrive := []packet{p}
	if w.tamper != nil {
		arrive = w.tamper(p)
	}
	for _, p := range arrive {
		if w.rng.Float64() < w.loss {
			continue
		}
		d := w.delay
		if w.jitter > 0 {
			d += time.Duration(w.rng.Int64N(int64(w.jitter)))
		}
		w.at(w.now.Add(d), func() { w.deliver(p) })
	}
}

// deliver hands a packet to whom it is for.
func (w *world) deliver(p packet) {
	data := slices.Clone(p.data)
	if s := w.servers[p.to]; s != nil {
		out, next := s.registry.Step(w.now, s.local, p.from, data, nil)
		w.answers(s.addrs, out)
		w.tick(s.registry, s.addrs, next)
		return
	}
	for _, n := range w.nodes {
		for local, public := range n.public {
			if public != p.to {
				continue
			}
			if !n.blocked["udp"] {
				n.take(local, p.from, data)
			}
		}
	}
}

func (w *world) answers(addrs []netip.AddrPort, out []Outgoing) {
	for _, o := range out {
		if isStream(o.Local) {
			w.streamed(w.conns[o.Local-firstStream], o)
			continue
		}
		w.send(packet{from: addrs[o.Local], to: o.To, data: o.Data})
	}
}

// tick has a registry ticked at a time, as long as it serves.
func (w *world) tick(r *Registry, addrs []netip.AddrPort, at time.Time) {
	if planned, ok := w.ticks[r]; ok && !at.Before(planned) {
		return
	}
	w.ticks[r] = at
	w.at(at, func() {
		if s := w.servers[addrs[0]]; s == nil || s.registry != r || !w.ticks[r].Equal(at) {
			return
		}
		delete(w.ticks, r)
		out, next := r.Tick(w.now, nil)
		w.answers(addrs, out)
		w.tick(r, addrs, next)
	})
}

// run lets the time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		if e.at.After(w.now) {
			w.now = e.at
		}
		e.do()
	}
	w.now = end
}

// until lets the time pass until ok; the test fails if that is not within limit.
func (w *world) until(limit time.Duration, ok func() bool) {
	w.Helper()
	end := w.now.Add(limit)
	for !ok() {
		if len(w.events) == 0 || w.events[0].at.After(end) {
			w.Fatalf("not within %v", limit)
		}
		e := heap.Pop(&w.events).(event)
		if e.at.After(w.now) {
			w.now = e.at
		}
		e.do()
	}
}

// state is all that a registry knows, but for its counters and for how many
// messages it has sealed.
func state(r *Registry) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for h, g := range r.byHandle {
		add("registration %x: %v/%d handle %x keys %x window %v counter %d changed %d revision %d about %q/%d legs %v primary %d flags %b gone %v asks %v asked %v",
			h, g.id.Short(), g.instance, g.handle, g.keys, g.window, g.counter, g.changed, g.revision, g.about, g.described, g.legs, g.primary, g.flags, g.gone, g.asks, g.asked)
		if g.extra != nil {
			for c, p := range g.extra.channels {
				add("channel %x of %x: %x %x %v %v %v", c, h, p.asked, p.served, p.fromA, p.fromB, p.used)
			}
			add("extra of %x: %v %d %v", h, g.extra.sent, g.extra.next, g.extra.streams)
		}
	}
	for s, g := range r.bySource {
		add("source %x: %x", s, g.handle)
	}
	for l, g := range r.byStream {
		add("stream %d: %x", l, g.handle)
	}
	for id, g := range r.byID {
		add("ID %x: %x", id, g.handle)
	}
	for d, b := range r.graves {
		add("grave %v/%d: %v", d.id.Short(), d.instance, b)
	}
	for k, i := range r.introductions {
		add("introduction %x %x: %x %x %x %d %v", k.asker.handle, k.id, i.target.handle, i.answer, i.told, i.tries, i.nextAt)
	}
	for id, i := range r.waiting {
		add("waiting %x: %x", id, i.key.id)
	}
	for n, p := range r.plates.byNumber {
		add("nameplate %d: %x opened %x of %v until %v, %d letters, joined %v over %v", n, p.inviter.handle, p.opened, p.prefix, p.expires, p.letters, p.joiner != nil, p.over)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
