package path

import "time"

// hysteresis is by how much a route's round trip must beat the one in use, since
// every change costs QUIC a new start: a fifth, and no less than two
// milliseconds.
func hysteresis(rtt time.Duration) time.Duration { return max(rtt/5, 2*time.Millisecond) }

// better reports whether to leave the route in use for r. A direct route beats
// the relay; of two direct ones the quicker wins, by a margin; of two relays the
// newer, since the older may have gone with its server.
func better(r, inUse Route) bool {
	switch {
	case r.Direct() != inUse.Direct():
		return r.Direct()
	case !r.Direct():
		return r.Since.After(inUse.Since)
	default:
		return r.RTT+hysteresis(inUse.RTT) < inUse.RTT
	}
}
