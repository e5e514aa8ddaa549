package conform

import (
	"slices"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

// Expect is what must be measured of boxes in series, given from the inside out.
func Expect(chain []natlab.NAT) (m Measured) {
	c := boxes(chain)
	outer := c[len(c)-1]
	m.UDP = c.udp(outer)
	if m.UDP.Passes && m.UDP.Mapping != nat.None {
		m.Ports = c.ports(outer)
	}
	m.TCP = c.tcp()
	m.ICMP = c.icmp(outer)
	if m.IPv6.Passes = m.UDP.Passes; m.UDP.Passes {
		m.IPv6.Filtering = m.UDP.Filtering
	}
	if m.UDP.Passes {
		m.Rest = c.rest()
	}
	m.Times = c.times(m)
	return m
}

// boxes are boxes in series: the strictest of them shows.
type boxes []natlab.NAT

func (c boxes) any(f func(natlab.NAT) bool) bool { return slices.ContainsFunc(c, f) }

func (c boxes) all(f func(natlab.NAT) bool) bool {
	return !c.any(func(n natlab.NAT) bool { return !f(n) })
}

// most is the strictest behaviour, None at least.
func (c boxes) most(f func(natlab.NAT) nat.Behavior) nat.Behavior {
	b := nat.None
	for _, n := range c {
		b = max(b, f(n))
	}
	return b
}

// least is the shortest time that any box has for something.
func (c boxes) least(f func(natlab.NAT) time.Duration) time.Duration {
	d := Never
	for _, n := range c {
		if tracks(n) {
			d = min(d, f(n))
		}
	}
	return d
}

func tracks(n natlab.NAT) bool { return n.Mapping > nat.None || n.Filtering > nat.None }

func masquerades(n natlab.NAT) bool {
	return n.Conntrack && n.Mapping == nat.EndpointIndependent
}

func (c boxes) udp(outer natlab.NAT) (m UDP) {
	if m.Passes = !c.any(func(n natlab.NAT) bool { return n.Block.UDP }); !m.Passes {
		return m
	}
	m.Mapping = c.most(mapping)
	m.Filtering = c.most(func(n natlab.NAT) nat.Behavior { return n.Filtering })
	if n := c.guard(); answersStrangers(n) {
		m.Refusal = n.UDP.Refusal
	}
	// A mapping of its own for the other host inside is a stranger's to it.
	if m.Mapping == nat.EndpointIndependent || m.Mapping > nat.None && m.Filtering == nat.EndpointIndependent {
		m.Hairpinning = outer.Hairpinning
	}
	m.EarlyPacketMoves = masquerades(outer) && outer.KeepsEarly && c.preserves()
	m.RebootForgets = tracks(outer)
	return m
}

// guard is the first box, as strangers see it, that lets not everybody in.
func (c boxes) guard() natlab.NAT {
	for _, n := range slices.Backward(c) {
		if tracks(n) {
			return n
		}
	}
	return natlab.NAT{}
}

// answersStrangers is whether what is not let in is for the box itself: Linux
// that does not translate forwards it, or drops it.
func answersStrangers(n natlab.NAT) bool {
	return tracks(n) && (n.Translates() || !n.Conntrack)
}

func (c boxes) preserves() bool {
	return c.all(func(n natlab.NAT) bool {
		if n.Conntrack {
			return n.Mapping != nat.AddressAndPortDependent
		}
		return n.Ports.Allocation == natlab.Preserving && n.Ports.BlockSize == 0
	})
}

func (c boxes) ports(outer natlab.NAT) (m Ports) {
	p := outer.Ports
	switch {
	case c.preserves():
		m.KeepsParity = true
	case p.Allocation == natlab.Sequential:
		m.Allocation, m.Delta, m.KeepsParity = natlab.Sequential, p.Delta, p.Parity
		if m.Delta == 0 {
			m.Delta = 1
		}
		if p.Parity && m.Delta%2 != 0 {
			m.Delta *= 2 // every other one is of the wrong parity
		}
		m.Others = oneDigit(outer.Busy)
	default:
		m.Allocation, m.KeepsParity = natlab.Random, p.Parity
	}
	m.SharedBySame, m.SharedElse = c.shared()
	m.Pooling = outer.Pooling
	if n := p.BlockSize; n > 0 && n < mostSessions {
		m.BlockSize, m.BlockStart = n, p.BlockStart
		if m.BlockStart == 0 {
			m.BlockStart = 1024
		}
		// The host inside the outermost box has the third address of its network.
		m.BlockStart += uint16(2 * n)
	}
	return m
}

// shared is whether two hosts with one port look like one to another, or to two:
// where the first box that hides them gives both the same port, and the rest see
// one host.
func (c boxes) shared() (bySame, otherwise bool) {
	first := slices.IndexFunc(c, natlab.NAT.Translates)
	if first < 0 {
		return false, false
	}
	bySame = c[first].Ports.Overloading
	otherwise = (bySame || masquerades(c[first])) &&
		c.all(func(n natlab.NAT) bool { return mapping(n) <= nat.EndpointIndependent })
	return bySame, otherwise
}

func (c boxes) tcp() (m TCP) {
	m.Passes = !c.any(func(n natlab.NAT) bool { return n.Block.TCP })
	m.PassesTo443 = !c.any(func(n natlab.NAT) bool { return n.Block.TCP && n.Block.TCPBut != openPort })
	if !m.Passes {
		return m
	}
	m.Mapping, m.Filtering = c.most(mappingTCP), c.most(filteringTCP)
	if n := c.guard(); answersStrangers(n) {
		m.Refusal = n.TCP.Refusal
	}
	m.SimultaneousOpen = c.all(func(n natlab.NAT) bool { return !n.TCP.NoSimultaneousOpen || !tracks(n) })
	m.Loose = c.all(func(n natlab.NAT) bool { return n.TCP.Loose || !tracks(n) })
	return m
}

// mapping is how a box's mapping looks: where ports are kept though they are
// taken, there is nothing to tell several mappings of a port by.
func mapping(n natlab.NAT) nat.Behavior {
	if n.Ports.Overloading {
		return nat.EndpointIndependent
	}
	return n.Mapping
}

func mappingTCP(n natlab.NAT) nat.Behavior {
	if n.TCP.Mapping != nat.Unknown && !n.Ports.Overloading {
		return n.TCP.Mapping
	}
	return mapping(n)
}

func filteringTCP(n natlab.NAT) nat.Behavior {
	if n.TCP.Filtering != nat.Unknown {
		return n.TCP.Filtering
	}
	return n.Filtering
}

func (c boxes) icmp(outer natlab.NAT) (m ICMP) {
	if m.Passes = !c.any(func(n natlab.NAT) bool { return n.Block.ICMP }); !m.Passes {
		return m
	}
	m.TypeAgnostic = c.all(func(n natlab.NAT) bool { return n.ICMP.TypeAgnostic || !tracks(n) })
	m.StrangersReplies = c.all(func(n natlab.NAT) bool { return n.Filtering <= nat.EndpointIndependent })
	for _, n := range c {
		if tracks(n) {
			m.Errors = max(m.Errors, n.ICMP.Errors)
		}
	}
	if c.any(tracks) {
		m.Pings, m.Refusal = outer.ICMP.Pings, outer.ICMP.Refusal
	}
	// Where any type may begin a mapping, what does not belong to one begins it.
	m.Leaks = c.all(func(n natlab.NAT) bool {
		return !tracks(n) || n.Leaks && !n.ICMP.TypeAgnostic || n.ICMP.TypeAgnostic && !n.Translates()
	})
	return m
}

func (c boxes) rest() (m Rest) {
	m.Fragments = AnyOrder
	mended := false // what was reassembled is whole from there on, if it is small
	for _, n := range c {
		switch {
		case !tracks(n):
		case n.Fragments == natlab.FragmentsReassembled:
			mended, m.Rejoined = true, m.Fragments != Dropped
		case mended:
		case n.Fragments == natlab.FragmentsDropped:
			m.Fragments = Dropped
		case m.Fragments == AnyOrder:
			m.Fragments = InOrder
		}
	}
	host, box := mostSessions, 2*mostSessions
	for i, n := range c {
		least := func(x *int, limit int) {
			if limit > 0 {
				*x = min(*x, limit)
			}
		}
		least(&box, n.Limits.Box)
		least(&host, n.Limits.Box)
		least(&host, n.Limits.Host)
		perHost := n.Limits.Host
		if n.Mapping == nat.AddressAndPortDependent && n.Ports.BlockSize > 0 {
			least(&host, n.Ports.BlockSize)
			perHost = n.Ports.BlockSize
		}
		if i > 0 {
			least(&box, perHost) // both are one host to it
		}
	}
	if box = min(box, 2*host); box < 2*mostSessions {
		m.BothSessions = box
	}
	if host < mostSessions {
		m.HostSessions = host
	}
	return m
}

// times are the shortest of any box.
func (c boxes) times(seen Measured) (m Times) {
	if seen.UDP.Passes && seen.UDP.Filtering != nat.None {
		m.UDPUnreplied = c.least(func(n natlab.NAT) time.Duration { return or(n, n.UDP.Unreplied, 5*time.Minute, 30*time.Second) })
		replied := func(n natlab.NAT) time.Duration { return or(n, n.UDP.Replied, 5*time.Minute, 2*time.Minute) }
		m.UDPReplied = c.least(replied)
		refreshedBy := func(r natlab.Refresh) bool {
			return c.all(func(n natlab.NAT) bool {
				slow := replied(n) > m.UDPReplied*12/10 // another box was faster
				return !tracks(n) || slow || n.Conntrack || n.UDP.Refresh == r || n.UDP.Refresh == natlab.RefreshBoth
			})
		}
		m.UDPRefreshOut, m.UDPRefreshIn = refreshedBy(natlab.RefreshOutbound), refreshedBy(natlab.RefreshInbound)
	}
	if seen.TCP.Passes && seen.TCP.Filtering != nat.None {
		m.TCPTransitory = c.least(func(n natlab.NAT) time.Duration { return transitory(n, 2*time.Minute) })
		m.TCPEstablished = c.least(established)
		m.TCPAfterReset = c.least(func(n natlab.NAT) time.Duration {
			return after(n, n.TCP.OnReset, or(n, n.TCP.Transitory, 4*time.Minute, 10*time.Second))
		})
		m.TCPAfterFIN = c.least(func(n natlab.NAT) time.Duration { return after(n, n.TCP.OnFIN, transitory(n, 2*time.Minute)) })
	}
	if seen.ICMP.Passes && !seen.ICMP.StrangersReplies {
		m.ICMPQuery = c.least(func(n natlab.NAT) time.Duration { return or(n, n.ICMP.Timeout, time.Minute, 30*time.Second) })
	}
	return m
}

// or is a time, or what the RFCs or the kernel have where none is set.
func or(n natlab.NAT, d, rfc, kernel time.Duration) time.Duration {
	switch {
	case d != 0:
		return d
	case n.Conntrack:
		return kernel
	}
	return rfc
}

// unacked is as long as Linux waits at the most for the other side to acknowledge.
const unacked = 5 * time.Minute

// transitory is how long a SYN or FIN leaves a connection that nobody answers.
func transitory(n natlab.NAT, kernel time.Duration) time.Duration {
	d := or(n, n.TCP.Transitory, 4*time.Minute, kernel)
	if n.Conntrack {
		d = min(d, unacked)
	}
	return d
}

func established(n natlab.NAT) time.Duration {
	return or(n, n.TCP.Established, 2*time.Hour+4*time.Minute, 5*24*time.Hour)
}

// after is how long a connection lives that was reset or closed from inside.
func after(n natlab.NAT, what natlab.Closing, closing time.Duration) time.Duration {
	switch what {
	case natlab.CloseAtOnce:
		return 0
	case natlab.CloseIgnored:
		return established(n)
	case natlab.CloseTransitory:
	}
	return closing
}
