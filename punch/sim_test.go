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
	// tamper, if set, may change or drop (nil) what b receives.
	tamper func(data []byte) []byte
	opened map[[2]netip.AddrPort]bool
	sent   int
}

type side struct {
	name    string
	engine  *Engine
	private netip.AddrPort
	public  netip.AddrPort
	six     netip.AddrPort // on socket 2, if valid
	next    time.Time
	// symmetric: each destination sees another port (APDM, sequential).
	symmetric bool
	mappings  map[netip.AddrPort]netip.AddrPort
	// open: whoever sends to a mapping comes in (EIF).
	open    bool
	actions []Action
	direct  time.Time // when the first route was confirmed
	packets []Action  // every Send
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
	w.a = &side{name: "a", private: ap("192.168.1.2:5000"), public: ap("203.0.113.1:5000"), mappings: map[netip.AddrPort]netip.AddrPort{}}
	w.b = &side{name: "b", private: ap("192.168.2.2:6000"), public: ap("198.51.100.1:6000"), mappings: map[netip.AddrPort]netip.AddrPort{}}
	w.engines(nat.Profile{}, nat.Profile{})
	return w
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
	w.a.engine = NewEngine(Config{Self: sa, Other: sb, Secret: secretA, Nonce: nonce, Rand: seeded{w.rng}})
	w.b.engine = NewEngine(Config{Self: sb, Other: sa, Secret: secretB, Nonce: nonce, Rand: seeded{w.rng}})
}

func (s *side) describe(k peer.Key, p nat.Profile) Side {
	out := Side{ID: k.ID(), Profile: p, Observed: []netip.AddrPort{s.public}, Candidates: []Candidate{{Host, UDP, s.private}}}
	if s.six.IsValid() {
		out.Observed = append(out.Observed, s.six)
	}
	return out
}

// source is what the world sees a packet of s to an endpoint come from.
func (s *side) source(to netip.AddrPort) netip.AddrPort {
	switch {
	case to.Addr().Is6():
		return s.six
	case !s.symmetric:
		return s.public
	}
	if _, ok := s.mappings[to]; !ok {
		s.mappings[to] = netip.AddrPortFrom(s.public.Addr(), s.public.Port()+1+uint16(len(s.mappings)))
	}
	return s.mappings[to]
}

// socket is which of the side's sockets an endpoint leads to; 0: none.
func (s *side) socket(at netip.AddrPort) Local {
	switch {
	case at == s.six:
		return 2
	case at == s.public && !s.symmetric:
		return 1
	}
	for _, m := range s.mappings {
		if m == at {
			return 1
		}
	}
	return 0
}

func (w *world) after(d time.Duration, do func()) {
	heap.Push(&w.events, event{w.now.Add(d), do, len(w.events) + w.sent})
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
		if a.Op == Send {
			s.packets = append(s.packets, a)
			w.send(s, a)
			continue
		}
		if a.Op == Confirmed && s.direct.IsZero() {
			s.direct = w.now
		}
		s.actions = append(s.actions, a)
	}
	if !s.next.IsZero() {
		at := s.next
		heap.Push(&w.events, event{at, func() {
			if s.next.Equal(at) {
				w.step(s, Input{Op: Tick})
			}
		}, w.sent})
	}
}

// send carries a packet through both NATs: ours opens, the other's filters.
func (w *world) send(s *side, a Action) {
	other := w.b
	if s == w.b {
		other = w.a
	}
	w.sent++
	from := s.source(a.To)
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
