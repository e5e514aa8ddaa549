package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// kind is what a stream is for: its first byte.
type kind byte

const (
	kindStream   kind = 1 // a connection to a service
	kindDatagram kind = 2 // a flow of datagrams to a service
	kindPing     kind = 3 // answered with one byte
	kindDrain    kind = 4 // see drain.go
	kindSettle   kind = 5
	kindTCP      kind = 6 // asks for a connection over TCP to a service; a token follows
)

// MaxService is the longest name of a service, in bytes.
const MaxService = 255

var errHeader = errors.New("malformed stream header")

// CheckService refuses names that no header can carry.
func CheckService(name string) error {
	if name == "" || len(name) > MaxService {
		return fmt.Errorf("service name %q: it has %d bytes, and needs 1 to %d", name, len(name), MaxService)
	}
	return nil
}

// appendHeader builds what a stream begins with: kind, length of the service's
// name, and the name; the others have an empty one.
func appendHeader(b []byte, k kind, service string) []byte {
	return append(append(b, byte(k), byte(len(service))), service...)
}

// readHeader reads what appendHeader built.
func readHeader(r io.Reader) (kind, string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	k, name := kind(head[0]), make([]byte, head[1])
	if _, err := io.ReadFull(r, name); err != nil {
		return 0, "", err
	}
	needsName := k == kindStream || k == kindDatagram || k == kindTCP
	if k < kindStream || k > kindTCP || needsName != (len(name) > 0) {
		return 0, "", errHeader
	}
	return k, string(name), nil
}

// appendFlow builds the beginning of a datagram: the ID of the stream that
// opened its flow, as RFC 9297 §2.1 does with a quarter of it. Here both sides
// open flows, so the ID is whole.
func appendFlow(b []byte, stream uint64) []byte { return quicvarint.Append(b, stream) }

// cutFlow reads it and returns the payload.
func cutFlow(b []byte) (stream uint64, payload []byte, err error) {
	r := bytes.NewReader(b)
	if stream, err = quicvarint.Read(r); err != nil {
		return 0, nil, errHeader
	}
	return stream, b[len(b)-r.Len():], nil
}
