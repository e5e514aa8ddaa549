package trace

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"bodkin/internal/wire"
	"bodkin/natlab"
)

// describe names a packet by what it carries, for people.
func describe(p natlab.Packet, server []netip.Addr) (string, Class) {
	switch p.Protocol {
	case natlab.ProtocolUDP:
		if d, ok := p.Datagram(); ok {
			return datagram(d, slices.Contains(server, p.From.Addr()), slices.Contains(server, p.To.Addr()))
		}
	case natlab.ProtocolTCP:
		if s, ok := p.Segment(); ok {
			return segment(s)
		}
	case natlab.ProtocolICMP, natlab.ProtocolICMPv6:
		return icmp(p), ICMP
	}
	return fmt.Sprintf("protocol %d", p.Protocol), Other
}

// methods are our words for STUN methods; a Binding between peers is a probe.
var methods = map[uint16]string{
	1:                         "Binding",
	uint16(wire.Register):     "Register",
	uint16(wire.Refresh):      "Refresh",
	uint16(wire.Introduce):    "Introduce",
	uint16(wire.Introduced):   "Introduced",
	uint16(wire.CloseChannel): "CloseChannel",
	uint16(wire.Notice):       "Notice",
	uint16(wire.ChannelError): "ChannelError",
}

// The classes of STUN messages (RFC 8489 §5): of a request nothing is said.
var stunClasses = [...]string{"", " indication", " success", " error"}

func datagram(d []byte, fromServer, toServer bool) (string, Class) {
	switch wire.Classify(d, fromServer || toServer) {
	case wire.ClassSTUN:
		t := binary.BigEndian.Uint16(d)
		method := t&0xf | t>>1&0x70 | t>>2&0xf80
		name, class := methods[method], Control
		if name == "" {
			name = fmt.Sprintf("STUN method %#x", method)
		}
		if !fromServer && !toServer {
			class = Probe
			if method == 1 {
				name = "probe"
			}
		}
		name += stunClasses[t>>4&1|t>>7&2]
		if code := errorCode(d); code != 0 {
			name += fmt.Sprintf(" %d", code)
		}
		return name, class
	case wire.ClassChannel:
		return "relayed data", Data
	case wire.ClassOther:
	}
	return "data", Data
}

// errorCode is that of a STUN message (RFC 8489 §14.8); 0 if it has none.
func errorCode(d []byte) int {
	for d = d[20:]; len(d) >= 4; {
		kind, n := binary.BigEndian.Uint16(d), int(binary.BigEndian.Uint16(d[2:]))
		if kind == 9 && n >= 4 && len(d) >= 8 {
			return int(d[6]&7)*100 + int(d[7])
		}
		d = d[min(len(d), 4+(n+3)/4*4):]
	}
	return 0
}

func segment(s natlab.Segment) (string, Class) {
	var flags []string
	for _, f := range []struct {
		flag natlab.TCPFlags
		name string
	}{{natlab.SYN, "SYN"}, {natlab.FIN, "FIN"}, {natlab.RST, "RST"}, {natlab.ACK, "ACK"}} {
		if s.Flags&f.flag != 0 {
			flags = append(flags, f.name)
		}
	}
	if len(s.Data) > 0 {
		return "TCP data", Data
	}
	return "TCP " + strings.Join(flags, "-"), Other
}

func icmp(p natlab.Packet) string {
	header := 40
	if p.Protocol == natlab.ProtocolICMP {
		header = int(p.Data[0]&15) * 4
	}
	if len(p.Data) < header+2 {
		return "ICMP"
	}
	kind, code := p.Data[header], p.Data[header+1]
	if p.Protocol == natlab.ProtocolICMPv6 {
		if name := icmp6[[2]uint8{kind, code}]; name != "" {
			return name
		}
		return fmt.Sprintf("ICMPv6 type %d code %d", kind, code)
	}
	if name := icmp4[[2]uint8{kind, code}]; name != "" {
		return name
	}
	return fmt.Sprintf("ICMP type %d code %d", kind, code)
}

// ICMP messages by type and code (RFC 792, RFC 4443).
var (
	icmp4 = map[[2]uint8]string{
		{0, 0}: "echo reply", {8, 0}: "echo request", {11, 0}: "time exceeded",
		{3, 0}: "net unreachable", {3, 1}: "host unreachable", {3, 3}: "port unreachable",
		{3, 4}: "too big", {3, 13}: "prohibited",
	}
	icmp6 = map[[2]uint8]string{
		{129, 0}: "echo reply", {128, 0}: "echo request", {3, 0}: "time exceeded",
		{1, 0}: "no route", {1, 1}: "prohibited", {1, 3}: "address unreachable", {1, 4}: "port unreachable",
		{2, 0}: "too big",
	}
)
