package bodkin

import (
	"net"
	"net/netip"
	"testing"
)

// visitor is a connection that knows whether it was closed.
type visitor struct {
	net.Conn
	closed bool
}

func (v *visitor) Close() error {
	v.closed = true
	return nil
}

func enter(d *door, from string, n int) (all []*visitor) {
	for range n {
		v := new(visitor)
		d.enter(v, netip.MustParseAddr(from))
		all = append(all, v)
	}
	return all
}

func closedOf(all []*visitor) (n int) {
	for _, v := range all {
		if v.closed {
			n++
		}
	}
	return n
}

// However many connections come, few wait, and one source does not send away another's.
func TestDoorIsNotCrowded(t *testing.T) {
	t.Parallel()
	var d door
	peer := enter(&d, "198.51.100.1", 1)
	flood := enter(&d, "192.0.2.1", 1000)
	if n := 1000 - closedOf(flood); n != doorPlacesEach || closedOf(peer) != 0 {
		t.Errorf("%d of a flood wait, and the peer's was closed: %v", n, peer[0].closed)
	}
	for _, v := range flood[:1000-doorPlacesEach] {
		if !v.closed {
			t.Error("an older one stays, and a newer one goes")
			break
		}
	}
	if !d.leave(peer[0]) || d.leave(peer[0]) {
		t.Error("it leaves once")
	}
}

// Networks of IPv6 count as one source, and IPv4 in IPv6 clothes as IPv4.
func TestDoorCountsSources(t *testing.T) {
	t.Parallel()
	var d door
	for i := range byte(100) {
		enter(&d, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: i}).String(), 1)
	}
	enter(&d, "::ffff:192.0.2.1", 100)
	enter(&d, "192.0.2.1", 100)
	if len(d.waiting) != 2*doorPlacesEach {
		t.Errorf("%d wait", len(d.waiting))
	}
}

// A flood from everywhere sends away the oldest of whoever has most.
func TestDoorUnderAFloodFromEverywhere(t *testing.T) {
	t.Parallel()
	var d door
	crowd := enter(&d, "192.0.2.1", 2)
	peer := enter(&d, "198.51.100.1", 1)
	for i := range byte(doorPlaces - 2) {
		enter(&d, netip.AddrFrom4([4]byte{203, 0, 113, i}).String(), 1)
	}
	if len(d.waiting) != doorPlaces || !crowd[0].closed || crowd[1].closed || peer[0].closed {
		t.Errorf("%d wait; the crowd's first was closed: %v, the peer's: %v", len(d.waiting), crowd[0].closed, peer[0].closed)
	}
}
