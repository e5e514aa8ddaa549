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
// behind a port-restricted NAT (EIM, APDF), with a one-way delay, and loss.
type world struct {
	t      testing.TB
	now    time.Time
	delay  time.Duration // one way, between the NATs
	loss   float64
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
	next    time.Time
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
	w.a = &side{name: "a", private: ap("192.168.1.2:5000"), public: ap("203.0.113.1:5000")}
	w.b = &side{name: "b", private: ap("192.168.2.2:6000"), public: ap("198.51.100.1:6000")}
	w.engines(nat.Profile{}, nat.Profile{})
	return w
}

func (w *world) engines(pa, pb nat.Profile) {
	ka, kb := testKey(1), testKey(2)
	sa := Side{ID: ka.ID(), Profile: pa, Observed: []netip.AddrPort{w.a.public}, Candidates: []Candidate{{Host, UDP, w.a.private}}}
	sb := Side{ID: kb.ID(), Profile: pb, Observed: []netip.AddrPort{w.b.public}, Candidates: []Candidate{{Host, UDP, w.b.private}}}
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

func (w *world) after(d time.Duration, do func()) {
	heap.Push(&w.events, event{w.now.Add(d), do, len(w.events) + w.sent})
}

// start opens the socket of a side and starts its engine after d.
func (w *world) start(s *side, d time.Duration) {
	w.after(d, func() {
		w.step(s, Input{Op: Open, Local: 1, From: s.private})
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
	w.opened[[2]netip.AddrPort{s.public, a.To}] = true
	if a.To != other.public || a.TTL != 0 && a.TTL < 5 || w.rng.Float64() < w.loss {
		return
	}
	data := append([]byte(nil), a.Data...)
	if other == w.b && w.tamper != nil {
		if data = w.tamper(data); data == nil {
			return
		}
	}
	w.after(w.delay, func() {
		if w.opened[[2]netip.AddrPort{other.public, s.public}] {
			w.step(other, Input{Op: Packet, Local: 1, From: s.public, Data: data})
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
