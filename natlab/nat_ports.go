package natlab

import (
	"net/netip"
	"time"
)

// counterKey names a counter of sequential allocation: each protocol has one for
// each address outside, and each port block its own.
type counterKey struct {
	protocol uint8
	address  int
	first    int
}

// portRange is where a port is looked for: from first to last of an address.
type portRange struct {
	address     int // of Translator.outside
	first, last int
}

// allocate chooses what an endpoint inside is mapped to. The reason says what was
// not as expected.
func (t *Translator) allocate(protocol uint8, in endpoint) (endpoint, Reason, bool) {
	if len(t.outside) == 0 {
		return in, NoPort, false
	}
	ranges, ok := t.ranges(protocol, in)
	if !ok {
		return in, NoBlock, false
	}
	for tries := range len(t.outside) {
		if out, why, ok := t.choose(protocol, in, ranges); ok {
			return out, why, true
		}
		if t.nat.Pooling == Paired || t.nat.Ports.BlockSize > 0 {
			break // another address would break the pair (RFC 4787 REQ-2)
		}
		if tries == 0 {
			ranges.address = -1
		}
		ranges.address++
	}
	return in, NoPort, false
}

// ranges is where the ports of a host are.
func (t *Translator) ranges(protocol uint8, in endpoint) (portRange, bool) {
	n := len(t.outside)
	if size := t.nat.Ports.BlockSize; size > 0 {
		first := t.nat.Ports.firstBlock()
		perAddress := (65536 - first) / size
		i, ok := t.offset(in.addr)
		if !ok || i >= perAddress*n {
			return portRange{}, false
		}
		first += i % perAddress * size
		return portRange{i / perAddress, first, first + size - 1}, true
	}
	r := portRange{first: 1024, last: 65535}
	switch i, ok := t.offset(in.addr); {
	case n == 1:
	case t.nat.Pooling == Paired && ok:
		r.address = i % n
	case t.nat.Pooling == Arbitrary:
		r.address = t.r.IntN(n)
	}
	switch {
	case protocol == ProtocolICMP:
		r.first = 0
	case in.port < 1024:
		// RFC 4787 REQ-3a: well-known ports stay such.
		r.first, r.last = 1, 1023
	}
	return r, true
}

// offset is which address of its network inside a host has.
func (t *Translator) offset(host [16]byte) (int, bool) {
	a := netip.AddrFrom16(host).Unmap()
	for _, p := range t.inside {
		if !p.Contains(a) {
			continue
		}
		n := 0
		for i, b := range a.AsSlice() {
			n = n<<8 | int(b^p.Masked().Addr().AsSlice()[i])
		}
		return n & 0xffffff, true
	}
	return 0, false
}

// choose takes a free port of a range.
func (t *Translator) choose(protocol uint8, in endpoint, r portRange) (endpoint, Reason, bool) {
	out := endpoint{addr: key(t.outside[r.address])}
	p := t.nat.Ports
	take := func(port int) bool {
		out.port = uint16(port)
		k := outKey{protocol, out}
		_, forwarded := t.forwards.ports[k]
		return !forwarded && t.mapper.byOutside[k] == nil
	}
	n := r.last - r.first + 1
	step, at := 1, 0
	why := Reason("")
	switch p.Allocation {
	case Preserving:
		if port := int(in.port); port >= r.first && port <= r.last && (take(port) || p.Overloading) {
			return out, "", true
		}
		why, at = PortTaken, t.r.IntN(n)
	case Sequential:
		if step = p.Delta; step == 0 {
			step = 1
		}
		k := counterKey{protocol, r.address, r.first}
		last, ok := t.mapper.counters[k]
		if !ok {
			last = uint16(r.first + t.r.IntN(n))
		}
		at = int(last) - r.first + step
		defer func() { t.mapper.counters[k] = out.port }()
	case Random:
		at = t.r.IntN(n)
	}
	for range n {
		port := r.first + (at%n+n)%n
		if (!t.keepsParity(protocol) || port%2 == int(in.port)%2) && take(port) {
			return out, why, true
		}
		at += step
	}
	return in, NoPort, false
}

// keepsParity: parity is that of ports, not identifiers (RFC 4787 §4.2.2).
func (t *Translator) keepsParity(protocol uint8) bool {
	return t.nat.Ports.Parity && protocol != ProtocolICMP
}

// others makes the mappings of other hosts that are due: see NAT.Busy.
func (t *Translator) others() {
	if t.nat.Busy == 0 {
		return
	}
	gap := func() int64 { return int64(t.r.ExpFloat64() / t.nat.Busy * float64(time.Second)) }
	if t.busy < 0 {
		t.busy = t.now + gap()
	}
	// After a long silence only the last of them are still there.
	lives := t.idle(ProtocolUDP, false)
	t.busy = max(t.busy, t.now-lives)
	for t.busy <= t.now {
		at := t.busy
		for e := t.expiries.next(at); e != nil; e = t.expiries.next(at) {
			e.owner.expire(t)
		}
		for _, protocol := range []uint8{ProtocolUDP, ProtocolTCP} {
			t.other(protocol, at+lives)
		}
		t.busy += gap()
	}
}

// other makes a mapping of another host, which lives until a time.
func (t *Translator) other(protocol uint8, until int64) {
	if _, ok := t.room([16]byte{}); !ok {
		return
	}
	in := endpoint{port: uint16(1024 + t.r.IntN(64512))}
	out, _, ok := t.allocate(protocol, in)
	if !ok {
		return
	}
	m := pop(&t.mapper.freeMappings)
	o := outKey{protocol, out}
	*m = mapping{key: mapKey{protocol: protocol, in: in}, out: out, older: t.mapper.byOutside[o], other: true}
	t.mapper.byOutside[o] = m
	t.count(in.addr, 1)
	t.expiries.add(&m.expiry, until, m)
}
