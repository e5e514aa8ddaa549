package rendezvous

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"time"
)

// stamp is a time in milliseconds since the registry began. It wraps around after
// seven weeks, so only differences mean anything.
type stamp uint32

// since is how long ago from was.
func (s stamp) since(from stamp) time.Duration {
	return time.Duration(s-from) * time.Millisecond
}

// bucket is a token bucket in eight bytes. The zero bucket is full.
type bucket struct {
	used float32
	last stamp
}

// take takes n tokens of a bucket that refills at rate a second and holds burst.
// A rate below 0 has no limit.
func (b *bucket) take(now stamp, n, rate, burst float64) bool {
	if rate < 0 {
		return true
	}
	used := max(0, float64(b.used)-rate*now.since(b.last).Seconds())
	ok := used+n <= burst
	if ok {
		used += n
	}
	b.used, b.last = float32(used), now
	return ok
}

// prefixLimit bounds answers to those who have proved nothing, a network each:
// an IPv4 /24, an IPv6 /48. It forgets everything once a second, or as rarely as
// every says. Its memory is
// fixed: networks whose hashes meet share a count, and nobody outside can aim at
// that, since the hash has a key.
type prefixLimit struct {
	key    [2]uint64
	every  int64 // seconds; 0: 1
	period int64
	counts [1 << 14]uint16
}

// take takes one of rate answers a period; a rate below 0 has no limit.
func (l *prefixLimit) take(now time.Time, from netip.Addr, rate int) bool {
	a := from.As16()
	high, low := binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(a[8:])
	if from.Is4() {
		low >>= 8
	} else {
		high, low = high>>16, 0
	}
	return l.takeFor(now, high, low, rate)
}

// takeFor takes one for something else that 16 bytes name.
func (l *prefixLimit) takeFor(now time.Time, high, low uint64, rate int) bool {
	if rate < 0 {
		return true
	}
	if p := now.Unix() / max(l.every, 1); p != l.period {
		l.period = p
		clear(l.counts[:])
	}
	n := &l.counts[l.slot(high, low)]
	if int(*n) >= min(rate, math.MaxUint16) {
		return false
	}
	*n++
	return true
}

func (l *prefixLimit) slot(high, low uint64) int {
	h, m := bits.Mul64(high^l.key[0], low^l.key[1])
	h, m = bits.Mul64(h^m^l.key[1], l.key[0]|1)
	return int((h ^ m) % uint64(len(l.counts)))
}

// prefixOf is the network that limits count together: an IPv4 /24, an IPv6 /48.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}
