package conform

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/natlab"
)

// sentinel is a kind of packet that passes the boxes both ways: what it overtakes
// nowhere has arrived before it, or never will.
type sentinel struct {
	known bool
	tcp   bool // UDP is blocked
	ports [2][2]uint16
	outs  [2]uint16
}

// sentinelTime is for how long a sentinel is waited for. Nothing is measured by
// it.
const sentinelTime = 20 * time.Second

// settle returns when all that was sent before, and what boxes answered to it,
// has arrived. Packets keep their order on each link; so sentinels go from each
// host inside to each outside, back and out again, over the same links, and when
// the last of them are there nothing is on its way.
func (s *suite) settle() {
	if s.lab.Virtual() {
		s.lab.Until(nil, 0)
		return
	}
	if !s.sentinel.known {
		s.findSentinel()
	}
	if !s.round(sentinelTime) {
		panic(failure{errUnsettled})
	}
}

// findSentinel finds what passes.
func (s *suite) findSentinel() {
	x := &s.sentinel
	x.known = true
	for o := range 2 {
		x.outs[o] = s.listen(s.out[o])
		for i := range 2 {
			x.ports[i][o] = s.listen(s.in[i])
		}
	}
	// Half a second is only a choice: where UDP is late, TCP is taken.
	x.tcp = !s.round(500 * time.Millisecond)
}

// round sends sentinels to and fro.
func (s *suite) round(d time.Duration) bool {
	if s.sentinel.tcp {
		return s.roundTCP(d)
	}
	x := &s.sentinel
	data, seen := s.token(), [2][2]netip.AddrPort{}
	each := func(f func(i, o int)) {
		for i := range 2 {
			for o := range 2 {
				f(i, o)
			}
		}
	}
	// A source does not say whose sentinel it was; the data does.
	mine := func(stage, i, o int) []byte { return append(slices.Clip(data), byte(stage), byte(i), byte(o)) }
	from := s.marks()
	out := func(stage int) bool {
		each(func(i, o int) { check(s.in[i].Send(x.ports[i][o], endpoint(s.out[o], x.outs[o]), mine(stage, i, o))) })
		return s.lab.Until(func() bool {
			all := true
			each(func(i, o int) {
				a, ok := arrival(s.out[o], from[1][o], carries(mine(stage, i, o)))
				all, seen[i][o] = all && ok, a.From
			})
			return all
		}, d)
	}
	if !out(0) {
		return false
	}
	each(func(i, o int) { check(s.out[o].Send(x.outs[o], seen[i][o], mine(1, i, o))) })
	back := s.lab.Until(func() bool {
		all := true
		each(func(i, o int) {
			_, ok := arrival(s.in[i], from[0][i], carries(mine(1, i, o)))
			all = all && ok
		})
		return all
	}, d)
	return back && out(2)
}

// marks is how much has arrived at each host.
func (s *suite) marks() (n [2][2]int) {
	for i := range 2 {
		n[0][i], n[1][i] = len(s.in[i].Arrived()), len(s.out[i].Arrived())
	}
	return n
}

// openPort is the port of HTTPS, which is open where nothing else is.
const openPort = 443

// roundTCP is round with the three segments of a handshake, of connections that
// are forgotten.
func (s *suite) roundTCP(d time.Duration) bool {
	var all []*stream
	for i := range 2 {
		for o := range 2 {
			all = append(all, s.newStream(s.in[i], s.out[o], openPort))
		}
	}
	from := s.marks()
	await := func(inbound bool, flags natlab.TCPFlags) bool {
		return s.lab.Until(func() bool {
			for _, c := range all {
				h, n := c.out, from[1][s.indexOf(c.out, s.out)]
				if inbound {
					h, n = c.in, from[0][s.indexOf(c.in, s.in)]
				}
				a, ok := arrival(h, n, c.match(inbound, flags))
				if !ok {
					return false
				}
				if !inbound {
					c.mapped = a.From
				}
			}
			return true
		}, d)
	}
	for _, c := range all {
		c.send(false, natlab.SYN)
	}
	if !await(false, natlab.SYN) {
		return false
	}
	for _, c := range all {
		c.send(true, natlab.SYN|natlab.ACK)
	}
	if !await(true, natlab.SYN|natlab.ACK) {
		return false
	}
	for _, c := range all {
		c.send(false, natlab.ACK)
	}
	return await(false, natlab.ACK)
}

func (s *suite) indexOf(h Host, of [2]Host) int {
	if of[0] == h {
		return 0
	}
	return 1
}
