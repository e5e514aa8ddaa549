package punch

import (
	"container/heap"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/peer"
)

// world is two engines and the network between them, in virtual time: each
// behind a port-restricted NAT (EIM, APDF) unless it says otherwise, with a
// one-way delay, and loss. IPv6, where a side has it, has firewalls alone.
type world struct {
	t      testing.TB
	now    time.Time
	delay  time.Duration // one way, between the NATs
	loss   float64
	no4    bool // IPv4 is blocked
	rng    *rand.Rand
	events queue
	a, b   *side
	icmp   map[*side]*icmpHome
	// tamper, if set, may change or drop (nil) what b receives.
	tamper func(data []byte) []byte
	opened map[[2]netip.AddrPort]bool
	serial int // of events
}

type side struct {
	name    string
	engine  *Engine
	private netip.AddrPort
	public  netip.AddrPort
	six     netip.AddrPort // on socket 2, if valid
	next    time.Time
	// symmetric: each destination sees another port (APDM), one after the other or
	// what draw says.
	symmetric bool
	draw      func() uint16
	mappings  map[flow]netip.AddrPort
	inside    map[netip.AddrPort]Local // whose mapping an endpoint is
	// open: whoever sends to a mapping comes in (EIF).
	open    bool
	actions []Action
	direct  time.Time   // when the first route was confirmed
	packets []Action    // every Send
	sent    []time.Time // when each was
	// extra are the sockets that the engine asked for, and that are open.
	extra  map[Local]bool
	most   int // of them at a time
	closed int // Unbinds
	noBind bool
	serial Local
	memory *Memory
}

// flow is what a symmetric NAT has a port for; elsewhere the destination is zero.
type flow struct {
	local Local
	to    netip.AddrPort
}

type event struct {
	at   time.Time
	do   func()
	turn int
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

var _ io.Reader = seeded{}

func testKey(n byte) peer.Key { return peer.NewKey([32]byte{n}) }

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func newWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := &world{
		t: tb, now: time.Unix(1000, 0), delay: 50 * time.Millisecond,
		rng: rand.New(rand.NewPCG(seed, 1)), opened: map[[2]netip.AddrPort]bool{},
	}
	w.a = newSide("a", "192.168.1.2:5000", "203.0.113.1:5000")
	w.b = newSide("b", "192.168.2.2:6000", "198.51.100.1:6000")
	w.engines(nat.Profile{}, nat.Profile{})
	return w
}

func newSide(name, private, public string) *side {
	return &side{
		name: name, private: ap(private), public: ap(public), extra: map[Local]bool{},
		mappings: map[flow]netip.AddrPort{}, inside: map[netip.AddrPort]Local{},
	}
}

func (w *world) engines(pa, pb nat.Profile) {
	ka, kb := testKey(1), testKey(2)
	sa, sb := w.a.describe(ka, pa), w.b.describe(kb, pb)
	secretA, err := ka.Shared(kb.ID())
	if err != nil {
		w.t.Fatal(err)
	}
	secretB, err := kb.Shared(ka.ID())
	if err != nil {
		w.t.Fatal(err)
	}
	nonce := [32]byte{7}
	w.a.engine = NewEngine(Config{Self: sa, Other: sb, Secret: secretA, Nonce: nonce, NewLocal: w.a.newLocal, Memory: w.a.memory, Rand: seeded{w.rng}})
	w.b.engine = NewEngine(Config{Self: sb, Other: sa, Secret: secretB, Nonce: nonce, NewLocal: w.b.newLocal, Memory: w.b.memory, Rand: seeded{w.rng}})
}

func (s *side) newLocal(Transport) Local {
	s.serial++
	return 100 + s.serial
}

func (s *side) describe(k peer.Key, p nat.Profile) Side {
	out := Side{ID: k.ID(), Abilities: ByUDP, Profile: p, Observed: []netip.AddrPort{s.public}, Candidates: []Candidate{{Host, UDP, s.private}}}
	if s.six.IsValid() {
		out.Observed = append(out.Observed, s.six)
	}
	return out
}

// source is what the world sees a packet of s to an endpoint come from.
func (s *side) source(l Local, to netip.AddrPort) netip.AddrPort {
	f := flow{local: l}
	switch {
	case to.Addr().Is6():
		return s.six
	case s.symmetric:
		f.to = to
	case l == 1:
		return s.public
	}
	m, ok := s.mappings[f]
	if !ok {
		for port := s.public.Port() + 1 + uint16(len(s.mappings)); !ok; ok = s.inside[m] == 0 {
			if s.draw != nil {
				port = s.draw()
			}
			m = netip.AddrPortFrom(s.public.Addr(), port)
			port++
		}
		s.mappings[f], s.inside[m] = m, l
	}
	return m
}

// socket is which of the side's sockets an endpoint leads to; 0: none.
func (s *side) socket(at netip.AddrPort) Local {
	switch {
	case at == s.six:
		return 2
	case at == s.public && !s.symmetric:
		return 1
	}
	if l := s.inside[at]; l < 100 || s.extra[l] {
		return l
	}
	return 0
}

func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now.Add(d), do, w.serial})
}

// start opens the socket of a side and starts its engine after d.
func (w *world) start(s *side, d time.Duration) {
	w.after(d, func() {
		w.step(s, Input{Op: Open, Local: 1, From: s.private})
		if s.six.IsValid() {
			w.step(s, Input{Op: Open, Local: 2, From: s.six})
		}
		w.step(s, Input{Op: Start})
	})
}

func (w *world) step(s *side, in Input) {
	var out []Action
	out, s.next = s.engine.Step(w.now, in, nil)
	for _, a := range out {
		switch a.Op {
		case Send:
			if a.Local >= 100 && a.Local.Transport() == UDP && !s.extra[a.Local] {
				w.t.Errorf("%s sent from the socket %d, which is not open", s.name, a.Local)
			}
			s.packets, s.sent = append(s.packets, a), append(s.sent, w.now)
			w.send(s, a)
			continue
		case Bind:
			w.bind(s, a.Local)
		case Unbind:
			delete(s.extra, a.Local)
			s.closed++
		default:
		}
		if a.Op == Confirmed && s.direct.IsZero() {
			s.direct = w.now
		}
		s.actions = append(s.actions, a)
	}
	if !s.next.IsZero() {
		at := s.next
		w.after(at.Sub(w.now), func() {
			if s.next.Equal(at) {
				w.step(s, Input{Op: Tick})
			}
		})
	}
}

// bind opens a socket, unless it was closed by the time that it is there.
func (w *world) bind(s *side, l Local) {
	if s.noBind {
		return
	}
	s.extra[l] = true
	s.most = max(s.most, len(s.extra))
	w.after(0, func() {
		if s.extra[l] {
			w.step(s, Input{Op: Open, Local: l, From: netip.AddrPortFrom(netip.IPv4Unspecified(), 20000+uint16(l))})
		}
	})
}

// send carries a packet through both NATs: ours opens, the other's filters.
func (w *world) send(s *side, a Action) {
	other := w.b
	if s == w.b {
		other = w.a
	}
	if a.Local.Transport() == ICMP {
		w.sendICMP(s, a)
		return
	}
	from := s.source(a.Local, a.To)
	w.opened[[2]netip.AddrPort{from, a.To}] = true
	if a.TTL != 0 && a.TTL < 5 || w.no4 && a.To.Addr().Is4() || w.rng.Float64() < w.loss {
		return
	}
	data := append([]byte(nil), a.Data...)
	if other == w.b && w.tamper != nil {
		if data = w.tamper(data); data == nil {
			return
		}
	}
	w.after(w.delay, func() {
		local := other.socket(a.To)
		if local != 0 && (other.open || w.opened[[2]netip.AddrPort{a.To, from}]) {
			w.step(other, Input{Op: Packet, Local: local, From: from, Data: data})
		}
	})
}

// run goes on until done says so or the time is over.
func (w *world) run(limit time.Duration, done func() bool) {
	end := w.now.Add(limit)
	for len(w.events) > 0 && !done() {
		e := heap.Pop(&w.events).(event)
		if e.at.After(end) {
			heap.Push(&w.events, e)
			break
		}
		if e.at.After(w.now) {
			w.now = e.at
		}
		e.do()
	}
	if w.now.Before(end) && !done() {
		w.now = end
	}
}

func (w *world) direct() bool { return !w.a.direct.IsZero() && !w.b.direct.IsZero() }

func (s *side) did(op Op) int {
	n := 0
	for _, a := range s.actions {
		if a.Op == op {
			n++
		}
	}
	return n
}

// busiest is how many packets left within any second, answers aside: those are as many
// as the peer's probes.
func (s *side) busiest() (most int) {
	var probes []time.Time
	first := 0
	for i, p := range s.packets {
		if p.Data[0] != 0 {
			continue
		}
		probes = append(probes, s.sent[i])
		for s.sent[i].Sub(probes[first]) >= time.Second {
			first++
		}
		most = max(most, len(probes)-first)
	}
	return most
}
