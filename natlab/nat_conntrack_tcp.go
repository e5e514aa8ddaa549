package natlab

import "time"

// tcpTrack is the TCP part of a connection, as nf_conntrack_proto_tcp.c keeps it.
type tcpTrack struct {
	state trackState
	seen  [2]tcpEnd // of the original direction and of the reply
	// simultaneous is IP_CT_TCP_SIMULTANEOUS_OPEN, challenge IP_CT_EXP_CHALLENGE_ACK.
	simultaneous, challenge bool

	// The last segment, or one that was let through without being believed.
	last              trackSegment
	lastDirection     int
	lastSeq, lastAck  uint32
	lastEnd           uint32
	lastWindow        uint16
	lastScale         uint8
	lastHas, lastSack bool
	retransmissions   uint8
}

// trackState is a state of a connection: enum tcp_conntrack.
type trackState uint8

const (
	trackNone trackState = iota
	trackSynSent
	trackSynRecv
	trackEstablished
	trackFinWait
	trackCloseWait
	trackLastAck
	trackTimeWait
	trackClose
	trackSynSent2
	trackInvalid
	trackIgnore
)

// trackSegment is a kind of segment: enum tcp_bit_set.
type trackSegment uint8

const (
	segmentSYN trackSegment = iota
	segmentSYNACK
	segmentFIN
	segmentACK
	segmentRST
	segmentNone
)

// trackTable is what a segment of the original direction (0) or the reply (1)
// makes of each state: tcp_conntracks.
var trackTable = func() (table [2][5][10]trackState) {
	const (
		sNO, sSS, sSR, sES, sFW = trackNone, trackSynSent, trackSynRecv, trackEstablished, trackFinWait
		sCW, sLA, sTW, sCL, sS2 = trackCloseWait, trackLastAck, trackTimeWait, trackClose, trackSynSent2
		sIV, sIG                = trackInvalid, trackIgnore
	)
	table[0] = [5][10]trackState{
		segmentSYN:    {sSS, sSS, sIG, sIG, sIG, sIG, sIG, sSS, sSS, sS2},
		segmentSYNACK: {sIV, sIV, sSR, sIV, sIV, sIV, sIV, sIV, sIV, sSR},
		segmentFIN:    {sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV},
		segmentACK:    {sES, sIV, sES, sES, sCW, sCW, sTW, sTW, sCL, sIV},
		segmentRST:    {sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
	}
	table[1] = [5][10]trackState{
		segmentSYN:    {sIV, sS2, sIV, sIV, sIV, sIV, sIV, sSS, sIV, sS2},
		segmentSYNACK: {sIV, sSR, sIG, sIG, sIG, sIG, sIG, sIG, sIG, sSR},
		segmentFIN:    {sIV, sIV, sFW, sFW, sLA, sLA, sLA, sTW, sCL, sIV},
		segmentACK:    {sIV, sIG, sSR, sES, sCW, sCW, sTW, sTW, sCL, sIG},
		segmentRST:    {sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL},
	}
	return table
}()

// trackTimeouts are tcp_timeouts.
var trackTimeouts = [10]time.Duration{
	trackSynSent: 2 * time.Minute, trackSynRecv: time.Minute, trackEstablished: 5 * 24 * time.Hour,
	trackFinWait: 2 * time.Minute, trackCloseWait: time.Minute, trackLastAck: 30 * time.Second,
	trackTimeWait: 2 * time.Minute, trackClose: 10 * time.Second, trackSynSent2: 2 * time.Minute,
}

// segmentOf is get_conntrack_index.
func segmentOf(flags uint8) trackSegment {
	switch {
	case flags&flagRST != 0:
		return segmentRST
	case flags&flagSYN != 0 && flags&flagACK != 0:
		return segmentSYNACK
	case flags&flagSYN != 0:
		return segmentSYN
	case flags&flagFIN != 0:
		return segmentFIN
	case flags&flagACK != 0:
		return segmentACK
	}
	return segmentNone
}

// validFlags is tcp_valid_flags: other combinations are nobody's.
func validFlags(flags uint8) bool {
	switch flags & (flagFIN | flagSYN | flagRST | flagACK) {
	case flagSYN, flagSYN | flagACK, flagRST, flagRST | flagACK, flagFIN | flagACK, flagACK:
		return true
	}
	return false
}

// trackableTCP is tcp_new: a SYN, or what is in the middle of a connection where
// tracking is loose.
func (t *Translator) trackableTCP(v view) bool {
	if !validFlags(v.flags()) {
		return false
	}
	switch segmentOf(v.flags()) {
	case segmentSYN:
		return true
	case segmentACK:
		return t.nat.TCP.Loose
	default:
		return false
	}
}

// trackUnacked is how long a connection lives of which something waits for an
// acknowledgment (TCP_CONNTRACK_UNACK), or was sent in vain (TCP_CONNTRACK_RETRANS).
const (
	trackUnacked            = 5 * time.Minute
	trackMaxRetransmissions = 3
)

// stepTCP is nf_conntrack_tcp_packet. The connection then lives for idle; with 0
// the time that it had goes on.
func (t *Translator) stepTCP(c *connection, original bool, v view) (idle time.Duration, s step) {
	if !validFlags(v.flags()) {
		return 0, stepInvalid
	}
	segment, direction := segmentOf(v.flags()), 1
	if original {
		direction = 0
	}
	x, old := &c.tcp, c.tcp.state
	if old == trackNone {
		x.begin(v, segment)
	}
	now := trackTable[direction][segment][old]
	switch now {
	case trackInvalid:
		return 0, stepInvalid
	case trackSynSent:
		if old < trackTimeWait {
			break
		}
		if x.seen[0].closed || x.seen[1].closed || x.last == segmentRST && x.lastDirection == direction {
			return 0, stepAgain
		}
		x.ignore(v, segment, direction, old)
		return 0, stepOn
	case trackIgnore:
		if segment != segmentSYNACK || x.last != segmentSYN || x.lastDirection == direction || v.ackNumber() != x.lastEnd {
			x.ignore(v, segment, direction, old)
			return 0, stepOn
		}
		x.agree(direction)
		old, now = trackSynSent, trackSynRecv
	case trackTimeWait:
		if old == trackLastAck && segment == segmentACK && x.lastDirection != direction && x.last == segmentSYN && x.challenge {
			return 0, stepOn // a challenge ACK (RFC 5961), and not of the last FIN
		}
	case trackSynSent2:
		x.simultaneous = true
	case trackSynRecv:
		if !original && segment == segmentACK && x.simultaneous {
			now = trackEstablished
		}
	default: // the table has said it all
	}
	var fits windowResult
	if now == trackClose && segment == segmentRST {
		now, fits = x.reset(c, v, direction, old)
	} else {
		fits = x.window(v, segment, direction)
	}
	switch fits {
	case windowInvalid:
		return 0, stepInvalid
	case windowIgnore:
		return 0, stepOn
	case windowAccept:
	}
	x.last, x.lastDirection, x.state = segment, direction, now
	if old != now && now == trackFinWait {
		x.seen[direction].closed = true
	}
	return t.idleTCP(c, segment, old, now)
}

// idleTCP is how long a connection lives after a segment.
func (t *Translator) idleTCP(c *connection, segment trackSegment, old, now trackState) (time.Duration, step) {
	x, idle := &c.tcp, or(t.nat.TCP.Transitory, trackTimeouts[now])
	if now == trackEstablished {
		idle = or(t.nat.TCP.Established, trackTimeouts[now])
	}
	switch {
	case x.retransmissions >= trackMaxRetransmissions:
		idle = min(idle, trackUnacked)
	case segment == segmentRST:
		idle = or(t.nat.TCP.Transitory, trackTimeouts[trackClose])
	case x.seen[0].unacked || x.seen[1].unacked || x.lastWindow == 0:
		idle = min(idle, trackUnacked)
	}
	switch {
	case !c.replied && segment == segmentRST:
		return 0, stepEnd // there was no connection
	case !c.replied && segment == segmentSYN && old == trackSynSent:
		return 0, stepOn // no renewal by sending the SYN again
	case !c.replied && now == trackEstablished:
		idle = min(idle, trackUnacked)
	case c.replied && !c.assured && (old == trackSynRecv || old == trackEstablished) && now == trackEstablished:
		c.assured = true
	}
	return idle, stepOn
}

// ignore lets a segment pass that may mean that the ends know better, and takes
// a note of it.
func (x *tcpTrack) ignore(v view, segment trackSegment, direction int, old trackState) {
	x.last, x.lastDirection = segment, direction
	x.lastSeq, x.lastEnd, x.lastWindow = v.sequence(), v.sequenceEnd(), v.window()
	if segment == segmentSYN && direction == 0 {
		var e tcpEnd
		e.options(v)
		x.lastScale, x.lastHas, x.lastSack = e.scale, e.scales, e.sacks
		x.challenge = old == trackLastAck
		x.simultaneous = false
	}
	if old == trackSynSent && segment == segmentACK && direction == 1 {
		x.lastAck = v.ackNumber()
	}
}

// agree believes a SYN that was ignored: the other side has acknowledged it.
func (x *tcpTrack) agree(direction int) {
	x.seen[1-direction] = tcpEnd{
		end: x.lastEnd, maxEnd: x.lastEnd, maxWindow: max(1, uint32(x.lastWindow)),
		scale: x.lastScale, scales: x.lastHas, sacks: x.lastSack,
	}
	x.seen[direction] = tcpEnd{liberal: x.seen[direction].liberal}
	x.challenge = false
}

// reset checks a RST, which must be in sequence to end a connection, and says
// which state it leads to.
func (x *tcpTrack) reset(c *connection, v view, direction int, old trackState) (trackState, windowResult) {
	if old >= trackFinWait && old <= trackClose {
		return trackClose, windowAccept // the tuple may be in use again
	}
	now, seq, peer := trackClose, v.sequence(), &x.seen[1-direction]
	established := old == trackEstablished && c.assured
	if peer.hasMaxAck && x.last != segmentSYN {
		switch {
		case seq == 0 && !established: // most likely it answers a SYN that was let through
			return now, x.window(v, segmentRST, direction)
		case before(seq, peer.maxAck):
			return old, windowInvalid
		case !established || seq == peer.maxAck || x.last == segmentACK && x.lastDirection == direction && seq == x.lastEnd:
			return now, x.window(v, segmentRST, direction)
		}
		now = old // not quite in sequence: a challenge ACK may come
	}
	switch {
	case (c.replied && x.last == segmentSYN && x.lastDirection != direction || !c.assured && x.last == segmentACK) && v.ackNumber() == x.lastEnd:
		return now, windowAccept // it answers what was let through
	case old == trackSynSent && x.last == segmentACK && x.lastDirection == 1 && seq == x.lastAck:
		return now, windowAccept
	}
	return now, x.window(v, segmentRST, direction)
}
