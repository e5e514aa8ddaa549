package path

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"
)

// world is two Peers that stand for each other, the server between them, and the
// network, in virtual time. Both homes filter by port (EIM, APDF).
type world struct {
	t       *testing.T
	now     time.Time
	events  queue
	a, b    *party
	server  peer.ID
	blocked bool // nothing passes between the homes
	opened  map[[2]netip.AddrPort]bool
	serial  int
	// refuse, if set, is what the server answers instead of an introduction.
	refuse error
	// swap makes the server's messages of two introductions overtake each other
	// on their way to b.
	swap bool
	held func()
}

// party is one side: a Peer that stands for the other, in its node.
type party struct {
	w       *world
	other   *party
	key     peer.Key
	self    *Self
	peer    *Peer
	public  netip.AddrPort
	channel Key // the relay channel that this side's asking opens
	served  Key // the one that the other's asking opens here
	silent  bool
	// hard puts the side behind a NAT with random ports: nothing comes to its own
	// socket from the other home, and every extra one has a port of its own.
	hard  bool
	extra map[punch.Local]bool
	binds int // extra sockets that were asked for
	most  int // of them at a time

	next   time.Time
	routes []Route
	heard  map[Key]bool
	events []Happening
	asked  []time.Time
	probes []time.Time
	doubts int
}

const (
	toServer  = 10 * time.Millisecond
	toEach    = 50 * time.Millisecond
	routerHop = 5
)

type event struct {
	at     time.Time
	serial int
	do     func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].serial < q[j].serial
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

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var serverAt = ap("192.0.2.1:3478")

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, now: time.Unix(1_000_000, 0), opened: map[[2]netip.AddrPort]bool{},
		server: peer.NewKey([32]byte{9}).ID(),
	}
	w.a, w.b = w.party(1, "203.0.113.1:5000"), w.party(2, "198.51.100.1:6000")
	w.a.other, w.b.other = w.b, w.a
	for _, s := range []*party{w.a, w.b} {
		s.channel = Key{Local: 1, To: serverAt, Channel: wire.FirstAskedChannel}
		s.served = Key{Local: 1, To: serverAt, Channel: wire.FirstServedChannel}
		s.restart()
	}
	return w
}

func (w *world) party(seed byte, public string) *party {
	return &party{w: w, key: peer.NewKey([32]byte{seed}), public: ap(public)}
}

// restart begins a new process: another instance, which knows nothing.
func (s *party) restart() {
	var instance uint64 = 1
	if s.self != nil {
		instance = s.self.Instance + 1
	}
	s.self = &Self{
		Key: s.key, Server: s.w.server, Instance: instance,
		Rand:    seeded{rand.New(rand.NewPCG(uint64(s.public.Port()), instance))},
		Side:    punch.Side{ID: s.key.ID(), Abilities: punch.ByUDP, Observed: []netip.AddrPort{s.public}},
		Sockets: []LocalSocket{{1, ap("0.0.0.0:5000")}},
	}
	s.routes, s.heard, s.extra = nil, map[Key]bool{}, map[punch.Local]bool{}
	s.meet(s.other)
}

// meet makes a Peer for the other side.
func (s *party) meet(other *party) {
	p, err := NewPeer(s.self, other.key.ID())
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.peer = p
	s.step(Input{Op: ServerUp})
}

func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now.Add(d), w.serial, do})
}

func (s *party) step(in Input) {
	var out []Action
	out, s.next = s.peer.Step(s.w.now, in, nil)
	for _, a := range out {
		s.do(a)
	}
	if at := s.next; !at.IsZero() {
		of := s.peer
		s.w.after(max(at.Sub(s.w.now), 0), func() {
			if s.peer == of && s.next.Equal(at) {
				s.step(Input{Op: Tick})
			}
		})
	}
}

func (s *party) do(a Action) {
	switch a.Op {
	case Send:
		s.send(a)
	case AskServer:
		s.ask(a.Data)
	case Hear:
		s.heard[a.By] = true
	case Unhear:
		delete(s.heard, a.By)
	case Publish:
		s.routes = a.Routes
		for _, r := range a.Routes {
			if !s.heard[r.Key] {
				s.w.t.Errorf("route %v is published, and its source is not open", r)
			}
		}
	case Bind:
		s.bind(a.By.Local)
	case Unbind:
		if !s.extra[a.By.Local] {
			s.w.t.Errorf("socket %d is closed, and was not open", a.By.Local)
		}
		delete(s.extra, a.By.Local)
	case Event:
		s.events = append(s.events, a.Event)
	case Doubt:
		s.doubts++
	default:
		s.w.t.Fatalf("action %d", a.Op)
	}
}

// send carries a probe through both NATs.
func (s *party) send(a Action) {
	if a.Data[0] == 0 {
		s.probes = append(s.probes, s.w.now)
	}
	other, from := s.other, s.at(a.By.Local)
	s.w.opened[[2]netip.AddrPort{from, a.By.To}] = true
	if a.TTL != 0 && a.TTL < routerHop || s.w.blocked || a.By.To.Addr() != other.public.Addr() {
		return
	}
	s.w.after(toEach, func() {
		if l := other.local(a.By.To); l != 0 && !other.silent && s.w.opened[[2]netip.AddrPort{a.By.To, from}] {
			other.step(Input{Op: Packet, By: Key{Local: l, To: from}, Data: a.Data})
		}
	})
}

// bind opens an extra socket.
func (s *party) bind(l punch.Local) {
	s.extra[l] = true
	s.binds++
	s.most = max(s.most, len(s.extra))
	of := s.peer
	s.w.after(0, func() {
		if s.peer == of && s.extra[l] {
			s.step(Input{Op: Bound, By: Key{Local: l, To: ap("0.0.0.0:9")}})
		}
	})
}

// at is where the other home sees a socket.
func (s *party) at(l punch.Local) netip.AddrPort {
	switch {
	case l >= firstExtra:
		const span = 65536 - 1024
		return netip.AddrPortFrom(s.public.Addr(), uint16(1024+int(l)*40507%span))
	case s.hard:
		return netip.AddrPortFrom(s.public.Addr(), 1)
	}
	return s.public
}

// local is the socket that is seen at an endpoint; 0: none.
func (s *party) local(at netip.AddrPort) punch.Local {
	if at == s.public && !s.hard {
		return 1
	}
	for l := range s.extra {
		if s.at(l) == at {
			return l
		}
	}
	return 0
}

// ask is the server: it tells both at once.
func (s *party) ask(box []byte) {
	w := s.w
	s.asked = append(s.asked, w.now)
	of := s.peer
	s.step(Input{Op: Asking, By: s.channel})
	w.after(toServer, func() {
		if err := w.refuse; err != nil {
			w.after(toServer, func() {
				if s.peer == of {
					s.step(Input{Op: AskFailed, Err: err})
				}
			})
			return
		}
		answer := wire.Party{
			ID: s.other.key.ID(), Instance: s.other.self.Instance, Observed: s.other.self.Side.Observed,
			Description: s.other.self.Side.AppendDescription(nil),
		}
		asking := wire.Party{ID: s.key.ID(), Instance: s.self.Instance, Observed: s.self.Side.Observed, Offer: box}
		w.deliver(s, func() {
			if s.peer == of {
				s.step(Input{Op: Introduced, Party: answer})
			}
		})
		w.deliver(s.other, func() { s.other.introduce(asking) })
	})
}

// deliver carries a server's message; with swap, each odd one to b waits for the
// next.
func (w *world) deliver(to *party, do func()) {
	if !w.swap || to != w.b {
		w.after(toServer, do)
		return
	}
	if w.held == nil {
		w.held = do
		return
	}
	w.after(toServer, do)
	w.after(toServer+time.Millisecond, w.held)
	w.held = nil
}

// introduce hands the other's introduction to this side, as its node does.
func (s *party) introduce(p wire.Party) {
	from, content, err := s.key.Open(wire.OfferPurpose, s.w.server[:], p.Offer)
	if err != nil || from != p.ID {
		s.w.t.Fatalf("offer of %v: %v", from, err)
	}
	offer, err := wire.ParseOffer(content)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.step(Input{Op: Asked, By: s.served, Party: p, Offer: offer})
}

// run goes on until done says so or the time is over; it reports done.
func (w *world) run(limit time.Duration, done func() bool) bool {
	end := w.now.Add(limit)
	for len(w.events) > 0 && !done() && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		if e.at.After(w.now) {
			w.now = e.at
		}
		e.do()
	}
	if done() {
		return true
	}
	w.now = end
	return false
}

func never() bool { return false }

func (s *party) direct() bool { return len(s.routes) > 0 && s.routes[0].Direct() }

func (s *party) relayed() bool { return len(s.routes) > 0 && !s.routes[0].Direct() }

func (w *world) bothDirect() bool { return w.a.direct() && w.b.direct() }

func (s *party) happened(k Kind) (out []Happening) {
	for _, h := range s.events {
		if h.Kind == k {
			out = append(out, h)
		}
	}
	return out
}

// sends says that data leaves by the route in use, as the data plane does, every
// kickEvery for a while; heard is when something last came in by it.
func (s *party) sends(d time.Duration, heard func() time.Time) {
	for range int(d / kickEvery) {
		if len(s.routes) > 0 {
			s.step(Input{Op: Active, By: s.routes[0].Key, Heard: heard()})
		}
		s.w.run(kickEvery, never)
	}
}

// busiest is how many of the moments fall into any hour.
func busiest(moments []time.Time) (most int) {
	for i, m := range moments {
		n, _ := slices.BinarySearchFunc(moments, m.Add(time.Hour), time.Time.Compare)
		most = max(most, n-i)
	}
	return most
}
