package natlab

import (
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Fabric is a topology at work: packets of hosts in, packets to hosts out. It has
// no I/O, clock or goroutine: time is an argument, and must not run backwards but
// by a little. The same inputs give the same outputs. It is not safe for
// concurrent use.
//
// Most tests want what is built on it: [Sim], [Live] or the package netbed.
type Fabric struct {
	header int
	base   time.Time
	ports  []*port
	byName map[string]*site
	core   core

	busy    lines
	turn    uint64
	frameID uint64
	ticks   []*box     // those that wait for a time, by it
	late    int64      // the latest event so far
	out     []Delivery // of the Step under way

	filters   []*func(Packet) bool
	observers []*Observer
	// overflowed counts packets that found a line with maxHeld in it.
	overflowed uint64
}

// FabricConfig says what a Fabric is of.
type FabricConfig struct {
	Topology Topology
	Start    time.Time // of its time
	// Header is how many bytes stand before each IP packet: room for the header
	// of the link that the caller leads it to. Pipes carry them along.
	Header int
	// Outer leaves the boxes to the caller. A box is a port like a host's then,
	// and its networks are behind it; the link of what is behind a box is a pipe
	// with a port at either end, Port and FarPort.
	Outer bool
}

// Port is where packets of a host enter and leave a Fabric.
type Port int

// Nowhere is the Port that there is none of.
const Nowhere Port = -1

// Delivery is a packet that leaves a Fabric. The receiver releases its Frame.
type Delivery struct {
	Port  Port
	Frame *Frame
}

// receiver is the end of a line.
type receiver interface {
	receive(f *Fabric, at int64, p *Frame)
}

// site is a box or host with its link outward.
type site struct {
	place     Place
	up, down  *line
	near, far Port
	box       *box
}

// port is the end of a line at the caller's.
type port struct {
	name string
	id   Port
	in   *line // where what the caller injects goes
	own  *line // to itself, for what a host sends to itself
	site *site
	pipe bool
}

// NewFabric builds a topology.
func NewFabric(c FabricConfig) (*Fabric, error) {
	if err := c.Topology.Check(); err != nil {
		return nil, err
	}
	if c.Header < 0 || c.Header > MaxHeader {
		return nil, fmt.Errorf("fabric: a header of %d bytes; %d is the most", c.Header, MaxHeader)
	}
	f := &Fabric{header: c.Header, base: c.Start, byName: make(map[string]*site)}
	places := c.Topology.Places()
	for i, place := range places {
		s := &site{place: place, near: Nowhere, far: Nowhere}
		f.byName[place.Name] = s
		if i < len(c.Topology.Boxes) && !c.Outer {
			b := c.Topology.Boxes[i]
			s.box = newBox(b, s, inside(place, places), c.Topology.Seed)
			f.join(s, c, b.Link)
			continue
		}
		s.near = f.addPort(s)
		f.join(s, c, c.Topology.link(i))
	}
	return f, nil
}

// link is that of the i-th place.
func (t Topology) link(i int) Link {
	if i < len(t.Boxes) {
		return t.Boxes[i].Link
	}
	return t.Hosts[i-len(t.Boxes)].Link
}

// join makes a site's link.
func (f *Fabric) join(s *site, c FabricConfig, link Link) {
	var inner, outer receiver
	outside := f.byName[s.place.Behind]
	switch {
	case outside == nil:
		outer = &coreEnd{s}
		f.core.lead(s)
	case outside.box != nil:
		outer = &insideEnd{outside.box}
		outside.box.lead(s)
	default:
		s.far = f.addPort(s)
		outer = f.ports[s.far]
		f.ports[s.near].pipe, f.ports[s.far].pipe = true, true
	}
	if s.box != nil {
		inner = &outsideEnd{s.box}
	} else {
		inner = f.ports[s.near]
	}
	s.up = newLine(c.Topology.Seed, s.place.Name, true, link, outer)
	s.down = newLine(c.Topology.Seed, s.place.Name, false, link, inner)
	if s.near != Nowhere {
		p := f.ports[s.near]
		p.in, p.own = s.up, newLine(c.Topology.Seed, s.place.Name, false, Link{}, p)
	}
	if s.far != Nowhere {
		f.ports[s.far].in = s.down
	}
}

func (f *Fabric) addPort(s *site) Port {
	p := &port{name: s.place.Name, id: Port(len(f.ports)), site: s}
	f.ports = append(f.ports, p)
	return p.id
}

// Port is where a host is attached, or with FabricConfig.Outer a box; Nowhere if
// there is none of that name.
func (f *Fabric) Port(name string) Port {
	if s := f.byName[name]; s != nil {
		return s.near
	}
	return Nowhere
}

// FarPort is the outer end of a pipe; Nowhere if there is none of that name.
func (f *Fabric) FarPort(name string) Port {
	if s := f.byName[name]; s != nil {
		return s.far
	}
	return Nowhere
}

// Place is where a box or host is; false if there is none of that name. A box
// that was given another address has it here.
func (f *Fabric) Place(name string) (Place, bool) {
	if s := f.byName[name]; s != nil {
		return s.place, true
	}
	return Place{}, false
}

// Inject takes a packet from a port, behind as many bytes as FabricConfig.Header
// says. They are copied.
func (f *Fabric) Inject(now time.Time, p Port, b []byte) {
	from := f.ports[p]
	f.frameID++
	frame, ok := copyFrame(f.frameID, b)
	if !ok {
		return
	}
	at := int64(now.Sub(f.base))
	if from.pipe {
		f.enter(at, from.in, frame)
		return
	}
	packet, ok := f.parse(frame)
	switch to := packet.To.Addr(); {
	case !ok || !to.IsGlobalUnicast():
		// What is for the link alone, such as multicast listener reports.
		frame.Release()
	case to == from.site.place.Addr[0].Addr() || to == from.site.place.Addr[1].Addr():
		f.hold(from.own, at, frame)
	default:
		f.enter(at, from.in, frame)
	}
}

// parse reads the packet in a frame.
func (f *Fabric) parse(p *Frame) (Packet, bool) { return ParsePacket(p.Bytes()[f.header:]) }

// enter sends a packet down a line at a time; the line may lose it.
func (f *Fabric) enter(at int64, l *line, p *Frame) {
	if l.duplicates() {
		if twin, ok := copyFrame(p.id, p.Bytes()); ok {
			f.pass(at, l, twin)
		}
	}
	f.pass(at, l, p)
}

func (f *Fabric) pass(at int64, l *line, p *Frame) {
	leaves, fate := l.pass(at, p.n-f.header)
	if f.observed() {
		e := Event{What: Entered, Where: l.name, Up: l.up}
		if fate == passes {
			e.Leaves = f.time(leaves)
		}
		f.show(at, p, e)
		if fate != passes {
			e.What = fate
			f.show(at, p, e)
		}
	}
	if fate != passes {
		p.Release()
		return
	}
	f.hold(l, leaves, p)
}

// hold keeps a packet on a line until its time.
func (f *Fabric) hold(l *line, at int64, p *Frame) {
	if l.len() >= maxHeld {
		f.overflowed++
		p.Release()
		return
	}
	f.turn++
	idle := l.len() == 0
	l.push(held{at, f.turn, p})
	switch {
	case idle:
		heap.Push(&f.busy, l)
	case l.first().turn == f.turn: // it overtook all
		heap.Fix(&f.busy, l.place)
	}
}

// atOnce bounds what Step returns: its caller sends that before it looks at what
// has become due meanwhile.
const atOnce = 32

// Step does what is due by now and appends the packets that leave, a few at a
// time. It wants to be called again at next, which is not after now where there
// is more; a zero next means that only an input matters.
func (f *Fabric) Step(now time.Time, out []Delivery) (deliveries []Delivery, next time.Time) {
	until := int64(now.Sub(f.base))
	f.out = out
	for limit := len(out) + atOnce; len(f.out) < limit; {
		at, ok := f.next()
		if !ok || at > until {
			break
		}
		f.late = max(f.late, at)
		if len(f.ticks) > 0 && f.ticks[0].due <= at {
			f.ticks[0].plan(f, at)
			continue
		}
		l := f.busy[0]
		h := l.pop()
		if l.len() == 0 {
			heap.Pop(&f.busy)
		} else {
			heap.Fix(&f.busy, 0)
		}
		l.to.receive(f, at, h.frame)
	}
	deliveries, f.out = f.out, nil
	return deliveries, f.Next()
}

// next is when the next thing happens; false if nothing is under way.
func (f *Fabric) next() (at int64, ok bool) {
	if len(f.busy) > 0 {
		at, ok = f.busy[0].first().at, true
	}
	if len(f.ticks) > 0 && (!ok || f.ticks[0].due < at) {
		at, ok = f.ticks[0].due, true
	}
	return at, ok
}

// Next is when Step has something to do, zero if nothing is under way.
func (f *Fabric) Next() time.Time {
	if at, ok := f.next(); ok {
		return f.time(at)
	}
	return time.Time{}
}

func (f *Fabric) time(at int64) time.Time { return f.base.Add(time.Duration(at)) }

// now is a time as boxes see it, for whom it does not run backwards.
func (f *Fabric) now(at int64) time.Time { return f.time(max(at, f.late)) }

// receive hands a packet to the caller.
func (p *port) receive(f *Fabric, at int64, frame *Frame) {
	if f.observed() {
		f.show(at, frame, Event{What: Delivered, Where: p.name})
	}
	f.out = append(f.out, Delivery{p.id, frame})
}

// SetLink changes what happens on the link of a box or host, to packets that
// enter it from now on.
func (f *Fabric) SetLink(name string, link Link) error {
	if err := link.Check(); err != nil {
		return fmt.Errorf("link of %q: %w", name, err)
	}
	s := f.byName[name]
	if s == nil {
		return fmt.Errorf("link of %q: there is no such box or host", name)
	}
	s.up.link, s.down.link = link, link
	return nil
}

// Reboot makes a box forget its mappings; with another it also has a public address
// that it never had.
func (f *Fabric) Reboot(box string, another bool) error {
	s := f.byName[box]
	if s == nil || s.box == nil {
		return fmt.Errorf("reboot of %q: there is no such box", box)
	}
	return s.box.reboot(f, another)
}

// Forward has a box pass what comes to a UDP or TCP port outside of it to an
// endpoint inside, as [Translator.Forward] says.
func (f *Fabric) Forward(box string, protocol uint8, port uint16, inside netip.AddrPort) error {
	s := f.byName[box]
	if s == nil || s.box == nil {
		return fmt.Errorf("forward of %q: there is no such box", box)
	}
	return s.box.nat.Forward(protocol, port, inside)
}

// Block drops what the function says of packets that come to the core, until
// unblock is called. The packet's data is the function's only until it returns.
func (f *Fabric) Block(drop func(Packet) bool) (unblock func()) {
	at := &drop
	f.filters = append(slices.Clone(f.filters), at)
	return func() {
		f.filters = slices.DeleteFunc(slices.Clone(f.filters), func(p *func(Packet) bool) bool { return p == at })
	}
}

// Between is a filter of UDP between two addresses, both ways, for Block.
func Between(a, b netip.Addr) func(Packet) bool {
	return func(p Packet) bool {
		x, y := p.From.Addr(), p.To.Addr()
		return p.Protocol == ProtocolUDP && (x == a && y == b || x == b && y == a)
	}
}

// Observe shows every event to the observer, until stop is called.
func (f *Fabric) Observe(o Observer) (stop func()) {
	at := &o
	f.observers = append(slices.Clone(f.observers), at)
	return func() {
		f.observers = slices.DeleteFunc(slices.Clone(f.observers), func(p *Observer) bool { return p == at })
	}
}

func (f *Fabric) observed() bool { return len(f.observers) > 0 }

// show completes an event about a packet and shows it.
func (f *Fabric) show(at int64, p *Frame, e Event) {
	packet, ok := f.parse(p)
	if !ok {
		return // no IP: a pipe's own business
	}
	e.Time, e.ID, e.Packet = f.time(at), p.id, packet
	for _, o := range f.observers {
		(*o)(e)
	}
}

// Overflowed is how many packets found a line full, against the topology's will:
// with that many on their way something is wrong.
func (f *Fabric) Overflowed() uint64 { return f.overflowed }
