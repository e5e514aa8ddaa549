package path

import (
	"net/netip"
	"time"

	"bodkin/internal/wire"
	"bodkin/punch"
)

// Key names a route: one of our sockets and either the peer's endpoint, or the
// server's and a relay channel there.
type Key struct {
	Local   punch.Local
	To      netip.AddrPort
	Channel wire.Channel // 0 for a hole
}

// Transport is what the route runs over.
func (k Key) Transport() punch.Transport {
	if k.Channel != 0 {
		return punch.Relay
	}
	return k.Local.Transport()
}

// Route is a way to a peer.
type Route struct {
	Key
	Kind    punch.Kind    // what the endpoint was found as; 0 for a relay
	RTT     time.Duration // smoothed; 0 if unknown
	Loss    float64       // share of the probes and answers that got lost, smoothed
	Samples int           // of a relay: how often it was measured lately
	Narrow  bool          // probes pass, and large packets or data do not
	Proving bool          // it came and went, and has to prove that it stays
	Since   time.Time     // when it was confirmed
}

// Direct reports whether no third machine carries the route's packets.
func (r Route) Direct() bool { return r.Channel == 0 }
