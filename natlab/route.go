package natlab

import "net/netip"

// core is the Internet: one router between the links of those who are on it.
type core struct{ routes []route }

type route struct {
	to  netip.Prefix
	via *site
}

// lead makes a site's networks reachable.
func (c *core) lead(s *site) {
	for _, a := range s.place.Addr {
		if a.IsValid() {
			c.routes = append(c.routes, route{a.Masked(), s})
		}
	}
	for _, p := range s.place.Routed {
		c.routes = append(c.routes, route{p, s})
	}
}

// find is the site that leads to an address, nil if none does.
func (c *core) find(a netip.Addr) *site {
	for i := range c.routes {
		if c.routes[i].to.Contains(a) {
			return c.routes[i].via
		}
	}
	return nil
}

// coreEnd is where a site's link reaches the core.
type coreEnd struct{ from *site }

// receive routes a packet: what a line did to it before does not depend on where
// it goes, and the line that it takes next does not know when it was sent.
func (e *coreEnd) receive(f *Fabric, at int64, p *Frame) {
	packet, ok := f.parse(p)
	if !ok {
		p.Release()
		return
	}
	for _, drop := range f.filters {
		if (*drop)(packet) {
			if f.observed() {
				f.show(at, p, Event{What: Blocked, Where: coreName})
			}
			p.Release()
			return
		}
	}
	router := e.from.place.Gateway[family(packet.From.Addr())]
	if !Age(packet.Data) {
		f.refuse(at, p, coreName, "TTL used up", e.from.down, AppendTimeExceeded(nil, router, packet))
		return
	}
	to := f.core.find(packet.To.Addr())
	if to == nil {
		f.refuse(at, p, coreName, "no route", e.from.down, AppendUnreachable(nil, NetUnreachable, router, packet))
		return
	}
	f.enter(at, to.down, p)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// refuse drops a packet in a router, and sends back the answer, if there is one
// and a way.
func (f *Fabric) refuse(at int64, p *Frame, where, reason string, back *line, answer []byte) {
	f.drop(at, p, where, reason)
	if answer != nil && back != nil {
		f.answer(at, p.id, where, back, answer)
	}
	p.Release()
}

// drop shows that a router does not pass on a packet.
func (f *Fabric) drop(at int64, p *Frame, where, reason string) {
	if f.observed() {
		f.show(at, p, Event{What: Dropped, Where: where, Reason: reason})
	}
}

// answer sends a packet that a router made because of another one.
func (f *Fabric) answer(at int64, of uint64, where string, l *line, ip []byte) {
	f.frameID++
	p := f.wrap(f.frameID, ip)
	if f.observed() {
		f.show(at, p, Event{What: Answered, Where: where, Of: of})
	}
	f.enter(at, l, p)
}

// wrap is a frame of an IP packet that is no longer than MaxPacket.
func (f *Fabric) wrap(id uint64, ip []byte) *Frame {
	p := newFrame(id, f.header+len(ip))
	copy(p.data[f.header:], ip)
	return p
}
