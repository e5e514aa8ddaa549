package natlab

import "time"

// tracker is the state of a box that tracks connections as Linux's nf_conntrack
// does, with nf_nat's masquerade and an nftables ruleset that lets everything out
// and nothing in but what belongs to a connection. A connection is known by the
// tuples of both its directions; their sources and destinations are all that
// translation is.
//
// Not modelled: checksums of what arrives, helpers, the rate limit of ICMP errors,
// and the box as a host, which serves nothing.
type tracker struct {
	connections map[tuple]*connection // under both of a connection's tuples
	// bySource are the translated ones, newest first.
	bySource map[sourceKey]*connection
	free     []*connection
}

// tuple is one direction of a connection. Of an ICMP query the source port is the
// identifier and the destination port the type and code.
type tuple struct {
	src, dst endpoint
	protocol uint8
}

type sourceKey struct {
	src      endpoint
	protocol uint8
}

// connection is an nf_conn.
type connection struct {
	expiry
	original, reply tuple
	host            [16]byte // whose session it is: the host inside, or the stranger
	replied         bool     // IPS_SEEN_REPLY
	assured         bool     // IPS_ASSURED
	stream          int64    // when a UDP flow is a stream rather than a query
	tcp             tcpTrack
	// newer and older have the same source.
	newer, older *connection
}

// Timeouts of net/netfilter/nf_conntrack_proto_{udp,icmp,generic}.c.
const (
	trackUDP       = 30 * time.Second
	trackUDPStream = 120 * time.Second
	trackICMP      = 30 * time.Second
	trackGeneric   = 600 * time.Second
	// trackStream is the age at which a replied UDP flow becomes a stream.
	trackStream = 2 * time.Second
)

func (c *tracker) reset() {
	*c = tracker{connections: make(map[tuple]*connection), bySource: make(map[sourceKey]*connection)}
}

// tupleOf is a packet's tuple; false if connections have none like it.
func tupleOf(v view) (tuple, bool) {
	x := tuple{v.src, v.dst, v.protocol}
	switch v.icmp {
	case icmpRequest, icmpReply:
		x.src.port, x.dst.port = v.id, uint16(v.kind)<<8|uint16(v.b[v.at+1])
	case icmpOther, icmpError:
		return x, v.protocol != ProtocolICMP && v.protocol != ProtocolICMPv6
	}
	return x, true
}

// inverse is the tuple of replies, if nothing is translated.
func (x tuple) inverse(v6 bool) tuple {
	y := tuple{x.dst, x.src, x.protocol}
	if x.protocol == ProtocolICMP || x.protocol == ProtocolICMPv6 {
		y.src.port, y.dst.port = x.src.port, uint16(answering(v6, uint8(x.dst.port>>8)))<<8|x.dst.port&0xff
	}
	return y
}

// answering is the ICMP type that answers a query's, and the other way round.
func answering(v6 bool, kind uint8) uint8 {
	switch {
	case v6:
		return kind ^ 1
	case kind == 0 || kind == 8:
		return kind ^ 8
	case kind%2 == 1:
		return kind + 1
	}
	return kind - 1
}

// track is what the box does with a packet.
func (t *Translator) track(from Side, v view, out []Sent) ([]Sent, Verdict) {
	if v.icmp == icmpError {
		return t.trackError(from, v, out)
	}
	x, ok := tupleOf(v)
	if !ok {
		return t.untracked(from, v, out)
	}
	c := t.tracker.connections[x]
	if c == nil {
		return t.begin(x, from, v, out)
	}
	switch t.step(c, c.original == x, v) {
	case stepInvalid:
		return t.untracked(from, v, out)
	case stepAgain: // the next connection of the same endpoints
		t.endConnection(c)
		return t.begin(x, from, v, out)
	case stepEnd:
		defer t.endConnection(c)
	case stepOn:
	}
	if from == Outside && c.original == x {
		return t.refuse(v, EarlyKept, out) // the stranger's own connection, to the box
	}
	return t.carry(c, c.original == x, v, out)
}

// carry passes a packet of a connection.
func (t *Translator) carry(c *connection, original bool, v view, out []Sent) ([]Sent, Verdict) {
	mapped := c.mapped()
	verdict := Verdict{}
	if mapped != c.original.src {
		verdict.Action = Translate
	}
	switch {
	case !original:
		if verdict.Action == Translate {
			v.to(c.original.src)
		}
		return append(out, Sent{To: Inside, Data: v.b}), verdict
	case verdict.Action == Translate:
		v.from(mapped)
	}
	return append(out, Sent{To: Outside, Data: v.b}), verdict
}

// mapped is what the source of a connection became.
func (c *connection) mapped() endpoint {
	if c.original.protocol == ProtocolICMP || c.original.protocol == ProtocolICMPv6 {
		return endpoint{c.reply.dst.addr, c.reply.src.port}
	}
	return c.reply.dst
}

// untracked is what becomes of a packet that conntrack calls invalid: no rule
// stops those from inside, and nothing translates them.
func (t *Translator) untracked(from Side, v view, out []Sent) ([]Sent, Verdict) {
	switch own := t.isOwn(v.dst.addr); {
	case own && from == Outside:
		return t.refuse(v, Invalid, out)
	case own:
		return t.answerInside(v, out)
	case from == Outside:
		return out, Verdict{Drop, t.elsewhere(v)}
	case t.nat.Leaks:
		return append(out, Sent{To: Outside, Data: v.b}), Verdict{Forward, Leaked}
	}
	return out, Verdict{Drop, Invalid}
}

// elsewhere is why a packet from outside that is not for the box is dropped.
func (t *Translator) elsewhere(v view) Reason {
	if (v.v6 || !t.nat.Translates()) && t.isInside(v.dst.addr) {
		return FilteredPort
	}
	return NotOurs
}

// begin is what becomes of a packet of no connection.
func (t *Translator) begin(x tuple, from Side, v view, out []Sent) ([]Sent, Verdict) {
	switch own := t.isOwn(v.dst.addr); {
	case !t.trackable(v):
		return t.untracked(from, v, out)
	case own && from == Inside:
		return t.answerInside(v, out)
	case own:
		return t.toBox(x, v, out)
	case from == Outside:
		return out, Verdict{Drop, t.elsewhere(v)}
	}
	if why, ok := t.room(x.src.addr); !ok {
		return out, Verdict{Drop, why}
	}
	reply, why, ok := x.inverse(v.v6), Reason(""), true
	translates := t.nat.Translates() && !v.v6
	if translates {
		reply, why, ok = t.masquerade(x, reply)
	}
	if !ok || t.tracker.connections[reply] != nil {
		return out, Verdict{Drop, NoPort}
	}
	c := t.newConnection(x, reply, v)
	if translates {
		t.remember(c)
	}
	out, verdict := t.carry(c, true, v, out)
	verdict.Reason = why
	return out, verdict
}

// toBox is what becomes of a stranger's packet to the box itself. Where the box
// accepts it, its connection stays, unless a reset ends it at once.
func (t *Translator) toBox(x tuple, v view, out []Sent) ([]Sent, Verdict) {
	accepted := t.nat.KeepsEarly || v.icmp == icmpRequest && t.nat.ICMP.Pings
	if !accepted || v.protocol == ProtocolTCP && t.nat.TCP.Refusal == RefuseWithReset {
		return t.refuse(v, NoMapping, out)
	}
	if _, ok := t.room(x.src.addr); !ok {
		return out, Verdict{Drop, BoxLimit}
	}
	t.newConnection(x, x.inverse(v.v6), v)
	return t.refuse(v, EarlyKept, out)
}

// answerInside is what the box's own ports answer to who is inside: nothing
// listens there.
func (t *Translator) answerInside(v view, out []Sent) ([]Sent, Verdict) {
	n := len(out)
	switch v.protocol {
	case ProtocolUDP:
		out = t.answerError(v, Inside, out)
	case ProtocolTCP:
		out = t.answerReset(v, Inside, out)
	case ProtocolICMP, ProtocolICMPv6:
		if v.icmp == icmpRequest {
			out, _ = t.answerPing(v, Inside, out)
		}
	}
	if len(out) > n {
		return out, Verdict{Answer, ForBox}
	}
	return out, Verdict{Drop, ForBox}
}

// trackable reports whether a packet may begin a connection: conntrack calls it
// new and not invalid.
func (t *Translator) trackable(v view) bool {
	switch v.protocol {
	case ProtocolTCP:
		return t.trackableTCP(v)
	case ProtocolICMP, ProtocolICMPv6:
		return v.icmp == icmpRequest
	}
	return true
}

func (t *Translator) newConnection(x, reply tuple, v view) *connection {
	c := pop(&t.tracker.free)
	*c = connection{original: x, reply: reply, host: x.src.addr, stream: t.now + int64(trackStream)}
	t.tracker.connections[x], t.tracker.connections[reply] = c, c
	t.count(c.host, 1)
	t.expiries.add(&c.expiry, t.now, c)
	t.step(c, true, v)
	return c
}

func (c *connection) expire(t *Translator) { t.endConnection(c) }

func (t *Translator) endConnection(c *connection) {
	t.expiries.remove(&c.expiry)
	delete(t.tracker.connections, c.original)
	delete(t.tracker.connections, c.reply)
	t.forget(c)
	t.count(c.host, -1)
	*c = connection{}
	t.tracker.free = append(t.tracker.free, c)
}

// step is what a packet does to its connection.
func (t *Translator) step(c *connection, original bool, v view) (s step) {
	idle := trackGeneric
	switch v.protocol {
	case ProtocolTCP:
		if idle, s = t.stepTCP(c, original, v); s != stepOn {
			return s
		}
	case ProtocolUDP:
		idle = or(t.nat.UDP.Unreplied, trackUDP)
		if c.replied && t.now > c.stream {
			c.assured, idle = true, or(t.nat.UDP.Replied, trackUDPStream)
		}
	case ProtocolICMP, ProtocolICMPv6:
		idle = or(t.nat.ICMP.Timeout, trackICMP)
	}
	if idle > 0 {
		t.expiries.set(&c.expiry, t.now+int64(idle))
	}
	c.replied = c.replied || !original
	return stepOn
}

// step is what becomes of a packet of a known connection.
type step uint8

const (
	stepOn      step = iota
	stepInvalid      // it is as if it belonged to none
	stepAgain        // the connection is over, and the packet begins another
	stepEnd          // it is the last one of the connection
)

// trackError passes an ICMP error on that is about a packet of a connection: it
// is RELATED. Whom it is from does not matter.
func (t *Translator) trackError(from Side, v view, out []Sent) ([]Sent, Verdict) {
	c, original, q := t.quotedConnection(v)
	if c == nil {
		return t.untracked(from, v, out)
	}
	const redirect = 5
	mapped, src := c.mapped(), c.original.src
	translated := mapped != src
	switch {
	case translated && v.kind == redirect:
		return out, Verdict{Drop, RedirectOff}
	case from == Outside && original:
		return out, Verdict{Drop, ForBox} // about what the box sent itself
	case original && translated:
		q.to(mapped)
		v.from(mapped)
	case translated:
		q.from(src)
		v.to(src)
	}
	verdict := Verdict{}
	if translated {
		v.sumICMP()
		verdict.Action = Translate
	}
	to := Inside
	if original {
		to = Outside
	}
	return append(out, Sent{To: to, Data: v.b}), verdict
}

// quotedConnection is the connection that an ICMP error is about, and whether the
// error travels in its original direction.
func (t *Translator) quotedConnection(v view) (*connection, bool, view) {
	q, ok := look(v.b[min(v.at+headerICMP, len(v.b)):], true)
	if !ok || q.at < 0 || q.v6 != v.v6 || !v.v6 && checksum(v.b[v.at:], 0) != 0 {
		return nil, false, q
	}
	x, ok := tupleOf(q)
	if !ok {
		return nil, false, q
	}
	x = x.inverse(v.v6)
	c := t.tracker.connections[x]
	if c == nil || v.dst.addr != x.dst.addr {
		return nil, false, q
	}
	return c, x == c.original, q
}

// mappings is a snapshot.
func (c *tracker) mappings(base time.Time) (out []Mapping) {
	for x, y := range c.connections {
		if x != y.original {
			continue
		}
		remote := x.dst
		out = append(out, Mapping{
			Protocol: x.protocol, Inside: x.src.addrPort(), Outside: y.mapped().addrPort(), Remote: remote.addrPort(),
			Expires: base.Add(time.Duration(y.at)),
		})
	}
	return out
}
