package portmap

import "time"

// epoch follows a router's clock, which starts anew when the router has lost its
// mappings. It is a value; time is an argument.
type epoch struct {
	known  bool
	at     time.Time
	server int64
}

// pcp notes the epoch time of a PCP response and reports whether the router lost
// its state since the last one (RFC 6887 §8.5): when its clock went back by more
// than a second, or ran slower or faster than ours by more than a sixteenth and
// two seconds.
func (e *epoch) pcp(now time.Time, server uint32) (lost bool) {
	last := *e
	*e = epoch{true, now, int64(server)}
	if !last.known {
		return false
	}
	if e.server < last.server-1 {
		return true
	}
	client, delta := int64(now.Sub(last.at)/time.Second), e.server-last.server
	return client+2 < delta-delta/16 || delta+2 < client-client/16
}

// pmp is the same for NAT-PMP (RFC 6886 §3.6): the router's clock may be slower
// than ours by an eighth and two seconds, and faster by anything.
func (e *epoch) pmp(now time.Time, server uint32) (lost bool) {
	last := *e
	*e = epoch{true, now, int64(server)}
	return last.known && e.server+2 < last.server+int64(now.Sub(last.at)/time.Second)*7/8
}
