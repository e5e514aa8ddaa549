package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the largest message over TCP, padding included.
const MaxFrame = MaxPadded

// ReadFrame reads the next message from a stream, over TCP or TLS: STUN says its
// length itself (RFC 8489 §6.2.2), and so does ChannelData, which is padded there to
// four bytes (RFC 8656 §12.5). The reader's buffer must hold [MaxFrame]; the message
// is a part of it until the next read. The error is io.EOF between messages, and
// ErrMalformed where none begins: a stream is of no use after that.
func ReadFrame(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(4)
	if err != nil {
		return nil, cutShort(err, len(head))
	}
	size, padded := 0, 0
	switch n := int(binary.BigEndian.Uint16(head[2:])); {
	case head[0] < 0x04 && n%4 == 0:
		size, padded = 20+n, 20+n
	case head[0]&0xF0 == 0x40:
		size, padded = ChannelOverhead+n, (ChannelOverhead+n+3)&^3
	}
	if size == 0 || padded > MaxFrame {
		return nil, fmt.Errorf("%w: %x begins no frame", ErrMalformed, head)
	}
	b, err := r.Peek(padded)
	if err != nil {
		return nil, cutShort(err, len(b))
	}
	_, _ = r.Discard(padded)
	return b[:size:size], nil
}

// AppendFrame appends a message as it stands in a stream: with its padding.
func AppendFrame(b, message []byte) []byte {
	b = append(b, message...)
	return append(b, padding[:FrameSize(len(message))-len(message)]...)
}

var padding [3]byte

// FrameSize is the size of a message of n bytes in a stream.
func FrameSize(n int) int { return (n + 3) &^ 3 }

// cutShort tells an end within a message from one between two.
func cutShort(err error, n int) error {
	if n > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
