package natlab

import "encoding/binary"

// tcpEnd is what was seen of one end of a connection: ip_ct_tcp_state.
type tcpEnd struct {
	end       uint32 // the sequence number after what it sent
	maxEnd    uint32 // the highest that it may send
	maxWindow uint32 // the largest window that it offered
	maxAck    uint32 // the highest that it acknowledged
	hasMaxAck bool
	scale     uint8 // of its windows
	scales    bool  // it sent the option (RFC 7323)
	sacks     bool  // it permits selective acknowledgments (RFC 2018)
	liberal   bool  // its windows are not known
	unacked   bool  // it waits for an acknowledgment
	closed    bool  // it was the first to send a FIN
}

// windowResult is what tcp_in_window says of a segment.
type windowResult uint8

const (
	windowAccept  windowResult = iota
	windowIgnore               // it passes and changes nothing
	windowInvalid              // it belongs to no connection
)

// begin is tcp_new for a connection's first segment.
func (x *tcpTrack) begin(v view, segment trackSegment) {
	e := &x.seen[0]
	e.end, e.maxWindow = v.sequenceEnd(), max(1, uint32(v.window()))
	e.maxEnd = e.end
	if segment == segmentSYN {
		e.options(v)
		return
	}
	e.maxEnd += e.maxWindow
	x.seen[1].liberal, x.seen[1].sacks = true, true
	e.liberal, e.sacks = true, true
}

// window is tcp_in_window: is a segment one that its sender may send now?
func (x *tcpTrack) window(v view, segment trackSegment, direction int) windowResult {
	sender, receiver := &x.seen[direction], &x.seen[1-direction]
	flags := v.flags()
	syn, hasAck := flags&flagSYN != 0, flags&flagACK != 0
	seq, ack, end, window := v.sequence(), v.ackNumber(), v.sequenceEnd(), uint32(v.window())
	sack := ack
	if receiver.sacks {
		sack = v.sack(ack)
	}
	switch {
	case sender.maxWindow == 0 && syn:
		sender.init(receiver, v, end, window, direction)
		if !hasAck {
			return windowAccept // simultaneous open
		}
	case sender.maxWindow == 0: // in the middle of a connection
		sender.end, sender.maxWindow = end, max(1, window<<sender.scale)
		sender.maxEnd = end + sender.maxWindow
		if receiver.maxWindow == 0 {
			receiver.end, receiver.maxEnd = sack, sack
		} else if sack == receiver.end+1 {
			receiver.end++
		}
	case syn && before(sender.end, end) && (x.state == trackSynSent || x.state == trackSynRecv):
		sender.init(receiver, v, end, window, direction)
		if direction == 1 && !hasAck {
			return windowAccept
		}
	}
	if !hasAck || flags&flagRST != 0 && ack == 0 {
		ack, sack = receiver.end, receiver.end
	}
	if flags&flagRST != 0 && seq == 0 && x.state == trackSynSent {
		seq, end = sender.end, sender.end
	}
	if result := sender.fits(receiver, seq, end, sack); result != windowAccept {
		if sender.liberal {
			return windowAccept // but nothing is learned from it
		}
		return result
	}
	if !syn {
		window <<= sender.scale
	}
	sender.update(receiver, hasAck, ack, sack, end, window)
	if segment == segmentACK {
		x.countRetransmissions(v, direction, seq, ack, end)
	}
	return windowAccept
}

// fits checks a segment against the windows.
func (sender *tcpEnd) fits(receiver *tcpEnd, seq, end, sack uint32) windowResult {
	const maxAckWindow = 66000 // MAXACKWINCONST
	oldest := receiver.end - max(sender.maxWindow, maxAckWindow) - 1
	if !before(seq, sender.maxEnd+1) {
		overshot := end - sender.maxEnd + 1
		if receiver.maxWindow != 0 && before(sender.end-receiver.maxWindow-1, end) && before(oldest, sack) &&
			overshot <= receiver.maxWindow && before(sack, receiver.end+1) {
			// More than the window: the receiver may take it nevertheless.
			sender.end, sender.unacked = end, true
			return windowIgnore
		}
		return windowInvalid
	}
	if !before(sack, receiver.end+1) {
		return windowInvalid // it acknowledges what was not seen
	}
	if receiver.maxWindow != 0 && !before(sender.end-receiver.maxWindow-1, end) || !before(oldest, sack) {
		return windowIgnore // old
	}
	return windowAccept
}

// update is what an accepted segment says about both ends.
func (sender *tcpEnd) update(receiver *tcpEnd, hasAck bool, ack, sack, end, window uint32) {
	sender.maxWindow = max(sender.maxWindow, window+(sack-ack))
	if before(sender.end, end) {
		sender.end, sender.unacked = end, true
	}
	if hasAck && (!sender.hasMaxAck || before(sender.maxAck, ack)) {
		sender.maxAck, sender.hasMaxAck = ack, true
	}
	if receiver.maxWindow != 0 && before(sender.maxEnd, end) {
		receiver.maxWindow += end - sender.maxEnd
	}
	if before(receiver.maxEnd-1, sack+window) {
		receiver.maxEnd = sack + window
		if window == 0 {
			receiver.maxEnd++
		}
	}
	if ack == receiver.end {
		receiver.unacked = false
	}
}

// init is tcp_init_sender: the first SYN of a direction.
func (sender *tcpEnd) init(receiver *tcpEnd, v view, end, window uint32, direction int) {
	sender.end, sender.maxEnd, sender.maxWindow = end, end, max(1, window)
	sender.options(v)
	// Windows scale only where both ends say so.
	if direction == 1 && (!sender.scales || !receiver.scales) {
		sender.scale, receiver.scale = 0, 0
	}
}

func (x *tcpTrack) countRetransmissions(v view, direction int, seq, ack, end uint32) {
	if x.lastDirection == direction && x.lastSeq == seq && x.lastAck == ack && x.lastEnd == end && x.lastWindow == v.window() {
		x.retransmissions = min(x.retransmissions+1, trackMaxRetransmissions)
		return
	}
	x.lastDirection, x.lastSeq, x.lastAck, x.lastEnd, x.lastWindow = direction, seq, ack, end, v.window()
	x.retransmissions = 0
}

// before is whether one sequence number is before another (RFC 9293 §3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

func (v *view) sequence() uint32  { return binary.BigEndian.Uint32(v.b[v.at+4:]) }
func (v *view) ackNumber() uint32 { return binary.BigEndian.Uint32(v.b[v.at+8:]) }
func (v *view) window() uint16    { return binary.BigEndian.Uint16(v.b[v.at+14:]) }

// sequenceEnd is the sequence number after a segment.
func (v *view) sequenceEnd() uint32 {
	b := v.b[v.at:]
	data := max(0, len(b)-int(b[12]>>4)*4)
	return v.sequence() + uint32(data) + uint32(b[13]>>1&1) + uint32(b[13]&1)
}

// Kinds of TCP options.
const (
	optionEnd       = 0
	optionNone      = 1
	optionScale     = 3
	optionSackPerm  = 4
	optionSack      = 5
	maxScale        = 14 // RFC 7323 §2.3
	sackBlockLength = 8
)

// eachOption reads a segment's options.
func (v *view) eachOption(f func(kind byte, data []byte)) {
	b := v.b[v.at:]
	header := int(b[12]>>4) * 4
	if header < headerTCP || header > len(b) {
		return
	}
	for b = b[headerTCP:header]; len(b) > 0; {
		switch {
		case b[0] == optionEnd:
			return
		case b[0] == optionNone:
			b = b[1:]
			continue
		case len(b) < 2 || b[1] < 2 || int(b[1]) > len(b):
			return
		}
		f(b[0], b[2:b[1]])
		b = b[b[1]:]
	}
}

// options is tcp_options: those of a SYN.
func (e *tcpEnd) options(v view) {
	e.scale, e.scales, e.sacks = 0, false, false
	e.hasMaxAck, e.unacked, e.closed = false, false, false
	v.eachOption(func(kind byte, data []byte) {
		switch {
		case kind == optionSackPerm && len(data) == 0:
			e.sacks = true
		case kind == optionScale && len(data) == 1:
			e.scale, e.scales = min(data[0], maxScale), true
		}
	})
}

// sack is the highest sequence number that a segment acknowledges, if only
// selectively (RFC 2018).
func (v *view) sack(ack uint32) uint32 {
	v.eachOption(func(kind byte, data []byte) {
		if kind != optionSack {
			return
		}
		for ; len(data) >= sackBlockLength; data = data[sackBlockLength:] {
			if right := binary.BigEndian.Uint32(data[4:]); before(ack, right) {
				ack = right
			}
		}
	})
	return ack
}
