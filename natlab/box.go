package natlab

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// box is a router with a NAT or firewall: a switch inside, a translator between
// there and its link outward.
type box struct {
	name    string
	site    *site
	nat     *Translator
	outside []netip.Addr // its addresses outside, an IPv4 one first
	unused  []netip.Addr // those that it has not had yet
	routes  []route      // to what is inside; a host is a whole address
	sent    []Sent       // memory
	due     int64        // when the translator wants to be called, if at all
}

func newBox(b Box, s *site, inside []netip.Prefix, seed uint64) *box {
	n := max(b.Addresses, 1)
	x := &box{
		name: b.Name, site: s,
		outside: append([]netip.Addr{s.place.Addr[0].Addr()}, s.place.More[:n-1]...),
		unused:  s.place.More[n-1:],
	}
	if a := s.place.Addr[1].Addr(); a.IsValid() {
		x.outside = append(x.outside, a)
	}
	x.nat = b.Does().Translator(x.outside, inside, chance(seed, "box "+b.Name))
	return x
}

// reboot makes the box forget everything it knew of others. With another, its
// first address outside becomes one that it never had.
func (b *box) reboot(f *Fabric, another bool) error {
	if another {
		if len(b.unused) == 0 {
			return fmt.Errorf("box %q: no address left that it never had", b.name)
		}
		b.outside, b.unused = append([]netip.Addr{b.unused[0]}, b.outside[1:]...), b.unused[1:]
		place := &b.site.place
		place.Addr[0] = netip.PrefixFrom(b.outside[0], place.Addr[0].Bits())
	}
	b.nat.Reboot(f.time(f.late), b.outside)
	b.plan(f, f.late)
	return nil
}

// lead makes the networks of a site inside reachable.
func (b *box) lead(s *site) {
	for _, a := range s.place.Addr {
		if a.IsValid() {
			b.routes = append(b.routes, route{netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), s})
		}
	}
	for _, a := range s.place.More {
		b.routes = append(b.routes, route{netip.PrefixFrom(a, 32), s})
	}
	for _, p := range s.place.Routed {
		b.routes = append(b.routes, route{p, s})
	}
}

// find is the site inside that leads to an address, nil if none does.
func (b *box) find(a netip.Addr) *site {
	i := slices.IndexFunc(b.routes, func(r route) bool { return r.to.Contains(a) })
	if i < 0 {
		return nil
	}
	return b.routes[i].via
}

// onLAN reports whether an address is of the network inside.
func (b *box) onLAN(a netip.Addr) bool {
	p := b.site.place.LAN[family(a)]
	return p.IsValid() && p.Contains(a)
}

// insideEnd is where links reach the box from inside.
type insideEnd struct{ box *box }

// receive switches a packet inside, routes it inside, or lets it out.
func (e *insideEnd) receive(f *Fabric, at int64, p *Frame) {
	b := e.box
	packet, ok := f.parse(p)
	if !ok {
		p.Release()
		return
	}
	to, self := packet.To.Addr(), b.site.place.LAN[family(packet.To.Addr())].Addr()
	via := b.find(to)
	switch {
	case to == self:
		f.toRouter(at, p, b.name, b.back(packet), packet)
	case via != nil && b.onLAN(to):
		f.enter(at, via.down, p) // a switch ages nothing
	case !Age(packet.Data):
		f.refuse(at, p, b.name, "TTL used up", b.back(packet), AppendTimeExceeded(nil, self, packet))
	case via != nil:
		f.enter(at, via.down, p)
	case b.onLAN(to):
		f.refuse(at, p, b.name, "nobody there", b.back(packet), AppendUnreachable(nil, HostUnreachable, self, packet))
	default:
		b.translate(f, at, Inside, p, packet)
	}
}

// back is the line to who sent a packet from inside; nil if nobody can have.
func (b *box) back(p Packet) *line {
	if s := b.find(p.From.Addr()); s != nil {
		return s.down
	}
	return nil
}

// outsideEnd is where the box's own link reaches it.
type outsideEnd struct{ box *box }

// receive lets a packet in, or not.
func (e *outsideEnd) receive(f *Fabric, at int64, p *Frame) {
	packet, ok := f.parse(p)
	if !ok {
		p.Release()
		return
	}
	e.box.translate(f, at, Outside, p, packet)
}

// translate gives a packet to the translator, and sends what that says.
func (b *box) translate(f *Fabric, at int64, from Side, p *Frame, packet Packet) {
	was := packet
	if from == Inside || packet.TTL > 1 {
		was.Data = nil
	} else {
		was.Data = slices.Clone(packet.Data) // to be quoted
	}
	var verdict Verdict
	b.sent, verdict = b.nat.Translate(f.now(at), from, packet.Data, b.sent[:0])
	passed := false
	for _, s := range b.sent {
		frame := f.wrap(p.id, s.Data)
		now, ok := f.parse(frame)
		switch {
		case !ok:
			frame.Release()
		case s.Own:
			b.answer(f, at, p.id, s.To, frame, now)
		default:
			passed = true
			b.pass(f, at, from, s.To, verdict, frame, was, now)
		}
	}
	if !passed && f.observed() {
		f.show(at, p, Event{What: Dropped, Where: b.name, Verdict: verdict, Reason: string(verdict.Reason)})
	}
	p.Release()
	b.plan(f, at)
}

// plan has the translator called again when it wants to be.
func (b *box) plan(f *Fabric, at int64) {
	b.sent = b.sent[:0]
	var next time.Time
	b.sent, next = b.nat.Tick(f.now(at), b.sent)
	f.ticks = slices.DeleteFunc(f.ticks, func(x *box) bool { return x == b })
	for _, s := range b.sent {
		frame := f.wrap(0, s.Data)
		if now, ok := f.parse(frame); ok {
			b.answer(f, at, 0, s.To, frame, now)
		}
	}
	if next.IsZero() {
		return
	}
	b.due = int64(next.Sub(f.base))
	i := slices.IndexFunc(f.ticks, func(x *box) bool { return x.due > b.due })
	if i < 0 {
		i = len(f.ticks)
	}
	f.ticks = slices.Insert(f.ticks, i, b)
}

// answer sends a packet that the box made itself.
func (b *box) answer(f *Fabric, at int64, of uint64, to Side, p *Frame, packet Packet) {
	f.frameID++
	p.id = f.frameID
	if f.observed() {
		f.show(at, p, Event{What: Answered, Where: b.name, Of: of})
	}
	b.send(f, at, to, p, packet)
}

// pass sends on a packet that was let through, and ages one from outside: those
// from inside have been, before they made a mapping.
func (b *box) pass(f *Fabric, at int64, from, to Side, verdict Verdict, p *Frame, was, now Packet) {
	if from == Outside && to == Inside && !Age(now.Data) {
		router := b.site.place.Addr[family(was.From.Addr())].Addr()
		f.refuse(at, p, b.name, "TTL used up", b.site.up, AppendTimeExceeded(nil, router, was))
		return
	}
	if f.observed() {
		was.Data = nil
		f.show(at, p, Event{What: Translated, Where: b.name, Was: was, Verdict: verdict})
	}
	b.send(f, at, to, p, now)
}

// send sends a packet out, or to whom it is for inside.
func (b *box) send(f *Fabric, at int64, to Side, p *Frame, packet Packet) {
	if to == Outside {
		f.enter(at, b.site.up, p)
		return
	}
	if via := b.find(packet.To.Addr()); via != nil {
		f.enter(at, via.down, p)
		return
	}
	f.drop(at, p, b.name, "nobody there")
	p.Release()
}

// toRouter answers a packet for a router itself: it answers pings, and serves
// nothing.
func (f *Fabric) toRouter(at int64, p *Frame, where string, back *line, packet Packet) {
	if reply, ok := echoReply(packet); ok && back != nil {
		f.answer(at, p.id, where, back, reply)
		p.Release()
		return
	}
	f.refuse(at, p, where, "serves nothing", back, AppendUnreachable(nil, PortUnreachable, packet.To.Addr(), packet))
}
