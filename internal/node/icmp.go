package node

import (
	"io"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/punch"
)

// icmp is what a node does with its sockets for ICMP, beside giving them to punch: it
// asks the server with which identifier its echo requests arrive.
type icmp struct {
	sockets []path.LocalSocket
	asks    []echoAsk
	next    time.Time
}

// echoAsk is a request that asks the server, by one socket.
type echoAsk struct {
	by    path.Key
	id    wire.TransactionID
	tries int
	seen  netip.AddrPort // where the server saw it
}

const (
	// echoTries are the requests to a server that may not speak ICMP, echoPause the
	// time between them.
	echoTries = 3
	echoPause = 500 * time.Millisecond
	// echoPadding makes a request longer than its answer.
	echoPadding = 32
)

// punchesByICMP reports whether sockets for ICMP are of use.
func (c *Core) punchesByICMP() bool { return c.cfg.Abilities.Carries(punch.ICMP) }

// gatherICMP adds the sockets for ICMP, and the identifiers that we ask with: our own, and
// what the server saw.
func (c *Core) gatherICMP() {
	if !c.punchesByICMP() {
		return
	}
	c.self.Sockets = append(c.self.Sockets, c.icmp.sockets...)
	for _, s := range c.icmp.sockets {
		if s.Local.Way() != punch.Ask {
			continue
		}
		own := slices.IndexFunc(c.self.Links, func(p netip.Prefix) bool { return p.Addr().Is4() == s.Bound.Addr().Is4() })
		if own >= 0 {
			c.self.Side.Candidates = append(c.self.Side.Candidates, punch.Candidate{
				Kind: punch.Host, Transport: punch.ICMP, Endpoint: netip.AddrPortFrom(c.self.Links[own].Addr(), s.Bound.Port()),
			})
		}
	}
	for _, a := range c.icmp.asks {
		if a.seen.IsValid() {
			c.self.Side.Candidates = append(c.self.Side.Candidates, punch.Candidate{
				Kind: punch.ServerReflexive, Transport: punch.ICMP, Endpoint: a.seen,
			})
		}
	}
}

// askEcho begins to ask the server, anew if it has begun before.
func (c *Core) askEcho() {
	c.icmp.asks, c.icmp.next = nil, time.Time{}
	if !c.punchesByICMP() {
		return
	}
	for _, s := range c.icmp.sockets {
		for _, e := range c.servers {
			if s.Local.Way() != punch.Ask || s.Bound.Addr().Is4() != e.Addr().Is4() {
				continue
			}
			a := echoAsk{by: path.Key{Local: s.Local, To: netip.AddrPortFrom(e.Addr(), s.Bound.Port())}}
			if _, err := io.ReadFull(c.cfg.Rand, a.id[:]); err != nil {
				return
			}
			c.icmp.asks = append(c.icmp.asks, a)
			c.icmp.next = c.now
		}
	}
	c.tickICMP()
}

// tickICMP asks what nothing has answered yet.
func (c *Core) tickICMP() {
	if c.icmp.next.IsZero() || c.now.Before(c.icmp.next) {
		return
	}
	c.icmp.next = time.Time{}
	for i := range c.icmp.asks {
		a := &c.icmp.asks[i]
		if a.seen.IsValid() || a.tries == echoTries {
			continue
		}
		a.tries++
		c.icmp.next = c.now.Add(echoPause)
		c.emit(Action{Op: Send, By: a.by, Data: wire.BindingRequest{ID: a.id, Padding: echoPadding}.Append(nil)})
	}
}

// seenAs takes the server's answer in, and reports whether the packet was one, or our own
// request that the server's system sent back.
func (c *Core) seenAs(in Input) bool {
	i := slices.IndexFunc(c.icmp.asks, func(a echoAsk) bool { return a.by.To == in.By.To })
	if i < 0 {
		return false
	}
	m, err := wire.Decode(in.Data)
	if err != nil || m.TransactionID != c.icmp.asks[i].id {
		return false
	}
	answer, err := wire.ParseBindingAnswer(m)
	if err != nil || answer.Code != 0 {
		return wire.IsBindingRequest(in.Data)
	}
	if c.icmp.asks[i].seen == answer.Mapped {
		return true
	}
	c.icmp.asks[i].seen = answer.Mapped
	c.gather()
	c.all(path.Input{Op: path.CandidatesChanged})
	return true
}
