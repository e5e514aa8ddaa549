package natlab

import "bodkin/nat"

// masquerade chooses what a connection's source becomes, as nf_nat does: what the
// same source has already, if that is free towards this destination; else the
// port as it is; else a random one. It returns the tuple of replies.
func (t *Translator) masquerade(x, reply tuple) (tuple, Reason, bool) {
	if len(t.outside) == 0 {
		return reply, NoPort, false
	}
	reply.dst.addr = key(t.outside[0])
	random := t.nat.Mapping == nat.AddressAndPortDependent
	if !random {
		for c := t.tracker.bySource[sourceKey{x.src, x.protocol}]; c != nil; c = c.older {
			mapped := c.mapped()
			if mapped.addr != reply.dst.addr {
				continue
			}
			if r := reply.withPort(mapped.port); t.free(r) {
				return r, "", true
			}
			break // the kernel looks at one
		}
		if t.free(reply) {
			return reply, "", true
		}
	}
	reply, ok := t.anyPort(x.src.port, reply)
	switch {
	case !ok:
		return reply, NoPort, false
	case random:
		return reply, "", true
	}
	return reply, PortTaken, true
}

// withPort is the tuple of replies to another source port or identifier.
func (x tuple) withPort(port uint16) tuple {
	if x.protocol == ProtocolICMP {
		x.src.port = port
	} else {
		x.dst.port = port
	}
	return x
}

// free reports whether no connection has the tuple, in either direction.
func (t *Translator) free(x tuple) bool { return t.tracker.connections[x] == nil }

// anyPort looks from a random port on, in the range that the source's port is of
// (nf_nat_l4proto_unique_tuple): 128 ports, then half as many from elsewhere, and
// so on.
func (t *Translator) anyPort(port uint16, reply tuple) (tuple, bool) {
	first, n := 1024, 65536-1024
	switch {
	case reply.protocol == ProtocolICMP:
		first, n = 0, 65536
	case reply.protocol != ProtocolTCP && reply.protocol != ProtocolUDP:
		return reply, false // nothing to choose
	case port < 512:
		first, n = 1, 511
	case port < 1024:
		first, n = 600, 1023-600+1
	}
	const most, least = 128, 16
	for attempts := min(n, most); ; attempts /= 2 {
		at := t.r.IntN(65536)
		for i := range attempts {
			if r := reply.withPort(uint16(first + (at+i)%n)); t.free(r) {
				return r, true
			}
		}
		if attempts >= n || attempts < least {
			return reply, false
		}
	}
}

// remember puts a connection first among those of its source.
func (t *Translator) remember(c *connection) {
	k := sourceKey{c.original.src, c.original.protocol}
	if c.older = t.tracker.bySource[k]; c.older != nil {
		c.older.newer = c
	}
	t.tracker.bySource[k] = c
}

// forget takes a connection from those of its source.
func (t *Translator) forget(c *connection) {
	k := sourceKey{c.original.src, c.original.protocol}
	switch {
	case c.newer != nil:
		c.newer.older = c.older
	case t.tracker.bySource[k] == c && c.older != nil:
		t.tracker.bySource[k] = c.older
	case t.tracker.bySource[k] == c:
		delete(t.tracker.bySource, k)
	}
	if c.older != nil {
		c.older.newer = c.newer
	}
}
