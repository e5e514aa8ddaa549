package icmp

import (
	"encoding/binary"
	"errors"
)

// Kind is what a message is, in either family.
type Kind uint8

// Kinds.
const (
	EchoRequest Kind = iota + 1
	EchoReply
	// PortUnreachable is an error of the host that a packet was for (RFC 792:
	// destination unreachable, code 3), TimeExceeded one of a router on the way.
	PortUnreachable
	TimeExceeded
)

// Error reports whether the message is about another packet.
func (k Kind) Error() bool { return k >= PortUnreachable }

// numbers are type and code of each kind, of ICMP and of ICMPv6.
var numbers = [...]struct{ v4, v6 [2]byte }{
	EchoRequest:     {[2]byte{8, 0}, [2]byte{128, 0}},
	EchoReply:       {[2]byte{0, 0}, [2]byte{129, 0}},
	PortUnreachable: {[2]byte{3, 3}, [2]byte{1, 4}},
	TimeExceeded:    {[2]byte{11, 0}, [2]byte{3, 0}},
}

// HeaderSize is the length of what is before a message's body.
const HeaderSize = 8

// ErrMalformed says that bytes are no message of a kind that is known here.
var ErrMalformed = errors.New("malformed ICMP message")

// Message is one ICMP message.
type Message struct {
	Kind Kind
	// ID and Seq are those of an echo.
	ID, Seq uint16
	// Body is what an echo carries, or the packet that an error quotes.
	Body []byte
}

// Append encodes a message. The checksum of ICMPv6 covers addresses that only the kernel
// knows, and is left to it. The length field of RFC 4884 stays 0: all of an error's body is
// the quoted packet.
func (m Message) Append(b []byte, v4 bool) []byte {
	start := len(b)
	t := numbers[m.Kind].v6
	if v4 {
		t = numbers[m.Kind].v4
	}
	b = append(b, t[0], t[1], 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.ID)
	b = binary.BigEndian.AppendUint16(b, m.Seq)
	b = append(b, m.Body...)
	if v4 {
		binary.BigEndian.PutUint16(b[start+2:], checksum(b[start:], 0))
	}
	return b
}

// Parse decodes a message without its IP header. Its checksum is the kernel's business.
// The Body is a part of b.
func Parse(b []byte, v4 bool) (Message, error) {
	if len(b) < HeaderSize {
		return Message{}, ErrMalformed
	}
	for k := EchoRequest; k <= TimeExceeded; k++ {
		t := numbers[k].v6
		if v4 {
			t = numbers[k].v4
		}
		if [2]byte(b) != t {
			continue
		}
		m := Message{Kind: k, Body: b[HeaderSize:]}
		if !k.Error() {
			m.ID, m.Seq = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		}
		return m, nil
	}
	return Message{}, ErrMalformed
}

// checksum is that of RFC 1071 over b, with a sum to begin with.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
