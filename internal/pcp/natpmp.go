package pcp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// PMPVersion is NAT-PMP's.
const PMPVersion = 0

// PMPOpcode is what a NAT-PMP message is about (RFC 6886 §3).
type PMPOpcode uint8

// NAT-PMP's opcodes.
const (
	PMPAddress PMPOpcode = iota
	PMPMapUDP
	PMPMapTCP
)

// PMPMessage is a NAT-PMP request or response.
type PMPMessage struct {
	Response bool
	Opcode   PMPOpcode
	Result   PMPResult  // in responses, as are
	Epoch    uint32     // seconds since the router lost its state
	External netip.Addr // of PMPAddress
	// The rest is of PMPMapUDP and PMPMapTCP. A lifetime of 0 seconds deletes.
	Internal     uint16
	ExternalPort uint16
	Lifetime     uint32
}

const (
	pmpAddressSize = 12 // of the response
	pmpMapSize     = 12 // of the request
	pmpMappedSize  = 16
	pmpErrorSize   = 4 // of the shortest response: some routers send no more
)

// Append encodes the message.
func (m PMPMessage) Append(b []byte) []byte {
	if !m.Response {
		b = append(b, PMPVersion, byte(m.Opcode))
		if m.Opcode == PMPAddress {
			return b
		}
		return m.mapping(append(b, 0, 0))
	}
	b = append(b, PMPVersion, byte(m.Opcode)|responseBit)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Result))
	b = binary.BigEndian.AppendUint32(b, m.Epoch)
	if m.Opcode == PMPAddress {
		var a [4]byte
		if m.External.Is4() {
			a = m.External.As4()
		}
		return append(b, a[:]...)
	}
	return m.mapping(b)
}

func (m PMPMessage) mapping(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, m.Internal)
	b = binary.BigEndian.AppendUint16(b, m.ExternalPort)
	return binary.BigEndian.AppendUint32(b, m.Lifetime)
}

// ParsePMP decodes a request or response. One whose result is an error may end
// after it. An error wraps ErrVersion if the message is of another version.
func ParsePMP(b []byte) (PMPMessage, error) {
	if len(b) < 2 {
		return PMPMessage{}, malformedPMP(b)
	}
	if b[0] != PMPVersion {
		return PMPMessage{}, fmt.Errorf("%w: %d", ErrVersion, b[0])
	}
	m := PMPMessage{Response: b[1]&responseBit != 0, Opcode: PMPOpcode(b[1] &^ responseBit)}
	if !m.Response {
		return m.parseRequest(b)
	}
	if len(b) < pmpErrorSize {
		return PMPMessage{}, malformedPMP(b)
	}
	m.Result = PMPResult(binary.BigEndian.Uint16(b[2:]))
	if len(b) >= pmpErrorSize+4 {
		m.Epoch = binary.BigEndian.Uint32(b[4:])
	}
	switch {
	case m.Opcode == PMPAddress && len(b) >= pmpAddressSize:
		m.External = netip.AddrFrom4([4]byte(b[8:]))
	case (m.Opcode == PMPMapUDP || m.Opcode == PMPMapTCP) && len(b) >= pmpMappedSize:
		m.parseMapping(b[8:])
	case m.Result == PMPSuccess:
		return PMPMessage{}, malformedPMP(b)
	}
	return m, nil
}

func (m PMPMessage) parseRequest(b []byte) (PMPMessage, error) {
	if m.Opcode == PMPMapUDP || m.Opcode == PMPMapTCP {
		if len(b) < pmpMapSize {
			return PMPMessage{}, malformedPMP(b)
		}
		m.parseMapping(b[4:])
	}
	return m, nil
}

func (m *PMPMessage) parseMapping(b []byte) {
	m.Internal, m.ExternalPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	m.Lifetime = binary.BigEndian.Uint32(b[4:])
}

func malformedPMP(b []byte) error {
	return fmt.Errorf("%w NAT-PMP message of %d bytes", ErrMalformed, len(b))
}
