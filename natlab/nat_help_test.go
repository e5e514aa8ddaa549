package natlab_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/natlab"
)

// loneBox is a box under test, in virtual time.
type loneBox struct {
	t   *testing.T
	now time.Time
	*natlab.Translator
}

var (
	ourAddress   = netip.MustParseAddr("203.0.113.1")
	otherAddress = netip.MustParseAddr("203.0.113.2")
	insideNet    = netip.MustParsePrefix("192.168.1.0/24")
	insideNet6   = netip.MustParsePrefix("2001:db8:1::/64")

	hostA = netip.MustParseAddr("192.168.1.10")
	hostB = netip.MustParseAddr("192.168.1.11")
	peerX = netip.MustParseAddr("198.51.100.1")
	peerY = netip.MustParseAddr("198.51.100.2")

	hostA6 = netip.MustParseAddr("2001:db8:1::10")
	peerX6 = netip.MustParseAddr("2001:db8:2::1")
	peerY6 = netip.MustParseAddr("2001:db8:2::2")
)

func newLoneBox(t *testing.T, n natlab.NAT, outside ...netip.Addr) *loneBox {
	t.Helper()
	if err := n.Check(); err != nil {
		t.Fatal(err)
	}
	if len(outside) == 0 {
		outside = []netip.Addr{ourAddress}
	}
	inside := []netip.Prefix{insideNet, insideNet6}
	return &loneBox{t, time.Unix(1_000_000, 0), n.Translator(outside, inside, rand.New(rand.NewPCG(1, 2)))}
}

// wait lets time pass.
func (b *loneBox) wait(d time.Duration) { b.now = b.now.Add(d) }

func (b *loneBox) send(from natlab.Side, ip []byte) ([]natlab.Sent, natlab.Verdict) {
	b.t.Helper()
	out, verdict := b.Translate(b.now, from, slices.Clone(ip), nil)
	for _, s := range out {
		wellFormed(b.t, s.Data)
	}
	return out, verdict
}

// out sends a packet from inside, of which one must leave outside.
func (b *loneBox) out(ip []byte) natlab.Packet {
	b.t.Helper()
	sent, verdict := b.send(natlab.Inside, ip)
	if len(sent) != 1 || sent[0].To != natlab.Outside {
		b.t.Fatalf("%v: nothing left: %v", see(ip), verdict)
	}
	p, _ := natlab.ParsePacket(sent[0].Data)
	return p
}

// in sends a packet from outside, and says where it arrives; no address if not.
func (b *loneBox) in(ip []byte) netip.AddrPort {
	b.t.Helper()
	sent, _ := b.send(natlab.Outside, ip)
	for _, s := range sent {
		if s.To == natlab.Inside {
			p, _ := natlab.ParsePacket(s.Data)
			return p.To
		}
	}
	return netip.AddrPort{}
}

// mapped is what a UDP packet's source becomes.
func (b *loneBox) mapped(from, to netip.AddrPort) netip.AddrPort {
	b.t.Helper()
	return b.out(packetUDP(from, to, "out")).From
}

// reaches reports whether UDP from outside comes in.
func (b *loneBox) reaches(from, to netip.AddrPort) bool {
	b.t.Helper()
	return b.in(packetUDP(from, to, "in")).IsValid()
}

func endAt(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func sumWords(b []byte, sum uint32) uint16 {
	for i, x := range b {
		if i%2 == 0 {
			sum += uint32(x) << 8
		} else {
			sum += uint32(x)
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func pseudo(from, to netip.Addr, protocol uint8, n int) uint32 {
	sum := uint32(protocol) + uint32(n)
	for _, b := range [][]byte{from.AsSlice(), to.AsSlice()} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	return sum
}

func packetUDP(from, to netip.AddrPort, data string) []byte {
	return natlab.AppendUDP(nil, from, to, 63, []byte(data))
}

// packetTCP is a segment with flags by their letters.
func packetTCP(from, to netip.AddrPort, flags string) []byte {
	s := natlab.Segment{Seq: 1000}
	for _, f := range flags {
		s.Flags |= map[rune]natlab.TCPFlags{'F': natlab.FIN, 'S': natlab.SYN, 'R': natlab.RST, 'A': natlab.ACK}[f]
	}
	if s.Flags&natlab.SYN == 0 {
		s.Seq++
	}
	if s.Flags&natlab.ACK != 0 {
		s.Ack = 1001
	}
	return natlab.AppendTCP(nil, from, to, 63, s)
}

// packetICMP is a message; id is that of a query.
func packetICMP(from, to netip.Addr, kind, code uint8, id uint16, data []byte) []byte {
	message := append([]byte{kind, code, 0, 0, byte(id >> 8), byte(id), 0, 0}, data...)
	return natlab.AppendICMP(nil, from, to, 63, message)
}

// Types of ICMP.
const (
	echoReply      = 0
	unreachable    = 3
	redirect       = 5
	echo           = 8
	timeExceeded   = 11
	timestamp      = 13
	timestampReply = 14
)

func ping(from, to netip.Addr, id uint16) []byte {
	return packetICMP(from, to, echo, 0, id, []byte("ping"))
}

func pong(from, to netip.Addr, id uint16) []byte {
	return packetICMP(from, to, echoReply, 0, id, []byte("ping"))
}

// errorAbout is what a router sends about a packet that it saw.
func errorAbout(router netip.Addr, seen []byte) []byte {
	p, _ := natlab.ParsePacket(seen)
	return packetICMP(router, p.From.Addr(), timeExceeded, 0, 0, seen)
}

// idOf is the identifier of an ICMP query.
func idOf(p natlab.Packet) uint16 { return binary.BigEndian.Uint16(p.Data[24:]) }

func see(b []byte) string {
	p, ok := natlab.ParsePacket(b)
	if !ok {
		return fmt.Sprintf("%x", b)
	}
	s := fmt.Sprintf("protocol %d from %v to %v", p.Protocol, p.From, p.To)
	if p.Protocol == natlab.ProtocolICMP && len(b) > 27 {
		s += fmt.Sprintf(" type %d code %d id %d", b[20], b[21], binary.BigEndian.Uint16(b[24:]))
	}
	return s
}

// wellFormed checks all the checksums of a packet, in the quoted one too.
func wellFormed(t *testing.T, b []byte) {
	t.Helper()
	p, ok := natlab.ParsePacket(b)
	if !ok {
		t.Fatalf("%x is no packet", b)
	}
	header, pseudoProtocol := 40, p.Protocol
	if p.From.Addr().Is4() {
		header = int(b[0]&15) * 4
		if sumWords(b[:header], 0) != 0 {
			t.Errorf("%v: IP checksum", see(b))
		}
		if int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			t.Errorf("%v: length", see(b))
		}
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return // a fragment
		}
	} else if b[6] == 44 {
		return
	}
	body := b[header:]
	sum := pseudo(p.From.Addr(), p.To.Addr(), pseudoProtocol, len(body))
	switch p.Protocol {
	case natlab.ProtocolUDP:
		if binary.BigEndian.Uint16(body[6:]) != 0 && sumWords(body, sum) != 0 {
			t.Errorf("%v: UDP checksum", see(b))
		}
	case natlab.ProtocolTCP, natlab.ProtocolICMPv6:
		if sumWords(body, sum) != 0 {
			t.Errorf("%v: checksum", see(b))
		}
	case natlab.ProtocolICMP:
		if sumWords(body, 0) != 0 {
			t.Errorf("%v: ICMP checksum", see(b))
		}
		switch body[0] {
		case unreachable, timeExceeded, redirect:
			if quoted := body[8:]; len(quoted) >= 20 && int(binary.BigEndian.Uint16(quoted[2:])) == len(quoted) {
				wellFormed(t, quoted)
			} else if len(quoted) >= 20 && sumWords(quoted[:20], 0) != 0 {
				t.Errorf("%v: IP checksum of the quoted packet", see(b))
			}
		}
	}
}

// cut makes fragments of an IPv4 packet, with n bytes in all but the last.
func cut(ip []byte, n int) (out [][]byte) {
	body := ip[20:]
	for at := 0; at < len(body); at += n {
		end := min(at+n, len(body))
		b := append(slices.Clone(ip[:20]), body[at:end]...)
		word := uint16(at / 8)
		if end < len(body) {
			word |= 0x2000
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[6:], word)
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], sumWords(b[:20], 0))
		out = append(out, b)
	}
	return out
}
