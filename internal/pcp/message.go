package pcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Ports: routers listen on the first, clients hear announcements on the second
// (RFC 6887 §19.1, RFC 6886 §3.2.1). Announcements are sent to the groups.
const (
	ServerPort = 5351
	ClientPort = 5350
)

// Groups to which routers send what concerns everybody (RFC 6887 §14.1.1).
var (
	AllHosts  = netip.AddrFrom4([4]byte{224, 0, 0, 1})
	AllNodes6 = netip.MustParseAddr("ff02::1")
)

// Version is PCP's.
const Version = 2

// MaxSize is the longest PCP message (RFC 6887 §7).
const MaxSize = 1100

// Opcode is what a PCP message is about (RFC 6887 §19.2).
type Opcode uint8

// Opcodes.
const (
	Announce Opcode = iota
	Map
	Peer
)

// IP protocols that have ports.
const (
	TCP = 6
	UDP = 17
)

// Message is a PCP request or response.
type Message struct {
	Response bool
	Opcode   Opcode
	Lifetime uint32     // seconds
	Client   netip.Addr // in requests: the sender's address, as it sees it
	Result   Result     // in responses, as is Epoch
	Epoch    uint32     // seconds since the router lost its state
	Mapping  Mapping    // of MAP and PEER
	Options  Options
}

// Mapping is the body of MAP and PEER (RFC 6887 §11.1, §12.1).
type Mapping struct {
	Nonce    [12]byte
	Protocol uint8 // 0 in MAP: all
	Internal uint16
	// External is suggested in a request, and assigned in a response. Its address
	// may be unspecified.
	External netip.AddrPort
	// Remote is PEER's: the other end of the flow.
	Remote netip.AddrPort
}

const (
	headerSize = 24
	mapSize    = 36
	peerSize   = 56

	responseBit = 0x80
)

var (
	// ErrMalformed is the error of what is no PCP or NAT-PMP.
	ErrMalformed = errors.New("malformed")
	// ErrVersion is the error of a message whose version is another's.
	ErrVersion = errors.New("other version")
)

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w PCP message: "+format, append([]any{ErrMalformed}, a...)...)
}

// Append encodes the message.
func (m Message) Append(b []byte) []byte {
	op := byte(m.Opcode)
	if m.Response {
		b = append(b, Version, op|responseBit, 0, byte(m.Result))
		b = binary.BigEndian.AppendUint32(b, m.Lifetime)
		b = binary.BigEndian.AppendUint32(b, m.Epoch)
		b = append(b, make([]byte, 12)...)
	} else {
		b = append(b, Version, op, 0, 0)
		b = binary.BigEndian.AppendUint32(b, m.Lifetime)
		b = appendAddr(b, m.Client)
	}
	if m.Opcode == Map || m.Opcode == Peer {
		b = m.Mapping.append(b)
		if m.Opcode == Peer {
			b = binary.BigEndian.AppendUint16(b, m.Mapping.Remote.Port())
			b = appendAddr(append(b, 0, 0), m.Mapping.Remote.Addr())
		}
	}
	return m.Options.append(b)
}

func (m Mapping) append(b []byte) []byte {
	b = append(b, m.Nonce[:]...)
	b = append(b, m.Protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.Internal)
	b = binary.BigEndian.AppendUint16(b, m.External.Port())
	return appendAddr(b, m.External.Addr())
}

// appendAddr writes IPv4 as an IPv4-mapped address (RFC 6887 §5). No address
// becomes that of all zeros.
func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		a = netip.IPv6Unspecified()
	}
	x := a.As16()
	return append(b, x[:]...)
}

func addr(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:16])).Unmap() }

// Parse decodes a request or response. A response whose result is an error may
// lack its body, and has the options of the request, which are not looked at. The
// error wraps ErrVersion if the message is of another version, which the second
// byte after that tells nothing of.
func Parse(b []byte) (Message, error) {
	if len(b) < 2 {
		return Message{}, malformed("%d bytes", len(b))
	}
	if b[0] != Version {
		return Message{}, fmt.Errorf("%w: %d", ErrVersion, b[0])
	}
	if len(b) < headerSize || len(b) > MaxSize || len(b)%4 != 0 {
		return Message{}, malformed("%d bytes", len(b))
	}
	m := Message{
		Response: b[1]&responseBit != 0, Opcode: Opcode(b[1] &^ responseBit),
		Lifetime: binary.BigEndian.Uint32(b[4:]),
	}
	if m.Response {
		m.Result, m.Epoch = Result(b[3]), binary.BigEndian.Uint32(b[8:])
	} else {
		m.Client = addr(b[8:])
	}
	rest := b[headerSize:]
	failed := m.Response && m.Result != Success
	need := map[Opcode]int{Map: mapSize, Peer: peerSize}[m.Opcode]
	if len(rest) < need {
		if failed {
			return m, nil
		}
		return Message{}, malformed("%d bytes of opcode %d", len(b), m.Opcode)
	}
	if need > 0 {
		m.Mapping = parseMapping(rest)
		if m.Opcode == Peer {
			m.Mapping.Remote = netip.AddrPortFrom(addr(rest[40:]), binary.BigEndian.Uint16(rest[36:]))
		}
	}
	if failed {
		return m, nil
	}
	var err error
	m.Options, err = parseOptions(rest[need:])
	return m, err
}

func parseMapping(b []byte) (m Mapping) {
	copy(m.Nonce[:], b)
	m.Protocol = b[12]
	m.Internal = binary.BigEndian.Uint16(b[16:])
	m.External = netip.AddrPortFrom(addr(b[20:]), binary.BigEndian.Uint16(b[18:]))
	return m
}
