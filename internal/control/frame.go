package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"bodkin/peer"
)

// What is sent over the socket once a dial has connected, either way. A frame is
// its kind (1 byte), the length of its body (2 bytes, big-endian) and the body.
// The socket's own end says nothing: it is how a process that dies looks, too.
const (
	frameData   = 'D' // bytes of the sender's direction
	frameEnd    = 'E' // the sender's direction is over
	frameFailed = 'F' // it broke off; the body is an Error
	frameUnread = 'U' // the sender reads no more; the body is an Error

	framePackets = 'O' // the sender takes datagrams from now on
	framePacket  = 'P' // one datagram
	framePeer    = 'C' // a listener's: number (8 bytes) and ID of a peer that connected
)

const (
	frameHead = 3
	maxFrame  = 1<<16 - 1
	peerSize  = 8 + len(peer.ID{})
)

var errFrame = errors.New("control socket: malformed frame; is the other program of another version?")

// appendFrame builds a frame; the body is cut where it is too long.
func appendFrame(b []byte, kind byte, body []byte) []byte {
	body = body[:min(len(body), maxFrame)]
	b = binary.BigEndian.AppendUint16(append(b, kind), uint16(len(body)))
	return append(b, body...)
}

// readFrame reads a frame into buf, which has room for maxFrame bytes, and
// returns its body there.
func readFrame(r io.Reader, buf []byte) (kind byte, body []byte, err error) {
	if _, err := io.ReadFull(r, buf[:frameHead]); err != nil {
		return 0, nil, err
	}
	kind, n := buf[0], int(binary.BigEndian.Uint16(buf[1:]))
	switch kind {
	case frameData, frameEnd, frameFailed, frameUnread, framePackets, framePacket, framePeer:
	default:
		return 0, nil, fmt.Errorf("%w (kind %d)", errFrame, kind)
	}
	if (kind == frameEnd || kind == framePackets) && n > 0 || kind == framePeer && n != peerSize {
		return 0, nil, errFrame
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, fmt.Errorf("control socket: %w", noEOF(err))
	}
	return kind, buf[:n], nil
}

// noEOF is for places where an end is not an end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
