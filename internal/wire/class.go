package wire

import "encoding/binary"

// Class is what a packet is, by its first bytes (RFC 9443, RFC 7983).
type Class uint8

// Classes of packets on a node's socket.
const (
	ClassOther   Class = iota // QUIC's, or whoever else shares the socket
	ClassSTUN                 // control
	ClassChannel              // relayed data; only a server sends it
)

const magicCookie = 0x2112A442

// Classify tells what a packet is. fromServer says whether it came from exactly
// the server's endpoint: a quarter of QUIC's short headers begin with 0x40-0x4F
// too, so ChannelData counts from nowhere else.
func Classify(b []byte, fromServer bool) Class {
	switch {
	case len(b) >= 20 && b[0] < 0x04 && binary.BigEndian.Uint32(b[4:]) == magicCookie:
		return ClassSTUN
	case fromServer && len(b) >= ChannelOverhead && b[0]&0xF0 == 0x40:
		return ClassChannel
	default:
		return ClassOther
	}
}
