package session

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/quic-go/quic-go"
)

// connIDSize is the size of our connection IDs.
const connIDSize = 8

// marker begins the connection IDs of connections that this node dialled. What
// arrives for one of those goes to the transport that dials, everything else,
// with the random IDs of new clients, to the one that accepts.
var marker = [4]byte{0xb0, 0xd1, 0x4d, 0x1a}

// Dialled tells from a QUIC packet whether it belongs to a connection that this
// node dialled (RFC 9000 §17.2, §17.3.1: where the destination connection ID is).
func Dialled(packet []byte) bool {
	if len(packet) == 0 {
		return false
	}
	id := packet[1:]
	if packet[0]&0x80 != 0 { // long header
		if len(packet) < 6 || int(packet[5]) != connIDSize {
			return false
		}
		id = packet[6:]
	}
	return len(id) >= connIDSize && [4]byte(id) == marker
}

// probeSize is the size of the packets with which QUIC tries a path, which it pads
// (RFC 9000 §8.2.1).
const probeSize = 1200

// ConnID is the connection ID that a packet goes to, as a number, or 0 if the packet has
// a long header, as those have that begin a connection. It probes if it has the size
// of one that tries a path.
func ConnID(packet []byte) (id uint64, probes bool) {
	if len(packet) < 1+connIDSize || packet[0]&0x80 != 0 {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet[1:]), len(packet) == probeSize
}

// connIDs generates connection IDs with or without the marker.
type connIDs struct{ dialled bool }

// ConnectionIDLen implements [quic.ConnectionIDGenerator].
func (connIDs) ConnectionIDLen() int { return connIDSize }

// GenerateConnectionID implements [quic.ConnectionIDGenerator].
func (g connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	var b [connIDSize]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return quic.ConnectionID{}, fmt.Errorf("connection ID: %w", err)
		}
		if g.dialled {
			copy(b[:], marker[:])
		}
		if ([4]byte(b[:]) == marker) == g.dialled {
			return quic.ConnectionIDFromBytes(b[:]), nil
		}
	}
}
