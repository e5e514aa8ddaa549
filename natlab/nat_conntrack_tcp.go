package natlab

import "time"

// tcpTrack is the TCP part of a connection, as nf_conntrack_proto_tcp.c keeps it.
type tcpTrack struct {
	state        trackState
	closed       [2]bool // IP_CT_TCP_FLAG_CLOSE_INIT of either direction
	simultaneous bool    // IP_CT_TCP_SIMULTANEOUS_OPEN
	last         trackSegment
	lastOriginal bool
	lastEnd      uint32 // the sequence number after an ignored segment
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

// trackUnacked is the longest that a connection lives which began in the middle
// and was not answered: TCP_CONNTRACK_UNACK.
const trackUnacked = 5 * time.Minute

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

// stepTCP is nf_conntrack_tcp_packet without its windows. The connection then
// lives for idle; with 0 the time that it had goes on.
func (t *Translator) stepTCP(c *connection, original bool, v view) (idle time.Duration, s step) {
	if !validFlags(v.flags()) {
		return 0, stepInvalid
	}
	segment, direction := segmentOf(v.flags()), 1
	if original {
		direction = 0
	}
	x, old := &c.tcp, c.tcp.state
	now := trackTable[direction][segment][old]
	switch now {
	case trackInvalid:
		return 0, stepInvalid
	case trackSynSent:
		if old >= trackTimeWait {
			if x.closed[0] || x.closed[1] || x.last == segmentRST && x.lastOriginal == original {
				return 0, stepAgain
			}
			return t.ignoreTCP(c, original, segment, v)
		}
	case trackIgnore:
		if segment == segmentSYNACK && x.last == segmentSYN && x.lastOriginal != original && v.ackNumber() == x.lastEnd {
			// It acknowledges a SYN that was ignored: the ends agree, and so do we.
			old, now = trackSynSent, trackSynRecv
			break
		}
		return t.ignoreTCP(c, original, segment, v)
	case trackSynSent2:
		x.simultaneous = true
	case trackSynRecv:
		if !original && segment == segmentACK && x.simultaneous {
			now = trackEstablished
		}
	default: // the table has said it all
	}
	x.last, x.lastOriginal, x.state = segment, original, now
	if old != now && now == trackFinWait {
		x.closed[direction] = true
	}
	return t.idleTCP(c, segment, old, now)
}

// idleTCP is how long a connection lives after a segment.
func (t *Translator) idleTCP(c *connection, segment trackSegment, old, now trackState) (time.Duration, step) {
	idle := or(t.nat.TCP.Transitory, trackTimeouts[now])
	if now == trackEstablished {
		idle = or(t.nat.TCP.Established, trackTimeouts[now])
	}
	switch {
	case segment == segmentRST && !c.replied:
		return 0, stepEnd // there was no connection
	case segment == segmentRST:
		idle = or(t.nat.TCP.Transitory, trackTimeouts[trackClose])
	case !c.replied && segment == segmentSYN && old == trackSynSent:
		return 0, stepOn // no renewal by sending the SYN again
	case !c.replied && now == trackEstablished:
		idle = min(idle, trackUnacked)
	case !c.assured && (old == trackSynRecv || old == trackEstablished) && now == trackEstablished:
		c.assured = true
	}
	return idle, stepOn
}

// ignoreTCP lets a segment pass that may mean that the ends know better.
func (t *Translator) ignoreTCP(c *connection, original bool, segment trackSegment, v view) (time.Duration, step) {
	c.tcp.last, c.tcp.lastOriginal, c.tcp.lastEnd = segment, original, v.sequenceEnd()
	return 0, stepOn
}
