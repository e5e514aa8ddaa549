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
	us, them := insiders[pick(len(insiders))], outsiders[pick(len(outsiders))]
	ourPort, theirPort := usedPorts[pick(2)], uint16(7000+pick(2))
	if pick(8) == 0 {
		ourPort = usedPorts[2]
	}
	src, dst := us, them
	if side == natlab.Outside {
		src, dst = them, wanAddr
		if pick(8) == 0 {
			dst = us
		}
		ourPort, theirPort = theirPort, ourPort
		// Mostly to something that was mapped.
		if n := len(b.sent[natlab.Outside]); n > 0 && pick(4) > 0 {
			return side, b.reply(b.sent[natlab.Outside][pick(n)], router)
		}
	} else if pick(10) == 0 {
		dst = wanAddr
	} else if n := len(b.sent[natlab.Inside]); n > 0 && pick(4) == 0 {
		return side, b.reply(b.sent[natlab.Inside][pick(n)], us)
	}
	var ip []byte
	switch pick(4) {
	case 0:
		ip = makeICMP(src, dst, []byte{8, 8, 8, 0, 13, 14, 9, 42}[pick(8)], 0, usedPorts[3+pick(2)], []byte("payload"))
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
	code := []byte{11, 3, 3, 5, 12, 4}[b.r.IntN(6)]
	who, cut := b.r.IntN(3), b.r.IntN(2) == 0
	like := b.r.Uint64()
	make1 := func(seen []byte) []byte {
		from, to := addrs(seen)
		header := int(seen[0]&15) * 4
		body := seen[header:]
		if kind == 0 && !isError(seen) {
			by := []netip.Addr{to, third, third}[who]
			quoted := seen
			if cut {
				quoted = seen[:min(len(seen), header+8)]
			}
			return makeICMP(by, from, code, 3, 0, quoted)
		}
		switch seen[9] {
		case natlab.ProtocolUDP:
			src, dst := binary.BigEndian.Uint16(body[2:]), binary.BigEndian.Uint16(body)
			if other {
				src++
			}
			return makeUDP(to, from, src, dst, "reply")
		case natlab.ProtocolTCP:
			return b.segment(to, from, binary.BigEndian.Uint16(body[2:]), binary.BigEndian.Uint16(body), flags, like)
		}
		if body[0] != 8 && body[0] != 0 && body[0] != 13 {
			return nil
		}
		answer := map[byte]byte{8: 0, 0: 8, 13: 14}[body[0]]
		if other {
			answer = body[0]
		}
		return makeICMP(to, from, answer, 0, binary.BigEndian.Uint16(body[4:]), []byte("reply"))
	}
	return pair{make1(p.kernel), make1(p.model)}
}

func isError(ip []byte) bool {
	return ip[9] == natlab.ProtocolICMP && slices.Contains([]byte{3, 4, 5, 11, 12}, ip[int(ip[0]&15)*4])
}

func addrs(ip []byte) (src, dst netip.Addr) {
	return netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
}

func describe(ip []byte) string {
	p, _ := natlab.ParsePacket(ip)
	s := fmt.Sprintf("protocol %d %v > %v", p.Protocol, p.From, p.To)
	body := ip[int(ip[0]&15)*4:]
	switch p.Protocol {
	case natlab.ProtocolTCP:
		if len(body) >= 20 { // not cut
			s += fmt.Sprintf(" flags %05b seq %d ack %d window %d data %d", body[13],
				binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:]), binary.BigEndian.Uint16(body[14:]), len(body)-int(body[12]>>4)*4)
		}
	case natlab.ProtocolICMP:
		s += fmt.Sprintf(" type %d id %d", body[0], binary.BigEndian.Uint16(body[4:]))
		if len(body) >= 36 {
			s += " {" + describe(body[8:]) + "}"
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

func makeIP(src, dst netip.Addr, protocol byte, body []byte, checkAt int) []byte {
	ip := append(make([]byte, 20), body...)
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], 1234)
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], sum16(ip[:20], 0))
	sum := uint32(0)
	if protocol != natlab.ProtocolICMP {
		sum = uint32(protocol) + uint32(len(body))
		for at := 12; at < 20; at += 2 {
			sum += uint32(binary.BigEndian.Uint16(ip[at:]))
		}
	}
	binary.BigEndian.PutUint16(ip[20+checkAt:], sum16(ip[20:], sum))
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

func makeICMP(src, dst netip.Addr, kind, code byte, id uint16, data []byte) []byte {
	b := append(make([]byte, 8), data...)
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint16(b[4:], id)
	return makeIP(src, dst, natlab.ProtocolICMP, b, 2)
}
