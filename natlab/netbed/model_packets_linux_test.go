package netbed

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"bodkin/natlab"
)

// usedPorts are the ports inside, and two identifiers. One is well known.
var usedPorts = []uint16{6000, 6001, 600, 9, 10}

// next makes a packet from one of the sides.
func (b *bench) next() (natlab.Side, pair) {
	pick := func(n int) int { return b.r.IntN(n) }
	side := natlab.Side(pick(2))
	us, them := b.at.insiders[pick(2)], b.at.outsiders[pick(2)]
	ourPort, theirPort := usedPorts[pick(2)], uint16(7000+pick(2))
	if pick(8) == 0 {
		ourPort = usedPorts[2]
	}
	src, dst := us, them
	if side == natlab.Outside {
		src, dst = them, b.at.wan.Addr()
		if pick(8) == 0 {
			dst = us
		}
		ourPort, theirPort = theirPort, ourPort
		// Mostly to something that was mapped.
		if n := len(b.sent[natlab.Outside]); n > 0 && pick(4) > 0 {
			return side, b.reply(b.sent[natlab.Outside][pick(n)], b.at.router)
		}
	} else if pick(10) == 0 {
		dst = b.at.wan.Addr()
	} else if n := len(b.sent[natlab.Inside]); n > 0 && pick(4) == 0 {
		return side, b.reply(b.sent[natlab.Inside][pick(n)], us)
	}
	var ip []byte
	switch pick(4) {
	case 0:
		ip = makeICMP(src, dst, []byte{icmpEcho, icmpEcho, icmpEcho, icmpEchoReply, icmpTimestamp, icmpTimestampReply, 9, 42}[pick(8)], 0, usedPorts[3+pick(2)], []byte("payload"))
	case 1, 2:
		ip = makeUDP(src, dst, ourPort, theirPort, "payload")
	case 3:
		ip = b.segment(src, dst, ourPort, theirPort, b.flags(), b.r.Uint64())
	}
	return side, pair{ip, ip}
}

func (b *bench) flags() byte {
	return []byte{2, 2, 2, 18, 16, 17, 4, 20, 24, 1, 3, 0}[b.r.IntN(12)]
}

// segment is one of a connection, mostly: what is not quite as it should be, in
// sequence, window or options, seed says.
func (b *bench) segment(src, dst netip.Addr, from, to uint16, flags byte, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(usual uint32, others ...uint32) uint32 {
		if r.IntN(3) > 0 {
			return usual
		}
		return others[r.IntN(len(others))]
	}
	s := segment{flags: flags, seq: 1001, window: uint16(pick(1000, 0, 1, 65535))}
	if flags&2 != 0 {
		s.seq = 1000
		s.options = [][]byte{nil, nil, {2, 4, 5, 180}, {4, 2, 1, 1}, {1, 3, 3, 7, 4, 2, 0, 0}}[r.IntN(5)]
	} else if r.IntN(8) == 0 {
		s.options = []byte{1, 1, 5, 10, 0, 0, 3, 240, 0, 0, 4, 76}
	}
	s.seq = pick(s.seq, s.seq+1, s.seq+10, s.seq+2000, s.seq+80000, s.seq-1, s.seq-70000, 0)
	if flags&16 != 0 {
		s.ack = pick(1001, 1000, 1002, 1011, 3001, 90000, 0)
	}
	s.data = make([]byte, pick(0, 1, 10, 900))
	return makeTCP(src, dst, from, to, s)
}

// reply is a packet that answers one that was seen, or an error about it.
func (b *bench) reply(p pair, third netip.Addr) pair {
	kind, flags, other := b.r.IntN(4), b.flags(), b.r.IntN(6) == 0
	code := []byte{icmpExceeded, icmpUnreachable, icmpUnreachable, icmpRedirect, icmpProblem, icmpQuench}[b.r.IntN(6)]
	who, cut := b.r.IntN(3), b.r.IntN(2) == 0
	like := b.r.Uint64()
	make1 := func(seen []byte) []byte {
		h := parse(seen)
		if kind == 0 && !h.isError() {
			by := []netip.Addr{h.dst, third, third}[who]
			quoted := seen
			if cut {
				quoted = seen[:min(len(seen), len(seen)-len(h.body)+8)]
			}
			if _, ok := sixOf[code]; !ok && h.src.Is6() {
				code = icmpUnreachable
			}
			return makeICMP(by, h.src, code, 3, 0, quoted)
		}
		switch h.protocol {
		case natlab.ProtocolUDP:
			from := binary.BigEndian.Uint16(h.body[2:])
			if other {
				from++
			}
			return makeUDP(h.dst, h.src, from, binary.BigEndian.Uint16(h.body), "reply")
		case natlab.ProtocolTCP:
			return b.segment(h.dst, h.src, binary.BigEndian.Uint16(h.body[2:]), binary.BigEndian.Uint16(h.body), flags, like)
		}
		if !h.isQuery() {
			return nil
		}
		answer := map[byte]byte{icmpEcho: icmpEchoReply, icmpEchoReply: icmpEcho, icmpTimestamp: icmpTimestampReply, icmpTimestampReply: icmpTimestamp}[h.kind()]
		if other {
			answer = h.kind()
		}
		return makeICMP(h.dst, h.src, answer, 0, binary.BigEndian.Uint16(h.body[4:]), []byte("reply"))
	}
	return pair{make1(p.kernel), make1(p.model)}
}

// header is an IP packet taken apart, or as much of it as is quoted.
type header struct {
	src, dst netip.Addr
	protocol byte
	body     []byte
}

func parse(ip []byte) header {
	if ip[0]>>4 == 6 {
		return header{netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:])), ip[6], ip[40:]}
	}
	return header{netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])), ip[9], ip[int(ip[0]&15)*4:]}
}

func (h header) isICMP() bool {
	return h.protocol == natlab.ProtocolICMP || h.protocol == natlab.ProtocolICMPv6
}

// kind is the ICMP type, of ICMPv6 that of ICMP which means the same.
func (h header) kind() byte {
	if h.protocol == natlab.ProtocolICMP {
		return h.body[0]
	}
	for kind, six := range sixOf {
		if six == h.body[0] {
			return kind
		}
	}
	return 255
}

// Types of ICMP.
const (
	icmpEchoReply, icmpEcho, icmpTimestamp, icmpTimestampReply = 0, 8, 13, 14
	icmpUnreachable, icmpRedirect, icmpExceeded, icmpProblem   = 3, 5, 11, 12
	icmpQuench                                                 = 4
)

// sixOf are the types of ICMPv6 (RFC 4443 §2.1).
var sixOf = map[byte]byte{icmpEcho: 128, icmpEchoReply: 129, icmpUnreachable: 1, icmpQuench: 2, icmpExceeded: 3, icmpProblem: 4}

func (h header) isError() bool {
	return h.isICMP() && slices.Contains([]byte{icmpUnreachable, icmpQuench, icmpRedirect, icmpExceeded, icmpProblem}, h.kind())
}

func (h header) isQuery() bool {
	return h.isICMP() && slices.Contains([]byte{icmpEcho, icmpEchoReply, icmpTimestamp, icmpTimestampReply}, h.kind())
}

func describe(ip []byte) string {
	p, _ := natlab.ParsePacket(ip)
	s := fmt.Sprintf("protocol %d %v > %v", p.Protocol, p.From, p.To)
	switch h := parse(ip); {
	case h.protocol == natlab.ProtocolTCP && len(h.body) >= 20: // not cut
		s += fmt.Sprintf(" flags %05b seq %d ack %d window %d data %d", h.body[13],
			binary.BigEndian.Uint32(h.body[4:]), binary.BigEndian.Uint32(h.body[8:]), binary.BigEndian.Uint16(h.body[14:]),
			len(h.body)-int(h.body[12]>>4)*4)
	case h.isICMP():
		s += fmt.Sprintf(" type %d id %d", h.body[0], binary.BigEndian.Uint16(h.body[4:]))
		if h.isError() {
			s += " {" + describe(h.body[8:]) + "}"
		}
	}
	return s
}

func sum16(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// pseudo is the sum that the checksum of a transport begins with.
func pseudo(h header) uint32 {
	if h.protocol == natlab.ProtocolICMP {
		return 0
	}
	sum := uint32(h.protocol) + uint32(len(h.body))
	for b := slices.Concat(h.src.AsSlice(), h.dst.AsSlice()); len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}

// intact reports whether the checksums of a packet are right.
func intact(ip []byte) bool {
	h := parse(ip)
	return sum16(h.body, pseudo(h)) == 0 && (h.src.Is6() || sum16(ip[:20], 0) == 0)
}

func makeIP(src, dst netip.Addr, protocol byte, body []byte, checkAt int) []byte {
	binary.BigEndian.PutUint16(body[checkAt:], sum16(body, pseudo(header{src, dst, protocol, body})))
	if src.Is6() {
		ip := append(make([]byte, 40), body...)
		ip[0], ip[6], ip[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
		return ip
	}
	ip := append(make([]byte, 20), body...)
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], 1234)
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], sum16(ip[:20], 0))
	return ip
}

func makeUDP(src, dst netip.Addr, from, to uint16, data string) []byte {
	b := append(make([]byte, 8), data...)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return makeIP(src, dst, natlab.ProtocolUDP, b, 6)
}

// segment is what a TCP segment says.
type segment struct {
	seq, ack      uint32
	flags         byte
	window        uint16
	options, data []byte
}

func makeTCP(src, dst netip.Addr, from, to uint16, s segment) []byte {
	b := slices.Concat(make([]byte, 20), s.options, s.data)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], s.seq)
	binary.BigEndian.PutUint32(b[8:], s.ack)
	b[12], b[13] = byte(20+len(s.options))/4<<4, s.flags
	binary.BigEndian.PutUint16(b[14:], s.window)
	return makeIP(src, dst, natlab.ProtocolTCP, b, 16)
}

// makeICMP makes a message by the types of ICMP; of ICMPv6 what there is none for
// is of a type that nobody knows.
func makeICMP(src, dst netip.Addr, kind, code byte, id uint16, data []byte) []byte {
	protocol := byte(natlab.ProtocolICMP)
	if src.Is6() {
		six, ok := sixOf[kind]
		if protocol, kind = natlab.ProtocolICMPv6, six; !ok {
			kind = 200
		}
	}
	b := append(make([]byte, 8), data...)
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint16(b[4:], id)
	return makeIP(src, dst, protocol, b, 2)
}
