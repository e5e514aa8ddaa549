package conform

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"bodkin/natlab"
)

// Measure measures boxes in series, given from the inside out.
func Measure(ctx context.Context, bed Bed, chain []natlab.NAT) (m Measured, err error) {
	s, err := start(ctx, bed, chain, 1)
	if err != nil {
		return m, err
	}
	defer s.lab.Close()
	defer func() { err = caught(recover(), err) }()
	s.measure(&m)
	return m, nil
}

// failure is an error on the way out of the suite: the bed's, not the box's.
type failure struct{ err error }

// caught is the error of a failure; what else was thrown goes on.
func caught(thrown any, err error) error {
	switch thrown := thrown.(type) {
	case nil:
		return err
	case failure:
		return thrown.err
	}
	panic(thrown)
}

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// suite is the state of a measurement.
type suite struct {
	lab      Lab
	in, out  [2]Host
	ctx      context.Context // for labs beside
	bed      Bed
	chain    []natlab.NAT // only for topologies
	outside  netip.Addr   // of the outermost box
	port     uint16
	mark     uint32
	sentinel sentinel
}

// boxName is the name of the i-th box from inside.
func boxName(i int) string { return "box" + strconv.Itoa(i) }

// topologyOf is two hosts behind boxes in series, and two on the core.
func topologyOf(chain []natlab.NAT, addresses int, link natlab.Link) natlab.Topology {
	t := natlab.Topology{Seed: 1, IPv6: true}
	behind := ""
	for i, n := range slices.Backward(chain) {
		b := natlab.Box{Name: boxName(i), Behind: behind, NAT: n}
		if n == (natlab.NAT{}) {
			b.Preset = natlab.Open // no NAT would be Linux
		}
		if i == len(chain)-1 {
			b.Addresses = addresses
		}
		t.Boxes = append(t.Boxes, b)
		behind = b.Name
	}
	t.Hosts = []natlab.Host{
		{Name: "in1", Behind: behind, Link: link},
		{Name: "in2", Behind: behind, Link: link},
		{Name: "out1"},
		{Name: "out2"},
	}
	return t
}

func start(ctx context.Context, bed Bed, chain []natlab.NAT, addresses int) (*suite, error) {
	lab, err := bed.Start(ctx, topologyOf(chain, addresses, natlab.Link{}))
	if err != nil {
		return nil, err
	}
	s := &suite{ctx: ctx, bed: bed, chain: chain, lab: lab, outside: lab.Outside(boxName(len(chain) - 1))}
	for i := range 2 {
		s.in[i], s.out[i] = lab.Host("in"+strconv.Itoa(i+1)), lab.Host("out"+strconv.Itoa(i+1))
	}
	return s, nil
}

// next is a port that was never used, with no order in it.
func (s *suite) next() uint16 {
	const first, all, step = 20000, 20000, 7919 // a prime, so that none comes twice
	if s.port++; s.port > all {
		panic(failure{errPorts})
	}
	return uint16(first + int(s.port)*step%all)
}

// nextOf is one that is even, or odd.
func (s *suite) nextOf(parity uint16) uint16 {
	for {
		if p := s.next(); p%2 == parity {
			return p
		}
	}
}

// listen opens a fresh UDP port on a host.
func (s *suite) listen(h Host) uint16 {
	p := s.next()
	check(h.Listen(p))
	return p
}

// token is data that no other packet has.
func (s *suite) token() []byte {
	s.mark++
	return binary.BigEndian.AppendUint32([]byte("conform "), s.mark)
}

// arrival finds what came to a host since it had n arrivals.
func arrival(h Host, n int, match func(Arrival) bool) (Arrival, bool) {
	for _, a := range h.Arrived()[n:] {
		if match(a) {
			return a, true
		}
	}
	return Arrival{}, false
}

// arrives sends, and finds what comes to a host because of it.
func (s *suite) arrives(h Host, send func(), match func(Arrival) bool) (a Arrival, ok bool) {
	n := len(h.Arrived())
	send()
	found := func() bool {
		a, ok = arrival(h, n, match)
		return ok
	}
	// What arrives needs no sentinels; whatever comes late is found after them.
	if !s.lab.Virtual() && s.lab.Until(found, atOnce) {
		return a, true
	}
	s.settle()
	found()
	return a, ok
}

// atOnce is a guess that only saves work.
const atOnce = 2 * time.Millisecond

// udp sends a datagram, and says from where it came to a host, if it did.
func (s *suite) udp(from Host, port uint16, to netip.AddrPort, at Host) (netip.AddrPort, bool) {
	data := s.token()
	a, ok := s.arrives(at, func() { check(from.Send(port, to, data)) }, carries(data))
	return a.From, ok
}

// carries matches the datagram with that payload.
func carries(data []byte) func(Arrival) bool {
	return func(a Arrival) bool { return bytes.Equal(a.Payload, data) }
}

// reaches reports whether a datagram comes to a host.
func (s *suite) reaches(from Host, port uint16, to netip.AddrPort, at Host) bool {
	_, ok := s.udp(from, port, to, at)
	return ok
}

// wait lets time pass.
func (s *suite) wait(d time.Duration) { s.lab.Until(nil, d) }

func endpoint(h Host, port uint16) netip.AddrPort { return netip.AddrPortFrom(h.Addr(), port) }

// body is what an IPv4 packet carries.
func body(ip []byte) []byte {
	if len(ip) < 20 || int(ip[0]&15)*4 > len(ip) {
		return nil
	}
	return ip[int(ip[0]&15)*4:]
}

var (
	errPorts     = errors.New("the suite has used up its ports; give next more of them")
	errUnsettled = errors.New("a sentinel did not arrive; the machine is stuck, or the path that was open is closed")
)

// outermost is the name of the box next to the core.
func (s *suite) outermost() string { return boxName(len(s.chain) - 1) }
