package node

import (
	"io"
	"net/netip"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/punch"
)

// tcpMeasuring is how our NAT gives ports to TCP: connections to the server, one after
// the other, from ports of their own, each for one question. It takes place only where
// our NAT may be a hard one, and the server sees our TCP, since it may be needed.
type tcpMeasuring struct {
	asked bool
	id    wire.TransactionID
	made  []nat.Connection
	at    time.Time // when the latest was
}

// tcpStale is how old the last port of a sequence may be when somebody is introduced.
const tcpStale = 10 * time.Second

// measureTCP begins to measure, unless that is under way or of no use.
func (c *Core) measureTCP() {
	m := &c.measuringTCP
	if m.asked || !c.cfg.Abilities.Has(punch.ByTCP) || !c.hardTCP() {
		return
	}
	*m = tcpMeasuring{}
	c.askTCP()
}

// hardTCP reports whether our NAT may have another port for every destination.
func (c *Core) hardTCP() bool {
	switch p := c.self.Side.Profile; p.Mapping {
	case nat.AddressDependent, nat.AddressAndPortDependent:
		return len(c.self.Side.ObservedTCP) > 0
	case nat.Unknown:
	default:
		return false
	}
	for _, e := range c.self.Side.ObservedTCP {
		for _, p := range c.ports {
			if e.Addr().Is4() && p.Bound.Addr().Is4() && e.Port() != p.Bound.Port() {
				return true
			}
		}
	}
	return false
}

// askTCP asks by one more connection.
func (c *Core) askTCP() {
	m := &c.measuringTCP
	for _, s := range c.resolved.Streams {
		if s.TLS || !s.Addr.IsValid() || !s.Addr.Addr().Is4() {
			continue
		}
		if _, err := io.ReadFull(c.cfg.Rand, m.id[:]); err != nil {
			return
		}
		m.asked = true
		c.emit(Action{Op: AskTCP, By: path.Key{To: s.Addr}, Data: wire.BindingRequest{ID: m.id}.Append(nil)})
		return
	}
}

// seenTCP takes in what one connection told. Peers are told when that is enough.
func (c *Core) seenTCP(in Input) {
	m := &c.measuringTCP
	seen := mappedBy(in.Data, m.id)
	if m.asked = false; !seen.IsValid() {
		return
	}
	m.made, m.at = append(m.made, nat.Connection{Local: in.From.Port(), Seen: seen.Port(), At: c.now}), c.now
	if !nat.EnoughConnections(m.made) {
		c.askTCP()
		return
	}
	c.self.Side.TCP = nat.ProfileOfTCP(c.self.Side.Profile, m.made)
	c.describe()
	c.all(path.Input{Op: path.ProfileChanged, Again: c.self.Side.TCP.Ports.Allocation == nat.Sequential})
}

// mappedBy is the endpoint that an answer names; not valid if it is none.
func mappedBy(answer []byte, id wire.TransactionID) netip.AddrPort {
	msg, err := wire.Decode(answer)
	if err != nil || msg.TransactionID != id {
		return netip.AddrPort{}
	}
	a, err := wire.ParseBindingAnswer(msg)
	if err != nil || a.Code != 0 {
		return netip.AddrPort{}
	}
	return a.Mapped
}

// ageTCP keeps true how long ago the last port was seen.
func (c *Core) ageTCP() {
	if p := &c.self.Side.TCP.Ports; p.Allocation == nat.Sequential {
		p.Age = c.now.Sub(c.measuringTCP.at)
	}
}

// freshenTCP measures once more for somebody who was introduced, if the last port of a
// sequence is an old one.
func (c *Core) freshenTCP() {
	if p := c.self.Side.TCP.Ports; p.Allocation == nat.Sequential && p.Age > tcpStale {
		c.measureTCP()
	}
}
