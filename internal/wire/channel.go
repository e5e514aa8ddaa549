package wire

import (
	"encoding/binary"

	"github.com/pion/stun/v3"
)

// Channel is the number of a relay channel at its server, as seen by one node.
type Channel uint16

// Channel numbers (RFC 8656 §12 has 0x4000-0x4FFF). The half shows who chose
// the number, so that the asker's data can leave beside its request.
const (
	FirstAskedChannel  Channel = 0x4000 // to 0x47FF: chosen by the node that asked
	FirstServedChannel Channel = 0x4800 // to 0x4FFF: chosen by the server for the other
	ChannelsPerHalf            = 0x800

	// ChannelOverhead is the size of a ChannelData header.
	ChannelOverhead = 4
)

// Asked reports whether c is of the half that the asker chooses from, Served
// whether it is of the server's.
func (c Channel) Asked() bool { return c >= FirstAskedChannel && c < FirstServedChannel }

// Served reports whether c is of the half that the server chooses from.
func (c Channel) Served() bool {
	return c >= FirstServedChannel && c < FirstServedChannel+ChannelsPerHalf
}

// AppendChannelData appends a ChannelData message (RFC 8656 §12.4): number,
// length, data. Over UDP it needs no padding.
func AppendChannelData(b []byte, c Channel, data []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(c))
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// PutChannelHeader writes the header of a ChannelData message of n data bytes
// into the four bytes of b.
func PutChannelHeader(b []byte, c Channel, n int) {
	binary.BigEndian.PutUint16(b, uint16(c))
	binary.BigEndian.PutUint16(b[2:], uint16(n))
}

// ParseChannelData reads a ChannelData message that came in one UDP packet. The
// data is a part of b.
func ParseChannelData(b []byte) (c Channel, data []byte, ok bool) {
	if len(b) < ChannelOverhead {
		return 0, nil, false
	}
	c = Channel(binary.BigEndian.Uint16(b))
	n := int(binary.BigEndian.Uint16(b[2:]))
	if !c.Asked() && !c.Served() || n > len(b)-ChannelOverhead {
		return 0, nil, false
	}
	return c, b[ChannelOverhead : ChannelOverhead+n], true
}

// AppendStranger builds a ChannelError without HANDLE and SEALED, 20 bytes: the
// server does not know the source of the data. Nothing authenticates it.
func AppendStranger(b []byte, id TransactionID) []byte {
	return append(b, newMessage(stun.NewType(ChannelError, stun.ClassIndication), id).Raw...)
}
