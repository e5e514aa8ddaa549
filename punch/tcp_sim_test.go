package punch

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// tcpWorld is two engines with TCP alone, their kernels, their NATs and the network, in
// virtual time.
type tcpWorld struct {
	t      testing.TB
	now    time.Time
	delay  time.Duration
	loss   float64 // of SYNs; the rest is sent again by the kernels
	rng    *rand.Rand
	events queue
	serial int
	a, b   *tcpSide
}

// tcpSide is a host with one TCP port behind a NAT that keeps ports, or counts.
type tcpSide struct {
	w      *tcpWorld
	name   string
	public netip.AddrPort
	resets bool // the NAT answers what it does not let in with a reset
	keeps  bool // and then maps us elsewhere towards whoever came too early
	counts uint16
	draw   func() uint16 // every connect has a port of its own
	engine *Engine
	other  *tcpSide
	next   time.Time
	serial uint32
	open   map[[2]netip.AddrPort]bool // of the NAT: our endpoint outside, and the peer's
	mapped map[netip.AddrPort]netip.AddrPort
	conns  map[Local]*tcpConn
	dials  int
	most   int // connections at a time, and connects
	direct time.Time
	lost   int
	routes map[Local]bool
}

// tcpConn is one end of a connection, or of the way to it.
type tcpConn struct {
	local     Local
	from, to  netip.AddrPort // outside of our NAT, and of the peer's
	stands    bool
	far       *tcpConn
	announced bool // the engine knows it
}

func newTCPWorld(tb testing.TB, seed uint64) *tcpWorld {
	tb.Helper()
	w := &tcpWorld{t: tb, now: time.Unix(1000, 0), delay: 50 * time.Millisecond, rng: rand.New(rand.NewPCG(seed, 2))}
	w.a, w.b = w.side("a", "203.0.113.1:5000"), w.side("b", "198.51.100.1:6000")
	w.a.other, w.b.other = w.b, w.a
	w.engines(nil)
	return w
}

func (w *tcpWorld) side(name, public string) *tcpSide {
	return &tcpSide{
		w: w, name: name, public: ap(public), open: map[[2]netip.AddrPort]bool{}, mapped: map[netip.AddrPort]netip.AddrPort{},
		conns: map[Local]*tcpConn{}, routes: map[Local]bool{},
	}
}

// engines makes both engines; change may say more of the two sides.
func (w *tcpWorld) engines(change func(a, b *Side)) {
	ka, kb := testKey(1), testKey(2)
	sa := Side{ID: ka.ID(), Abilities: ByTCP, ObservedTCP: []netip.AddrPort{w.a.public}}
	sb := Side{ID: kb.ID(), Abilities: ByTCP, ObservedTCP: []netip.AddrPort{w.b.public}}
	if change != nil {
		change(&sa, &sb)
	}
	secretA, _ := ka.Shared(kb.ID())
	secretB, _ := kb.Shared(ka.ID())
	nonce := [32]byte{7}
	w.a.engine = NewEngine(Config{Self: sa, Other: sb, Secret: secretA, Nonce: nonce, NewLocal: w.a.newLocal, Rand: seeded{w.rng}})
	w.b.engine = NewEngine(Config{Self: sb, Other: sa, Secret: secretB, Nonce: nonce, NewLocal: w.b.newLocal, Rand: seeded{w.rng}})
}

func (s *tcpSide) newLocal(t Transport) Local {
	s.serial++
	return NewLocal(t, 100+s.serial)
}

func (w *tcpWorld) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now.Add(d), do, w.serial})
}

func (w *tcpWorld) start(s *tcpSide, d time.Duration) {
	w.after(d, func() {
		s.step(Input{Op: Open, Local: NewLocal(TCP, 1), From: ap("0.0.0.0:5000")})
		s.step(Input{Op: Start})
	})
}

func (s *tcpSide) step(in Input) {
	var out []Action
	out, s.next = s.engine.Step(s.w.now, in, nil)
	for _, a := range out {
		s.do(a)
	}
	if at := s.next; !at.IsZero() {
		s.w.after(at.Sub(s.w.now), func() {
			if s.next.Equal(at) {
				s.step(Input{Op: Tick})
			}
		})
	}
}

func (s *tcpSide) do(a Action) {
	switch a.Op {
	case Connect:
		s.connect(a)
	case Unbind:
		s.close(a.Local)
	case Send:
		s.send(a)
	case Confirmed:
		s.routes[a.Local] = true
		if s.direct.IsZero() {
			s.direct = s.w.now
		}
	case Lost:
		delete(s.routes, a.Local)
		s.lost++
	default:
	}
}

// source is where the NAT maps our port for a destination.
func (s *tcpSide) source(to netip.AddrPort) netip.AddrPort {
	if s.draw != nil {
		return netip.AddrPortFrom(s.public.Addr(), s.draw())
	}
	if m, ok := s.mapped[to]; ok {
		return m
	}
	m := s.public
	if s.counts > 0 {
		m = netip.AddrPortFrom(m.Addr(), m.Port()+s.counts*uint16(1+len(s.mapped)))
	}
	s.mapped[to] = m
	return m
}

func (s *tcpSide) connect(a Action) {
	s.dials++
	for _, c := range s.conns {
		if c.to == a.To && a.Port != 0 {
			s.w.after(0, func() { s.step(Input{Op: Failed, Local: a.Local, Why: Busy}) })
			return
		}
	}
	c := &tcpConn{local: a.Local, from: s.source(a.To), to: a.To, announced: true}
	s.conns[a.Local] = c
	s.most = max(s.most, len(s.conns))
	for _, again := range []time.Duration{0, time.Second, 3 * time.Second} {
		s.w.after(again, func() { s.syn(c) })
	}
}

// syn sends a SYN, unless the connection stands by now or is given up.
func (s *tcpSide) syn(c *tcpConn) {
	if s.conns[c.local] != c || c.stands {
		return
	}
	s.open[[2]netip.AddrPort{c.from, c.to}] = true
	if s.w.rng.Float64() < s.w.loss {
		return
	}
	s.w.after(s.w.delay, func() { s.other.synCame(c, s) })
}

// synCame takes a SYN at the NAT.
func (s *tcpSide) synCame(c *tcpConn, from *tcpSide) {
	switch {
	case c.to.Addr() != s.public.Addr():
		return
	case s.open[[2]netip.AddrPort{c.to, c.from}]:
	case s.resets:
		if _, ok := s.mapped[c.from]; s.keeps && !ok {
			s.mapped[c.from] = netip.AddrPortFrom(s.public.Addr(), 40000)
		}
		s.w.after(s.w.delay, func() {
			delete(from.open, [2]netip.AddrPort{c.from, c.to}) // the state is closed
			from.fail(c, Refused)
		})
		return
	default:
		return
	}
	mine := s.end(c)
	if mine == nil { // nothing is under way: the listener takes it
		mine = &tcpConn{local: s.newLocal(TCP), from: c.to, to: c.from, stands: true}
		s.conns[mine.local] = mine
	}
	if mine.stands && mine.far != nil && mine.far != c {
		return
	}
	mine.far = c
	s.w.after(s.w.delay, func() { // the SYN-ACK
		if from.conns[c.local] != c || c.stands && c.far != nil && c.far != mine {
			return
		}
		if c.far = mine; !c.stands {
			c.stands = true
			from.step(Input{Op: Connected, Local: c.local, From: c.to})
		}
	})
}

// end is our end of a connection or connect between those endpoints.
func (s *tcpSide) end(c *tcpConn) *tcpConn {
	for _, mine := range s.conns {
		if mine.from == c.to && mine.to == c.from {
			return mine
		}
	}
	return nil
}

func (s *tcpSide) fail(c *tcpConn, why Failure) {
	if s.conns[c.local] == c && !c.stands {
		delete(s.conns, c.local)
		s.step(Input{Op: Failed, Local: c.local, Why: why})
	}
}

// close ends a connection with a reset.
func (s *tcpSide) close(l Local) {
	c := s.conns[l]
	delete(s.conns, l)
	if c == nil || !c.stands || c.far == nil {
		return
	}
	far := c.far
	s.w.after(s.w.delay, func() {
		if s.other.conns[far.local] == far {
			delete(s.other.conns, far.local)
			s.other.step(Input{Op: Failed, Local: far.local, Why: Ended})
		}
	})
}

func (s *tcpSide) send(a Action) {
	c := s.conns[a.Local]
	if c == nil || !c.stands {
		s.w.t.Errorf("%s sends by connection %d, which does not stand", s.name, a.Local)
		return
	}
	data := slices.Clone(a.Data)
	s.w.after(s.w.delay, func() {
		if far := c.far; far != nil && s.other.conns[far.local] == far {
			far.stands = true // the acknowledgement was there before
			s.other.step(Input{Op: Packet, Local: far.local, From: far.to, Data: data})
		}
	})
}

func (w *tcpWorld) run(limit time.Duration, done func() bool) {
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

func (w *tcpWorld) direct() bool { return len(w.a.routes) > 0 && len(w.b.routes) > 0 }
