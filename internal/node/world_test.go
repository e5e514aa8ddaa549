package node

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/peer"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// world is a server and some nodes, each in a home of its own behind a
// port-restricted NAT (EIM, APDF), in virtual time. The same seed gives the same
// run.
type world struct {
	testing.TB
	now      time.Time
	rng      *rand.Rand
	events   queue
	turn     int
	loss     float64
	blocked  bool // no packet passes between homes
	registry *rendezvous.Registry
	tickAt   time.Time
	silent   bool // the server answers nothing
	homes    []*home
	// strangers take packets to endpoints that are nobody's.
	strangers map[netip.AddrPort]func(from *home, p punchPacket)
	// taken, if set, sees what comes to the server, and says if it is to hear of it;
	// answered sees what it answers.
	taken    func(p punchPacket) bool
	answered func(p punchPacket)
}

type punchPacket struct {
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

type seeded struct{ *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

// home is one node behind its NAT. A restart gives it another Core.
type home struct {
	w       *world
	name    string
	key     peer.Key
	peers   []peer.ID
	profile *nat.Profile // believed, if not nil
	opens   bool         // the sockets that it is asked for
	number  int
	delay   time.Duration // one way to the core of the network
	core    *Core
	private netip.AddrPort
	public  netip.AddrPort
	opened  map[netip.AddrPort]bool // what the NAT lets in
	cut     bool                    // nothing comes in
	asleep  bool                    // the machine is: no time passes for the core
	tcp     bool                    // it punches by TCP, too
	noUDP   bool                    // its network lets no UDP through
	stream  punch.Local             // its connection to the server; 0: none
	streams int                     // that it has had
	next    time.Time
	done    []done
	sent    []punchPacket // past the NAT
	heard   map[path.Key]netip.Addr
	routes  map[netip.Addr][]path.Route
	data    []string // relayed data that came, by the name of the peer
}

type done struct {
	at time.Time
	Action
}

const serverDelay = 10 * time.Millisecond

var (
	serverKey = peer.NewKey([32]byte{200})
	server    = netip.MustParseAddrPort("192.0.2.1:3478")
)

func newWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := &world{
		TB: tb, now: time.Unix(1_800_000_000, 0), rng: rand.New(rand.NewPCG(seed, 0)),
		strangers: make(map[netip.AddrPort]func(*home, punchPacket)),
	}
	w.serve()
	return w
}

// serve starts the server, or starts it again without its memory.
func (w *world) serve() {
	w.registry = rendezvous.NewRegistry(serverKey, rendezvous.Limits{}, seeded{w.rng})
	w.tick(w.now)
}

// home makes a node; with peers, only they may be introduced to it.
func (w *world) home(name string, delay time.Duration, peers ...peer.ID) *home {
	n := len(w.homes) + 1
	h := &home{
		w: w, name: name, number: n, delay: delay, key: peer.NewKey([32]byte{byte(n)}), peers: peers,
		private: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(n), 2}), 5000),
		public:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(n), 1}), 40000),
	}
	w.homes = append(w.homes, h)
	h.start()
	return h
}

// start starts the node's process, or a new one in place of one that died. Its NAT
// gives it another port.
func (h *home) start() {
	w := h.w
	h.private = netip.AddrPortFrom(h.private.Addr(), h.private.Port()+1)
	h.public = netip.AddrPortFrom(h.public.Addr(), h.public.Port()+1)
	h.opened, h.heard = map[netip.AddrPort]bool{}, map[path.Key]netip.Addr{}
	h.routes, h.done = map[netip.Addr][]path.Route{}, nil
	abilities := punch.ByUDP
	if h.tcp {
		abilities |= punch.ByTCP
	}
	h.stream = 0
	h.core = New(Config{
		Key: h.key, Server: serverKey.ID(), Instance: w.rng.Uint64() | 1, Peers: h.peers, Abilities: abilities, Profile: h.profile, Rand: seeded{w.rng},
	})
	h.step(Input{
		Op:      Network,
		Sockets: []path.LocalSocket{{Local: 1, Bound: netip.AddrPortFrom(netip.IPv4Unspecified(), h.private.Port())}},
		Links:   []netip.Prefix{netip.PrefixFrom(h.private.Addr(), 24)},
	})
	found := Input{Op: Resolved, Servers: []netip.AddrPort{server}}
	if h.tcp {
		found.Streams = []rendezvous.StreamEndpoint{{Addr: server}}
	}
	h.step(found)
}

// listen starts to accept, and waits until the server knows it.
func (h *home) listen() *home {
	h.w.Helper()
	h.step(Input{Op: Accept})
	h.w.until(5*time.Second, func() bool {
		all := h.did(Registered)
		return len(all) > 0 && all[len(all)-1].Settled && all[len(all)-1].Accepting
	})
	return h
}

func (h *home) step(in Input) {
	var out []Action
	out, h.next = h.core.Step(h.w.now, in, nil)
	h.do(out)
}

// fake has the core take an action of its agent, as if the server had said that.
func (h *home) fake(a rendezvous.AgentAction) {
	h.core.now, h.core.out = h.w.now, nil
	h.core.do(a)
	h.next = h.core.run()
	out := h.core.out
	h.core.out = nil
	h.do(out)
}

func (h *home) do(out []Action) {
	w := h.w
	for _, a := range out {
		switch a.Op {
		case Send:
			w.send(h, a)
			continue
		case Hear:
			h.heard[a.By] = a.Overlay
		case Unhear:
			delete(h.heard, a.By)
		case Publish:
			h.routes[a.Overlay] = a.Routes
		case Connect:
			w.at(w.now.Add(2*(h.delay+serverDelay)), func() {
				h.stream = a.By.Local
				h.streams++
				h.step(Input{Op: Connected, Local: a.By.Local, From: a.By.To})
			})
		case Disconnect:
			h.stream = 0
		case RemovePeer:
			delete(h.routes, a.Overlay)
			for k, overlay := range h.heard {
				if overlay == a.Overlay {
					delete(h.heard, k)
				}
			}
		case Alias:
			if old := h.routes[a.Overlay]; old != nil {
				delete(h.routes, a.Overlay)
			}
		case Bind:
			if core := h.core; h.opens {
				w.at(w.now, func() {
					if h.core == core {
						h.step(Input{Op: Bound, Local: a.By.Local, From: netip.AddrPortFrom(netip.IPv4Unspecified(), 9)})
					}
				})
			}
		default:
		}
		h.done = append(h.done, done{w.now, a})
	}
	core := h.core
	if at := h.next; !at.IsZero() {
		w.at(at, func() {
			if h.core == core && h.next.Equal(at) && !h.asleep {
				h.step(Input{Op: Tick})
			}
		})
	}
}

func (h *home) did(op Op) (out []done) {
	for _, d := range h.done {
		if d.Op == op {
			out = append(out, d)
		}
	}
	return out
}

// happened are the events of a kind about a peer.
func (h *home) happened(kind path.Kind, other *home) (out []done) {
	for _, d := range h.did(Happened) {
		if d.Event.Kind == kind && d.ID == other.key.ID() {
			out = append(out, d)
		}
	}
	return out
}

func (h *home) dial(other *home) { h.step(Input{Op: Dial, ID: other.key.ID()}) }

// retain says that the other has a session with this node open.
func (h *home) retain(other *home) {
	h.step(Input{Op: Retain, Overlay: peer.Overlay(other.key.ID(), other.core.cfg.Instance)})
}

func (h *home) release(other *home) {
	h.step(Input{Op: Release, Overlay: peer.Overlay(other.key.ID(), 0)})
}

// to is the overlay address at which the routes to a peer are, under whichever of
// its addresses.
func (h *home) to(other *home, instance uint64) []path.Route {
	m := h.core.byOverlay[peer.Overlay(other.key.ID(), instance)]
	if m == nil {
		return nil
	}
	return h.routes[m.overlay]
}

// direct reports whether there is a hole to the other node's process of now.
func (h *home) direct(other *home) bool {
	return slices.ContainsFunc(h.to(other, other.core.cfg.Instance), func(r path.Route) bool {
		return r.Direct() && r.To == other.public
	})
}

// say sends data to the other by the relay route that there is.
func (h *home) say(other *home, data string) {
	h.w.Helper()
	for _, r := range h.to(other, other.core.cfg.Instance) {
		if !r.Direct() {
			h.w.send(h, Action{By: r.Key, Data: wire.AppendChannelData(nil, r.Channel, []byte(data))})
			return
		}
	}
	h.w.Fatalf("%s has no relay to %s", h.name, other.name)
}

func (h *home) probesTo(to netip.AddrPort) (n int) {
	for _, p := range h.sent {
		if p.to == to {
			n++
		}
	}
	return n
}

func (w *world) at(t time.Time, do func()) {
	w.turn++
	heap.Push(&w.events, event{t, w.turn, do})
}

// send carries a packet out of a home, through its NAT.
func (w *world) send(h *home, a Action) {
	if a.By.Local == h.stream && h.stream != 0 {
		data := slices.Clone(a.Data)
		w.at(w.now.Add(h.delay+serverDelay), func() {
			out, next := w.registry.Step(w.now, firstStream+h.number, h.seenByTCP(), data, nil)
			w.answers(out)
			w.tick(next)
		})
		return
	}
	if h.noUDP {
		return
	}
	p := punchPacket{h.public, a.By.To, slices.Clone(a.Data)}
	h.opened[p.to] = true
	h.sent = append(h.sent, p)
	if a.TTL != 0 || w.rng.Float64() < w.loss {
		return
	}
	if p.to == server {
		w.at(w.now.Add(h.delay+serverDelay), func() { w.atServer(p) })
		return
	}
	if f := w.strangers[p.to]; f != nil {
		w.at(w.now.Add(h.delay), func() { f(h, p) })
		return
	}
	for _, other := range w.homes {
		if other.public == p.to && !w.blocked {
			w.at(w.now.Add(h.delay+other.delay), func() { other.receive(p) })
		}
	}
}

// firstStream is the number of the server's first connection.
const firstStream = 1 << 10

// seenByTCP is where the server sees a node's connection.
func (h *home) seenByTCP() netip.AddrPort { return netip.AddrPortFrom(h.public.Addr(), 44444) }

// receive lets a packet into a home if its NAT does.
func (h *home) receive(p punchPacket) {
	if p.to != h.public || !h.opened[p.from] || h.cut || h.asleep {
		return
	}
	if c, data, ok := wire.ParseChannelData(p.data); ok && p.from == server {
		if wire.Classify(data, false) == wire.ClassSTUN {
			h.step(Input{Op: Packet, By: path.Key{Local: 1, To: p.from, Channel: c}, Data: data})
			return
		}
		overlay, heard := h.heard[path.Key{Local: 1, To: p.from, Channel: c}]
		h.data = append(h.data, fmt.Sprintf("%s from %s", data, h.w.whose(h, overlay, heard)))
		return
	}
	h.step(Input{Op: Packet, By: path.Key{Local: 1, To: p.from}, Data: p.data})
}

func (w *world) whose(h *home, overlay netip.Addr, heard bool) string {
	m := h.core.byOverlay[overlay]
	for _, other := range w.homes {
		if heard && m != nil && other.key.ID() == m.peer.ID {
			return other.name
		}
	}
	return "nobody"
}

func (w *world) atServer(p punchPacket) {
	if w.silent || w.taken != nil && w.taken(p) {
		return
	}
	out, next := w.registry.Step(w.now, 0, p.from, p.data, nil)
	w.answers(out)
	w.tick(next)
}

func (w *world) answers(out []rendezvous.Outgoing) {
	for _, o := range out {
		p := punchPacket{server, o.To, slices.Clone(o.Data)}
		if w.answered != nil {
			w.answered(p)
		}
		for _, h := range w.homes {
			if o.Local == firstStream+h.number && h.stream != 0 {
				by := path.Key{Local: h.stream, To: server}
				w.at(w.now.Add(h.delay+serverDelay), func() { h.step(Input{Op: Packet, By: by, Data: p.data}) })
				continue
			}
			if h.public == p.to && w.rng.Float64() >= w.loss {
				w.at(w.now.Add(h.delay+serverDelay), func() { h.receive(p) })
			}
		}
	}
}

func (w *world) tick(at time.Time) {
	if !w.tickAt.IsZero() && !at.Before(w.tickAt) {
		return
	}
	w.tickAt = at
	w.at(at, func() {
		if !w.tickAt.Equal(at) {
			return
		}
		w.tickAt = time.Time{}
		out, next := w.registry.Tick(w.now, nil)
		if !w.silent {
			w.answers(out)
		}
		w.tick(next)
	})
}

// run lets the time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		w.one()
	}
	w.now = end
}

func (w *world) one() {
	e := heap.Pop(&w.events).(event)
	if e.at.After(w.now) {
		w.now = e.at
	}
	e.do()
}

// until lets the time pass until ok; the test fails if that is not within limit.
func (w *world) until(limit time.Duration, ok func() bool) {
	w.Helper()
	end := w.now.Add(limit)
	for !ok() {
		if len(w.events) == 0 || w.events[0].at.After(end) {
			w.Fatalf("not within %v", limit)
		}
		w.one()
	}
}

// introduced is what a server says when it introduces a node, with an offer of the
// key's.
func introduced(tb testing.TB, from peer.Key, offer wire.Offer, to *home, observed netip.AddrPort) rendezvous.AgentAction {
	tb.Helper()
	if offer.Description == nil {
		offer.Description = punch.Side{}.AppendDescription(nil)
	}
	server := serverKey.ID()
	box, err := from.Seal(to.key.ID(), wire.OfferPurpose, server[:], offer.Append(nil))
	if err != nil {
		tb.Fatal(err)
	}
	return rendezvous.AgentAction{
		Op: rendezvous.AgentAsked, To: rendezvous.ServerEndpoint{Local: 1, Addr: netip.MustParseAddrPort("192.0.2.1:3478")},
		Channel: wire.FirstServedChannel + 100,
		Party: wire.Party{
			ID: from.ID(), Instance: offer.Instance, Observed: []netip.AddrPort{observed},
			Offer: box, Channel: wire.FirstServedChannel + 100,
		},
	}
}
