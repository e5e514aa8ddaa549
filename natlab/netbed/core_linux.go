package netbed

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bodkin/natlab"
)

// core is the Internet: a router between the links of those who are on it.
type core struct {
	schedule *scheduler
	wg       sync.WaitGroup
	filters  list[func(natlab.Packet) bool]
	taps     list[Tap]
	routes   atomic.Pointer[[]route]

	mu     sync.Mutex
	spokes []*spoke
}

// spoke is a link to the core, or through it: up leads in, down leads out.
type spoke struct {
	name     string
	port     *port
	up, down *line
	gateway  [2]netip.Addr // the core's addresses on the link
	// through is the other end of a wire inside a home, instead of the core's
	// routes.
	through *port
}

type route struct {
	to  netip.Prefix
	via *spoke
}

func newCore() (*core, error) {
	c := &core{}
	var err error
	if c.schedule, err = newScheduler(c.arrive); err != nil {
		return nil, err
	}
	c.routes.Store(&[]route{})
	return c, nil
}

// add begins to read from a spoke.
func (c *core) add(s *spoke, prefixes ...netip.Prefix) {
	c.mu.Lock()
	c.spokes = append(c.spokes, s)
	c.mu.Unlock()
	c.lead(s, prefixes...)
	c.read(s.port, func(at int64, b []byte) { c.route(at, s, b) })
}

// lead makes prefixes reachable by a spoke.
func (c *core) lead(s *spoke, prefixes ...netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	routes := slices.Clone(*c.routes.Load())
	for _, p := range prefixes {
		routes = append(routes, route{p, s})
	}
	c.routes.Store(&routes)
}

// addWire begins to pass frames between the two ends of a link inside a home.
func (c *core) addWire(s *spoke) {
	c.mu.Lock()
	c.spokes = append(c.spokes, s)
	c.mu.Unlock()
	c.read(s.port, func(at int64, b []byte) { c.wire(at, s, true, b) })
	c.read(s.through, func(at int64, b []byte) { c.wire(at, s, false, b) })
}

// read handles each frame that a port receives, with the time at which it came:
// what the reader is late by does not add to the link's delay.
func (c *core) read(p *port, handle func(at int64, frame []byte)) {
	c.wg.Go(func() {
		each := func(age int64, frame []byte) { handle(c.schedule.now()-age, frame) }
		for p.read(each) == nil { // an error: closed
		}
		p.ring.close()
	})
}

// route takes a frame from a spoke to the one that leads to its destination.
func (c *core) route(at int64, from *spoke, b []byte) {
	p, ok := natlab.ParsePacket(b[frameHeader:])
	if !ok || !p.To.Addr().IsGlobalUnicast() {
		return // what is only for the link, such as multicast listener reports
	}
	c.seen(at, from.name, true, p)
	if c.blocked(p) {
		return
	}
	if !natlab.Age(p.Data) {
		if p.Answerable() {
			f := frames.Get().(*frame)
			f.n = len(natlab.AppendTimeExceeded(f.data[:frameHeader], from.router(p), p))
			c.forward(at, from, from, f)
		}
		return
	}
	for _, r := range *c.routes.Load() {
		if r.to.Contains(p.To.Addr()) {
			c.forward(at, from, r.via, copyOf(b))
			return
		}
	}
}

// router is the core's address on the link, of the packet's family.
func (s *spoke) router(p natlab.Packet) netip.Addr {
	if p.From.Addr().Is6() {
		return s.gateway[1]
	}
	return s.gateway[0]
}

// forward sends a packet up one line; when it has arrived, arrive sends it down
// the other. In between it is nowhere: what a line does to a packet depends on
// what came to that line before it, and not on what was sent before it.
func (c *core) forward(at int64, from, to *spoke, f *frame) {
	c.schedule.enter(at, from.up, held{frame: f, then: to})
}

// arrive sends a packet down the line that it takes.
func (c *core) arrive(at int64, to *spoke, f *frame) {
	copy(f.data[:], to.port.header[:12])
	ether := uint16(etherIPv4)
	if f.data[frameHeader]>>4 == 6 {
		ether = etherIPv6
	}
	f.data[12], f.data[13] = byte(ether>>8), byte(ether)
	if c.taps.any() {
		if p, ok := natlab.ParsePacket(f.bytes()[frameHeader:]); ok {
			c.seen(at, to.name, false, p)
		}
	}
	c.schedule.enter(at, to.down, held{frame: f, out: to.port})
}

// wire passes a frame through a link inside a home.
func (c *core) wire(at int64, s *spoke, up bool, b []byte) {
	l, out := s.down, s.port
	if up {
		l, out = s.up, s.through
	}
	if c.taps.any() {
		if p, ok := natlab.ParsePacket(b[frameHeader:]); ok {
			c.seen(at, s.name, up, p)
		}
	}
	c.schedule.enter(at, l, held{frame: copyOf(b), out: out})
}

func (c *core) seen(at int64, link string, toCore bool, p natlab.Packet) {
	for _, t := range c.taps.all() {
		(*t)(c.schedule.base.Add(time.Duration(at)), link, toCore, p)
	}
}

func (c *core) blocked(p natlab.Packet) bool {
	for _, drop := range c.filters.all() {
		if (*drop)(p) {
			return true
		}
	}
	return false
}

func (c *core) set(s *spoke, link natlab.Link) { c.schedule.set(link, s.up, s.down) }

// lost is how many packets the machine was too slow for.
func (c *core) lost() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.schedule.overflowed.Load()
	for _, s := range c.spokes {
		n += s.port.lost()
		if s.through != nil {
			n += s.through.lost()
		}
	}
	return n
}

// close ends all reading and sending.
func (c *core) close() {
	c.mu.Lock()
	spokes := c.spokes
	c.spokes = nil
	c.mu.Unlock()
	// The scheduler writes to ports: it ends first.
	c.schedule.close()
	for _, s := range spokes {
		s.port.close()
		if s.through != nil {
			s.through.close()
		}
	}
	c.wg.Wait()
}

// list is read at every packet and changed seldom.
type list[T any] struct {
	items atomic.Pointer[[]*T]
	mu    sync.Mutex
}

func (l *list[T]) all() []*T {
	if p := l.items.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *list[T]) any() bool { return len(l.all()) > 0 }

// add appends an item, until it is removed.
func (l *list[T]) add(item T) (remove func()) {
	at := &item
	l.mu.Lock()
	defer l.mu.Unlock()
	next := append(slices.Clone(l.all()), at)
	l.items.Store(&next)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		next := slices.DeleteFunc(slices.Clone(l.all()), func(t *T) bool { return t == at })
		l.items.Store(&next)
	}
}
