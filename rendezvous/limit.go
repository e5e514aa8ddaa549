package rendezvous

import (
	"net/netip"
	"time"
)

// bucket is a token bucket. The zero bucket is full.
type bucket struct {
	used float64
	last time.Time
}

// take takes n tokens of a bucket that refills at rate a second and holds burst.
// A rate of 0 has no limit.
func (b *bucket) take(now time.Time, n, rate, burst float64) bool {
	if rate <= 0 {
		return true
	}
	if !b.last.IsZero() {
		b.used = max(0, b.used-rate*now.Sub(b.last).Seconds())
	}
	b.last = now
	if b.used+n > burst {
		return false
	}
	b.used += n
	return true
}

// prefixLimit bounds answers to those who have proved nothing, a network each:
// an IPv4 /24, an IPv6 /48. It forgets everything once a second, and its memory
// is bounded.
type prefixLimit struct {
	second int64
	counts map[netip.Prefix]int
}

const (
	bindingsPerPrefix = 50 // answers a second
	maxPrefixes       = 1 << 14
)

func (l *prefixLimit) take(now time.Time, from netip.Addr) bool {
	if s := now.Unix(); s != l.second || l.counts == nil {
		l.second, l.counts = s, make(map[netip.Prefix]int)
	}
	bits := 48
	if from.Is4() {
		bits = 24
	}
	p, err := from.Prefix(bits)
	if err != nil || len(l.counts) >= maxPrefixes && l.counts[p] == 0 {
		return false
	}
	l.counts[p]++
	return l.counts[p] <= bindingsPerPrefix
}
