package natlab

import "time"

// tcpState is how far a connection is, as a NAT sees it.
type tcpState uint8

const (
	synOut tcpState = 1 << iota
	synIn
	ackOut
	ackIn
	tcpPicked  // it began without a SYN
	tcpClosing // a RST or FIN was seen
)

// onlyAsked: a SYN went out, and nothing came in.
func (s tcpState) onlyAsked() bool { return s&synOut != 0 && s&(synIn|ackIn|tcpPicked) == 0 }

// established: both SYNs were acknowledged (RFC 5382 §5).
func (s tcpState) established() bool {
	const all = synOut | synIn | ackOut | ackIn
	return s&tcpClosing == 0 && (s&all == all || s&tcpPicked != 0)
}

// segment is what a segment does to a connection. It may end it.
func (t *Translator) segment(s *session, from Side, flags uint8) {
	syn, ack := synOut, ackOut
	if from == Outside {
		syn, ack = synIn, ackIn
	}
	switch opens := flags&(flagSYN|flagACK) == flagSYN; {
	case opens && s.tcp&tcpClosing != 0:
		s.tcp = 0 // the next connection of the same endpoints
	case !opens && s.tcp == 0:
		s.tcp = tcpPicked
	}
	if flags&flagSYN != 0 {
		s.tcp |= syn
	}
	if flags&flagACK != 0 {
		s.tcp |= ack
	}
	closing := CloseIgnored
	if flags&flagFIN != 0 {
		closing = t.nat.TCP.OnFIN
	}
	if flags&flagRST != 0 {
		closing = t.nat.TCP.OnReset
	}
	switch closing {
	case CloseAtOnce:
		t.endSession(s)
		return
	case CloseTransitory:
		s.tcp |= tcpClosing
	case CloseIgnored:
	}
	idle := or(t.nat.TCP.Transitory, 4*time.Minute)
	if s.tcp.established() {
		idle = or(t.nat.TCP.Established, 2*time.Hour+4*time.Minute)
	}
	t.expiries.set(&s.expiry, t.now+int64(idle))
}

// heldSYN is a SYN that came before anybody inside asked for it (RFC 5382 REQ-4).
type heldSYN struct {
	to, from endpoint
	until    int64
	data     []byte // as much as an error quotes
}

const (
	// holdSYN is for how long (REQ-4).
	holdSYN     = 6 * time.Second
	maxHeldSYNs = 1024
)

// hold keeps a SYN.
func (t *Translator) hold(v view, out []Sent) ([]Sent, Verdict) {
	for _, h := range t.held {
		if h.to == v.dst && h.from == v.src {
			return out, Verdict{Hold, HeldSYN}
		}
	}
	if len(t.held) >= maxHeldSYNs {
		return out, Verdict{Drop, HeldTooMany}
	}
	t.held = append(t.held, heldSYN{v.dst, v.src, t.now + int64(holdSYN), append([]byte(nil), v.b...)})
	return out, Verdict{Hold, HeldSYN}
}

// forgetHeld drops the SYN that an outbound one made welcome.
func (t *Translator) forgetHeld(mapped, remote endpoint) {
	for i, h := range t.held {
		if h.to == mapped && h.from == remote {
			t.held = append(t.held[:i], t.held[i+1:]...)
			return
		}
	}
}

// answerHeld answers what was held long enough.
func (t *Translator) answerHeld(out []Sent) []Sent {
	for len(t.held) > 0 && t.held[0].until <= t.now {
		if v, ok := look(t.held[0].data, false); ok {
			out = t.answerError(v, Outside, out)
		}
		t.held = t.held[1:]
	}
	return out
}
