package conform

import (
	"net/netip"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// stream is a TCP connection of segments made by hand, opened from inside. It
// keeps count of what was sent, for boxes that look at windows.
type stream struct {
	suite     *suite
	in, out   Host
	p, q      uint16
	mapped    netip.AddrPort // what the host outside sees
	seq, last [2]uint32      // of in and out: the next sequence number, and that of the last segment
}

const (
	ours   = 0
	theirs = 1
)

func (s *suite) newStream(in, out Host, q uint16) *stream {
	s.mark++
	first := s.mark << 12
	return &stream{suite: s, in: in, out: out, p: s.next(), q: q, seq: [2]uint32{first, first + 1<<31}}
}

// side is whose segment it is.
func side(inbound bool) int {
	if inbound {
		return theirs
	}
	return ours
}

// segment is the next one of a side.
func (c *stream) segment(inbound bool, flags natlab.TCPFlags) natlab.Segment {
	me := side(inbound)
	g := natlab.Segment{Seq: c.seq[me], Flags: flags}
	if flags&natlab.ACK != 0 {
		g.Ack = c.seq[1-me]
	}
	return g
}

// send sends a segment from inside, or from outside to what the connection is
// mapped to.
func (c *stream) send(inbound bool, flags natlab.TCPFlags) {
	from, to, h := endpoint(c.in, c.p), endpoint(c.out, c.q), c.in
	if inbound {
		from, to, h = endpoint(c.out, c.q), c.mapped, c.out
	}
	c.last[side(inbound)] = c.seq[side(inbound)]
	check(h.SendIP(natlab.AppendTCP(nil, from, to, 64, c.segment(inbound, flags))))
	if flags&(natlab.SYN|natlab.FIN) != 0 {
		c.seq[side(inbound)]++
	}
}

// match matches the last segment that a side has sent.
func (c *stream) match(inbound bool, flags natlab.TCPFlags) func(Arrival) bool {
	return func(a Arrival) bool {
		g, ok := a.Segment()
		from := endpoint(c.out, c.q)
		if !inbound {
			from = a.From
		}
		return ok && g.Flags == flags && g.Seq == c.last[side(inbound)] && a.From == from
	}
}

// goes sends a segment and reports whether it arrives.
func (c *stream) goes(inbound bool, flags natlab.TCPFlags) bool {
	to := c.out
	if inbound {
		to = c.in
		if !c.mapped.IsValid() {
			return false
		}
	}
	// Which segment it is, is known once it is sent.
	match := func(a Arrival) bool { return c.match(inbound, flags)(a) }
	a, ok := c.suite.arrives(to, func() { c.send(inbound, flags) }, match)
	if ok && !inbound {
		c.mapped = a.From
	}
	return ok
}

// open shakes hands.
func (c *stream) open() bool {
	return c.goes(false, natlab.SYN) && c.goes(true, natlab.SYN|natlab.ACK) && c.goes(false, natlab.ACK)
}

func (s *suite) measureTCP(m *TCP) {
	m.PassesTo443 = s.newStream(s.in[0], s.out[0], openPort).open()
	if m.Passes = s.newStream(s.in[0], s.out[0], s.next()).open(); !m.Passes {
		return
	}
	m.Mapping = max(s.mappingTCP(), s.mappingTCP())
	m.Filtering = s.filteringTCP(m.Mapping)
	m.Refusal = s.refusalTCP(m.Mapping)
	m.SimultaneousOpen = s.simultaneousOpen()
	m.Loose = s.loose()
}

// mappingTCP sends SYNs from one port to three endpoints.
func (s *suite) mappingTCP() nat.Behavior {
	first := s.newStream(s.in[0], s.out[0], s.next())
	first.goes(false, natlab.SYN)
	seen := func(h Host, q uint16) netip.AddrPort {
		c := s.newStream(s.in[0], h, q)
		c.p = first.p
		c.goes(false, natlab.SYN)
		return c.mapped
	}
	return mappingOf(endpoint(s.in[0], first.p), first.mapped, seen(s.out[0], s.next()), seen(s.out[1], first.q))
}

// filteringTCP is who may send a SYN to a mapping (RFC 5382 §4.2).
func (s *suite) filteringTCP(mapping nat.Behavior) nat.Behavior {
	asks := func(h Host, q uint16, to netip.AddrPort) bool {
		c := s.newStream(s.in[0], h, q)
		c.mapped = to
		return c.goes(true, natlab.SYN)
	}
	if mapping == nat.None && asks(s.out[1], s.next(), endpoint(s.in[0], s.next())) {
		return nat.None
	}
	c := s.newStream(s.in[0], s.out[0], s.next())
	if !c.open() {
		return nat.Unknown
	}
	switch {
	case asks(s.out[1], s.next(), c.mapped):
		return nat.EndpointIndependent
	case asks(s.out[0], s.next(), c.mapped):
		return nat.AddressDependent
	}
	return nat.AddressAndPortDependent
}

// refusalTCP is what answers an unsolicited SYN (RFC 5382 §4.3). That one is held
// for six seconds is seen only in virtual time.
func (s *suite) refusalTCP(mapping nat.Behavior) natlab.Refusal {
	c := s.newStream(s.in[0], s.out[1], s.next())
	c.mapped = s.unsolicited(mapping != nat.None)
	answer := func(a Arrival) bool {
		g, ok := a.Segment()
		return isUnreachable(a) || ok && g.Flags&natlab.RST != 0 && a.From == c.mapped && a.To.Port() == c.q
	}
	n := len(c.out.Arrived())
	a, answered := s.arrives(c.out, func() { c.send(true, natlab.SYN) }, answer)
	switch {
	case answered && a.Protocol == natlab.ProtocolTCP:
		return natlab.RefuseWithReset
	case answered:
		return natlab.RefuseWithError
	case !s.lab.Virtual():
		return natlab.RefuseSilently
	}
	const held = 6 * time.Second // RFC 5382 REQ-4
	s.wait(held)
	if _, late := arrival(c.out, n, isUnreachable); late {
		return natlab.RefuseLate
	}
	return natlab.RefuseSilently
}

// simultaneousOpen has both ends send a SYN (RFC 5382 REQ-2).
func (s *suite) simultaneousOpen() bool {
	c := s.newStream(s.in[0], s.out[0], s.next())
	return c.goes(false, natlab.SYN) && c.goes(true, natlab.SYN)
}

// loose sends a segment of a connection that the box has not seen opened, and
// reports whether the answer comes back.
func (s *suite) loose() bool {
	c := s.newStream(s.in[0], s.out[0], s.next())
	return c.goes(false, natlab.ACK) && c.goes(true, natlab.ACK)
}
