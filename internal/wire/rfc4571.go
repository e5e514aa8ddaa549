package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
)

// A route over TCP carries the packets that one over UDP would, each behind its length
// in 16 bits (RFC 4571 §2).

// lengthSize is the size of that length.
const lengthSize = 2

// MaxPacketFrame is the largest frame that is read: none is larger than a probe may be.
const MaxPacketFrame = lengthSize + MaxPadded

// ReadPacketFrame reads the next packet from a stream. The reader's buffer must hold
// [MaxPacketFrame]; the packet is a part of it until the next read. Null packets are
// passed over. The error is io.EOF between frames, and ErrMalformed where a frame is
// longer than there are any: a stream is of no use after that.
func ReadPacketFrame(r *bufio.Reader) ([]byte, error) {
	for {
		head, err := r.Peek(lengthSize)
		if err != nil {
			return nil, cutShort(err, len(head))
		}
		n := int(binary.BigEndian.Uint16(head))
		if n > MaxPadded {
			return nil, fmt.Errorf("%w: a frame of %d bytes", ErrMalformed, n)
		}
		b, err := r.Peek(lengthSize + n)
		if err != nil {
			return nil, cutShort(err, len(b))
		}
		_, _ = r.Discard(lengthSize + n)
		if n > 0 {
			return b[lengthSize : lengthSize+n : lengthSize+n], nil
		}
	}
}

// AppendPacketFrame appends a packet with its length.
func AppendPacketFrame(b, packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(packet))), packet...)
}

// PacketFrameSize is the size of the frame of a packet of n bytes.
func PacketFrameSize(n int) int { return lengthSize + n }
