package node

import (
	"net/netip"
	"time"

	"bodkin/internal/path"
	"bodkin/nat"
	"bodkin/punch"
)

// measuring is what finds out which NAT the node is behind, beside everything else:
// on sockets of its own, against the server's endpoints. Nothing waits for it.
type measuring struct {
	measurement *nat.Measurement // nil: not begun
	next        time.Time
	sockets     map[punch.Local]nat.Socket
	locals      map[nat.Socket]punch.Local
	report      nat.Report
	recount     time.Time // when the last port of a NAT that counts is to be seen again
	lifetimes   time.Time // when to find out how long mappings live
}

// stays is how old a node is that will need to know how long mappings live: it costs
// some twenty of them.
const stays = time.Minute

// recountEvery is how old the last port of a NAT that counts may be; a bit less than
// the agent's keepalive, so that saying it is the keepalive.
const recountEvery = 14 * time.Second

// measure begins to measure, anew if it has begun before.
func (c *Core) measure() {
	c.endMeasuring()
	if c.cfg.Abilities == 0 || c.cfg.Profile != nil || len(c.servers) == 0 {
		return
	}
	var own []netip.Addr
	for _, l := range c.self.Links {
		own = append(own, l.Addr())
	}
	c.measuring = measuring{
		measurement: nat.NewMeasurement(nat.Config{Server: c.servers, Own: own, Rand: c.cfg.Rand}),
		sockets:     make(map[punch.Local]nat.Socket),
		locals:      make(map[nat.Socket]punch.Local),
	}
	c.stepMeasuring(nat.Input{Op: nat.Start})
}

func (c *Core) endMeasuring() {
	if c.measuring.measurement != nil {
		c.stepMeasuring(nat.Input{Op: nat.Stop})
		c.measuring = measuring{}
	}
}

// stepMeasuring steps the measurement and passes on what it wants.
func (c *Core) stepMeasuring(in nat.Input) {
	m := &c.measuring
	var out []nat.Action
	out, m.next = m.measurement.Step(c.now, in, nil)
	for _, a := range out {
		switch a.Op {
		case nat.Open:
			l := c.self.NewLocal(punch.UDP)
			m.sockets[l], m.locals[a.Socket] = a.Socket, l
			c.emit(Action{Op: Bind, By: path.Key{Local: l, To: anyPort(a.Is4)}})
		case nat.Close:
			l := m.locals[a.Socket]
			delete(m.sockets, l)
			delete(m.locals, a.Socket)
			c.emit(Action{Op: Unbind, By: path.Key{Local: l}})
		case nat.Send:
			c.emit(Action{Op: Send, By: path.Key{Local: m.locals[a.Socket], To: a.To}, TTL: a.TTL, Data: a.Data})
		case nat.Measured:
			c.measured(*a.Report)
		default: // inputs
		}
	}
}

// anyPort is what a socket of a family is bound to.
func anyPort(is4 bool) netip.AddrPort {
	if is4 {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

// measured takes in what became known. Peers are told through the server; one that
// we have no hole to is tried again if there are other tactics now.
func (c *Core) measured(r nat.Report) {
	before, now := c.self.Side.Profile, r.Profile
	complete := c.measuring.report.Complete
	c.measuring.report, c.measuring.recount = r, time.Time{}
	if now.Ports.Allocation == nat.Sequential && now.Mapping >= nat.AddressDependent {
		c.measuring.recount = c.now.Add(recountEvery)
	}
	if r.Complete && !complete {
		c.measuring.lifetimes = c.now.Add(stays)
	}
	if r.Lifetime.Known() {
		c.self.Keepalive = keepalive(r.Lifetime.Value)
		c.agent.SetKeepalive(min(c.self.Keepalive, maxServerKeepalive))
	}
	c.emit(Action{Op: Measured, Report: &r})
	if now == before {
		return
	}
	c.self.Side.Profile = now
	c.keepReserve()
	c.describe()
	c.measureTCP()
	c.all(path.Input{
		// The measurement takes ports of a sequence itself, until it is complete.
		Op: path.ProfileChanged, Again: r.Complete && !complete && !c.measuring.recount.IsZero(),
	})
}

const (
	// What holds a mapping is sent no more seldom and no more often than this,
	// whatever was measured: the peer's NAT may forget sooner, and a peer that is
	// gone should be missed.
	minKeepalive, maxKeepalive = 5 * time.Second, time.Minute
	// maxServerKeepalive leaves room for a lost Refresh within the 60 s for which
	// a server keeps a registration.
	maxServerKeepalive = 25 * time.Second
)

// keepalive is how often to send something so that a mapping lives, by how long one
// lives that is not used: 0 if that is not known.
func keepalive(lives nat.Span) time.Duration {
	switch {
	case lives.AtLeast > 0:
		return min(max(lives.AtLeast*2/3, minKeepalive), maxKeepalive)
	case lives.Below > 0:
		return min(max(lives.Below/3, minKeepalive), maxKeepalive)
	default:
		return 0
	}
}

// age keeps true how long ago the last port of a NAT that counts was seen.
func (c *Core) age() {
	if !c.measuring.recount.IsZero() {
		c.self.Side.Profile = c.measuring.report.ProfileAt(c.now)
	}
}

// tickMeasuring does what the measurement has to do by now.
func (c *Core) tickMeasuring() {
	m := &c.measuring
	if m.measurement == nil {
		return
	}
	if !m.recount.IsZero() && !c.now.Before(m.recount) {
		m.recount = c.now.Add(recountEvery)
		c.stepMeasuring(nat.Input{Op: nat.Recount})
	}
	if !m.lifetimes.IsZero() && !c.now.Before(m.lifetimes) {
		m.lifetimes = time.Time{}
		c.stepMeasuring(nat.Input{Op: nat.StudyLifetime})
	}
	if m.measurement != nil && !m.next.IsZero() && !c.now.Before(m.next) {
		c.stepMeasuring(nat.Input{Op: nat.Tick})
	}
}
