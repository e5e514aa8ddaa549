package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A stream begins with a request: version (1 byte), operation (1), network (1), the
// length of a text (2, big-endian) and the text: the address that is meant, or for
// opTake the number of the listener (8 bytes). A reply is: version (1), status (1), the
// length of a text (2) and the text, which for opListen is the number of the listener
// (8 bytes) and its address, and for a refusal the reason.
//
// After its reply to opListen, the peer sends one byte, wanted, for each stream that it
// would like to have. A stream of opTake waits; when a client comes, the peer sends one
// byte, taken, and what the client sends, and then the reply goes the other way.
const version = 1

const (
	opConnect byte = 1 // to connect to the target
	opAsk     byte = 2 // whether opConnect would be allowed
	opListen  byte = 3 // to listen there, for as long as the stream is open
	opTake    byte = 4 // to be the connection of the next client
)

const (
	wanted byte = 'W'
	taken  byte = 'T'
)

var networks = []string{1: TCP, 2: UDP, 3: Unix}

// request is what a stream is opened for.
type request struct {
	op      byte
	network string
	text    string
}

const requestHead = 5

func (q request) bytes() []byte {
	var network byte
	for i, n := range networks {
		if n == q.network {
			network = byte(i)
		}
	}
	b := []byte{version, q.op, network}
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.text)))
	return append(b, q.text...)
}

var (
	errVersion   = errors.New("it speaks another version of this protocol")
	errMalformed = errors.New("malformed message")
)

func readRequest(r io.Reader) (q request, err error) {
	var head [requestHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return q, err
	}
	n := int(binary.BigEndian.Uint16(head[3:]))
	switch {
	case head[0] != version:
		return q, errVersion
	case head[1] < opConnect || head[1] > opTake || head[2] == 0 || int(head[2]) >= len(networks) || n > maxAddress:
		return q, errMalformed
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return q, err
	}
	return request{head[1], networks[head[2]], string(text)}, nil
}

// status says what became of a request.
type status byte

const (
	statusOK status = iota
	statusNotAllowed
	statusRefused     // nothing listens at the target
	statusNoHost      // its name is not known
	statusUnreachable // it does not answer
	statusTaken       // somebody else listens there
	statusVersion
	statusFailed // the text says how
)

// reply is the answer to a request.
type reply struct {
	status status
	text   string
}

func (p reply) bytes() []byte {
	text := p.text[:min(len(p.text), maxAddress)]
	b := []byte{version, byte(p.status)}
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

const replyHead = 4

// readReply reads a reply. One that is not statusOK is a *RefusedError.
func readReply(r io.Reader) (text string, err error) {
	var head [replyHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", noEOF(err)
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if head[0] != version {
		return "", errVersion
	}
	if n > maxAddress {
		return "", errMalformed
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", noEOF(err)
	}
	if s := status(head[1]); s != statusOK {
		return "", &RefusedError{status: s, text: printable(string(b))}
	}
	return string(b), nil
}

// noEOF is for places where an end is not an end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the peer ended the connection before it answered: %w", io.ErrUnexpectedEOF)
	}
	return err
}
