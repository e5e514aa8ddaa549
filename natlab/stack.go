package natlab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
)

// stack is what a host's system does with packets: it gives those for a UDP
// socket to it, and answers the rest as any system does.
type stack struct {
	place Place
	rng   *rand.Rand
	ports [2]map[uint16]udpHandler // IPv4, IPv6
	raw   []*func(Packet) bool
	// send takes an IP packet to the network.
	send func(ip []byte)
}

type udpHandler func(from netip.AddrPort, data []byte)

func newStack(p Place, seed uint64, send func([]byte)) *stack {
	return &stack{
		place: p, rng: chance(seed, "ports of "+p.Name), send: send,
		ports: [2]map[uint16]udpHandler{{}, {}},
	}
}

// receive takes an IP packet that came to the host. What is damaged or for
// another is ignored.
func (s *stack) receive(ip []byte) {
	p, ok := ParsePacket(ip)
	if !ok || p.To.Addr() != s.place.Addr[family(p.To.Addr())].Addr() || !p.intact() {
		return
	}
	for _, r := range s.raw {
		if (*r)(p) {
			return
		}
	}
	switch p.Protocol {
	case ProtocolUDP:
		s.datagram(p)
	case ProtocolTCP:
		if reset, ok := refusal(p); ok {
			s.send(reset)
		}
	case ProtocolICMP, ProtocolICMPv6:
		if reply, ok := echoReply(p); ok {
			s.send(reply)
		}
	}
}

// datagram gives a UDP packet to its socket; where there is none it answers so
// (RFC 1122 §4.1.3.1).
func (s *stack) datagram(p Packet) {
	data, ok := p.Datagram()
	if !ok {
		return
	}
	if handle := s.ports[family(p.To.Addr())][p.To.Port()]; handle != nil {
		handle(p.From, data)
		return
	}
	if answer := AppendUnreachable(nil, PortUnreachable, p.To.Addr(), p); answer != nil {
		s.send(answer)
	}
}

// refusal is the reset that answers a segment for a port where nobody listens
// (RFC 9293 §3.10.7.1).
func refusal(p Packet) ([]byte, bool) {
	in, ok := p.Segment()
	if !ok || in.Flags&RST != 0 {
		return nil, false
	}
	out := Segment{Flags: RST, Seq: in.Ack}
	if in.Flags&ACK == 0 {
		out = Segment{Flags: RST | ACK, Ack: in.Seq + uint32(len(in.Data))}
		if in.Flags&SYN != 0 {
			out.Ack++
		}
		if in.Flags&FIN != 0 {
			out.Ack++
		}
	}
	return AppendTCP(nil, p.To, p.From, defaultTTL, out), true
}

// The ports that systems choose from (RFC 6335 §6 has the range begin at 49152;
// Linux begins here).
const (
	firstEphemeral = 32768
	lastEphemeral  = 60999
)

// bind gives packets for a port to a handler; a port of 0 is one that is free in
// all of the families.
func (s *stack) bind(port uint16, handle udpHandler, families ...int) (uint16, error) {
	free := func(p uint16) bool {
		return !slices.ContainsFunc(families, func(f int) bool { return s.ports[f][p] != nil })
	}
	if port == 0 {
		for range 10_000 {
			if p := uint16(firstEphemeral + s.rng.IntN(lastEphemeral-firstEphemeral+1)); free(p) {
				port = p
				break
			}
		}
	}
	if port == 0 || !free(port) {
		return 0, fmt.Errorf("bind UDP port %d on host %s: %w", port, s.place.Name, syscall.EADDRINUSE)
	}
	for _, f := range families {
		s.ports[f][port] = handle
	}
	return port, nil
}

func (s *stack) unbind(port uint16, families ...int) {
	for _, f := range families {
		delete(s.ports[f], port)
	}
}

var errAddress = errors.New("not an address and port to send to")

// sendUDP sends a datagram from a port; a ttl of 0 is the usual one.
func (s *stack) sendUDP(port uint16, to netip.AddrPort, ttl uint8, data []byte) error {
	if !to.IsValid() || to.Port() == 0 {
		return fmt.Errorf("send to %v: %w", to, errAddress)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	from, most := s.place.Addr[family(to.Addr())], 1500-28
	if to.Addr().Is6() {
		most = 1500 - 48
	}
	switch {
	case !from.IsValid():
		return fmt.Errorf("send to %v: %w", to, syscall.ENETUNREACH)
	case len(data) > most:
		return fmt.Errorf("send %d bytes to %v: %w", len(data), to, syscall.EMSGSIZE)
	}
	if ttl == 0 {
		ttl = defaultTTL
	}
	s.send(AppendUDP(nil, netip.AddrPortFrom(from.Addr(), port), to, ttl, data))
	return nil
}

// watch shows every packet that comes to the host to f, before the host does
// anything; one of which f says true is f's alone.
func (s *stack) watch(f func(Packet) bool) (stop func()) {
	at := &f
	s.raw = append(slices.Clone(s.raw), at)
	return func() {
		s.raw = slices.DeleteFunc(slices.Clone(s.raw), func(p *func(Packet) bool) bool { return p == at })
	}
}

// prefixes are the host's addresses with the length of their link's prefix.
func (s *stack) prefixes() (out []netip.Prefix) {
	for _, p := range s.place.Addr {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
