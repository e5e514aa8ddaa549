package netbed

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// core is the Internet: a router between the links of those who are on it.
type core struct {
	schedule *scheduler
	mu       sync.Mutex
	spokes   []*spoke
	routes   atomic.Pointer[[]route]
	filters  atomic.Pointer[[]*filter]
	tap      atomic.Pointer[Tap]
	wg       sync.WaitGroup
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

type filter struct{ drop func(Packet) bool }

func newCore() (*core, error) {
	c := &core{}
	var err error
	if c.schedule, err = newScheduler(c.arrive); err != nil {
		return nil, err
	}
	c.routes.Store(&[]route{})
	c.filters.Store(&[]*filter{})
	return c, nil
}

// add begins to read from a spoke.
func (c *core) add(s *spoke, prefixes ...netip.Prefix) {
	c.mu.Lock()
	c.spokes = append(c.spokes, s)
	c.mu.Unlock()
	c.lead(s, prefixes...)
	c.read(func(b []byte) { c.route(s, b) }, s.port)
}

// lead makes prefixes reachable by a spoke.
func (c *core) lead(s *spoke, prefixes ...netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	routes := append([]route(nil), *c.routes.Load()...)
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
	c.read(func(b []byte) { c.wire(s, true, b) }, s.port)
	c.read(func(b []byte) { c.wire(s, false, b) }, s.through)
}

func (c *core) read(handle func([]byte), p *port) {
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		b := make([]byte, 1<<16)
		for {
			n, err := p.read(b)
			if err != nil {
				return // closed
			}
			if n > frameHeader && n <= maxFrame {
				handle(b[:n])
			}
		}
	}()
}

// route takes a frame from a spoke to the one that leads to its destination.
func (c *core) route(from *spoke, frame []byte) {
	now := time.Now()
	p, ok := parse(frame[frameHeader:])
	if !ok || !p.To.Addr().IsGlobalUnicast() {
		return // what is only for the link, such as multicast listener reports
	}
	c.seen(now, from.name, true, p)
	if c.blocked(p) {
		return
	}
	if !age(p.Data) {
		if p.Protocol != 1 && p.Protocol != 58 {
			router := from.gateway[0]
			if p.From.Addr().Is6() {
				router = from.gateway[1]
			}
			frame = append(make([]byte, frameHeader), timeExceeded(router, p)...)
			c.forward(now, from, from, frame)
		}
		return
	}
	for _, r := range *c.routes.Load() {
		if r.to.Contains(p.To.Addr()) {
			c.forward(now, from, r.via, frame)
			return
		}
	}
}

// forward sends a packet up one line; when it has arrived, arrive sends it down
// the other. In between it is nowhere: what a line does to a packet depends on
// what came to that line before it, and not on what was sent before it.
func (c *core) forward(now time.Time, from, to *spoke, frame []byte) {
	if at, ok := from.up.pass(now, len(frame)); ok {
		c.schedule.put(held{at: at, frame: copyOf(frame), then: to})
	}
}

// arrive sends a packet down the line that it takes.
func (c *core) arrive(now time.Time, to *spoke, frame *[]byte) {
	at, ok := to.down.pass(now, len(*frame))
	p, valid := parse((*frame)[frameHeader:])
	if !ok || !valid {
		frames.Put(frame)
		return
	}
	c.seen(at, to.name, false, p)
	b := *frame
	copy(b, to.port.header[:12])
	ether := uint16(etherIPv4)
	if p.To.Addr().Is6() {
		ether = etherIPv6
	}
	b[12], b[13] = byte(ether>>8), byte(ether)
	c.schedule.put(held{at: at, frame: frame, out: to.port})
}

// wire passes a frame through a link inside a home.
func (c *core) wire(s *spoke, up bool, frame []byte) {
	now := time.Now()
	l, out := s.down, s.port
	if up {
		l, out = s.up, s.through
	}
	if p, ok := parse(frame[frameHeader:]); ok {
		c.seen(now, s.name, up, p)
	}
	if at, ok := l.pass(now, len(frame)); ok {
		c.schedule.put(held{at: at, frame: copyOf(frame), out: out})
	}
}

func (c *core) seen(when time.Time, link string, toCore bool, p Packet) {
	if t := c.tap.Load(); t != nil {
		(*t)(when, link, toCore, p)
	}
}

func (c *core) blocked(p Packet) bool {
	for _, f := range *c.filters.Load() {
		if f.drop(p) {
			return true
		}
	}
	return false
}

// block drops what the filter says, until the returned function is called.
func (c *core) block(drop func(Packet) bool) (unblock func()) {
	f := &filter{drop}
	change := func(edit func([]*filter) []*filter) {
		c.mu.Lock()
		defer c.mu.Unlock()
		next := edit(append([]*filter(nil), *c.filters.Load()...))
		c.filters.Store(&next)
	}
	change(func(all []*filter) []*filter { return append(all, f) })
	return func() {
		change(func(all []*filter) []*filter {
			out := all[:0]
			for _, g := range all {
				if g != f {
					out = append(out, g)
				}
			}
			return out
		})
	}
}

// close ends all reading and sending.
func (c *core) close() {
	c.mu.Lock()
	for _, s := range c.spokes {
		s.port.close()
		if s.through != nil {
			s.through.close()
		}
	}
	c.mu.Unlock()
	c.wg.Wait()
	c.schedule.close()
}
