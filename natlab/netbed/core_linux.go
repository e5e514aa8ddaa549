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
	s, err := newScheduler()
	if err != nil {
		return nil, err
	}
	c := &core{schedule: s}
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
	if !ok {
		return
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
			p, _ = parse(frame[frameHeader:])
			c.forward(now, from, from, frame, p)
		}
		return
	}
	for _, r := range *c.routes.Load() {
		if r.to.Contains(p.To.Addr()) {
			c.forward(now, from, r.via, frame, p)
			return
		}
	}
}

// forward sends a packet up one line and down the other.
func (c *core) forward(now time.Time, from, to *spoke, frame []byte, p Packet) {
	at, ok := from.up.pass(now, len(frame))
	if !ok {
		return
	}
	if at, ok = to.down.pass(at, len(frame)); !ok {
		return
	}
	c.seen(at, to.name, false, p)
	copy(frame, to.port.header[:12])
	ether := uint16(etherIPv4)
	if p.To.Addr().Is6() {
		ether = etherIPv6
	}
	frame[12], frame[13] = byte(ether>>8), byte(ether)
	c.schedule.put(at, frame, to.port)
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
		c.schedule.put(at, frame, out)
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
