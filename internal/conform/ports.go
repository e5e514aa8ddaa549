package conform

import (
	"math"
	"net/netip"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

func (s *suite) measurePorts(m *Ports, udp UDP) {
	if !udp.Passes || udp.Mapping == nat.None {
		return
	}
	s.measureAllocation(m)
	m.SharedBySame, m.SharedElse = true, true
	for range 2 { // ports chosen at random may be equal by chance
		m.SharedBySame = s.shared(s.out[0]) && m.SharedBySame
		m.SharedElse = s.shared(s.out[1]) && m.SharedElse
	}
	if s.lab.Virtual() {
		m.Pooling = s.pooling()
	}
}

// flows opens mappings from fresh ports of a parity, in turn, and returns those
// and what they became.
func (s *suite) flows(n int, parity uint16) (inside []uint16, outside []netip.AddrPort) {
	q := s.listen(s.out[0])
	data := make([][]byte, n)
	from := len(s.out[0].Arrived())
	for i := range n {
		p := s.nextOf(parity)
		check(s.in[0].Listen(p))
		inside, data[i] = append(inside, p), s.token()
		check(s.in[0].Send(p, endpoint(s.out[0], q), data[i]))
	}
	s.settle()
	for i := range n {
		a, _ := arrival(s.out[0], from, carries(data[i]))
		outside = append(outside, a.From)
	}
	return inside, outside
}

// manyFlows are enough that chance does not look like a rule.
const manyFlows = 24

// measureAllocation opens mappings one after the other, from even ports first: a
// box that keeps parity then has one step between them.
func (s *suite) measureAllocation(m *Ports) {
	even, outsideEven := s.flows(manyFlows, 0)
	odd, outsideOdd := s.flows(manyFlows, 1)
	steps, kept, parity := make(map[int]int), 0, 0
	for i := range even {
		if i > 0 {
			// The way round the whole range is not taken: it is one step only.
			steps[int(outsideEven[i].Port())-int(outsideEven[i-1].Port())]++
		}
		for _, x := range [][2]uint16{{even[i], outsideEven[i].Port()}, {odd[i], outsideOdd[i].Port()}} {
			if x[0] == x[1] {
				kept++
			}
			if x[0]%2 == x[1]%2 {
				parity++
			}
		}
	}
	m.KeepsParity = parity == 2*manyFlows
	if kept == 2*manyFlows {
		return
	}
	m.Allocation = natlab.Random
	for step, n := range steps {
		// Most of them: others may have taken a port between two.
		if n > manyFlows/2 && step != 0 {
			m.Allocation, m.Delta = natlab.Sequential, step
		}
	}
}

// shared has both hosts inside send from the same port, the second to a host of
// its own or the same, and reports whether they look like one.
func (s *suite) shared(second Host) bool {
	p, q := s.listen(s.in[0]), s.listen(s.out[0])
	check(s.in[1].Listen(p))
	if second != s.out[0] {
		check(second.Listen(q))
	}
	first, ok1 := s.udp(s.in[0], p, endpoint(s.out[0], q), s.out[0])
	other, ok2 := s.udp(s.in[1], p, endpoint(second, q), second)
	return ok1 && ok2 && first == other
}

// pooling gives the outermost box several addresses (RFC 4787 §4.1).
func (s *suite) pooling() natlab.Pooling {
	x, err := start(s.ctx, s.bed, s.chain, 4)
	check(err)
	defer x.lab.Close()
	seen := make(map[netip.Addr]bool)
	_, outside := x.flows(manyFlows, 0)
	for _, a := range outside {
		seen[a.Addr()] = true
	}
	if len(seen) > 1 {
		return natlab.Arbitrary
	}
	return natlab.Paired
}

// othersTime is long enough that chance evens out.
const othersTime = 100 * time.Second

// measureOthers counts the ports that others took meanwhile, if they are given
// in order.
func (s *suite) measureOthers(m *Ports) {
	if m.Allocation != natlab.Sequential {
		return
	}
	_, before := s.flows(1, 0)
	s.wait(othersTime)
	_, after := s.flows(1, 0)
	step := m.Delta
	taken := (int(after[0].Port())-int(before[0].Port()))/step - 1
	if taken < 0 {
		taken += (65536 - 1024) / max(step, -step)
	}
	m.Others = oneDigit(float64(taken) / othersTime.Seconds())
}

// oneDigit rounds to one digit that counts.
func oneDigit(x float64) int {
	if x < 0.5 {
		return 0
	}
	power := math.Pow(10, math.Floor(math.Log10(x)))
	return int(math.Round(x/power) * power)
}

// mostSessions is as many as are tried where a limit is looked for.
const mostSessions = 1000

// measureBlock opens mappings until the box has no more ports, and looks whether
// those that it had were one block (RFC 7422).
func (s *suite) measureBlock(m *Ports) {
	s.reboot()
	_, outside := s.flows(mostSessions, 0)
	first, last, n := uint16(math.MaxUint16), uint16(0), 0
	for _, a := range outside {
		if p := a.Port(); p != 0 {
			first, last, n = min(first, p), max(last, p), n+1
		}
	}
	if n < mostSessions && int(last-first) == n-1 {
		m.BlockSize, m.BlockStart = n, first
	}
}

// measureLimits sends from one port to many endpoints until no more arrives.
func (s *suite) measureLimits(m *Rest) {
	count := func(h Host) (n int) {
		p := s.listen(h)
		data := s.token()
		from := len(s.out[0].Arrived())
		for range mostSessions {
			check(h.Send(p, endpoint(s.out[0], s.listen(s.out[0])), data))
		}
		s.settle()
		for _, a := range s.out[0].Arrived()[from:] {
			if carries(data)(a) {
				n++
			}
		}
		return n
	}
	one, other := count(s.in[0]), count(s.in[1])
	if one < mostSessions {
		m.HostSessions = one
	}
	if one+other < 2*mostSessions {
		m.BothSessions = one + other
	}
}
