package sock

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
)

// Batch is packets for many, to leave together. The zero Batch is empty. It is not
// safe for concurrent use, and keeps its memory.
type Batch struct {
	messages []ipv4.Message
	slots    []slot // what the messages point to
	socket   *Socket
	conn     *ipv4.PacketConn // socket's, of IPv6 too
}

type slot struct {
	addr   net.UDPAddr
	ip     [16]byte
	buffer [1][]byte
	to     netip.AddrPort
}

// Add puts a packet in. The data must stay as it is until the batch is sent.
func (b *Batch) Add(to netip.AddrPort, data []byte) {
	n := len(b.slots)
	if n == cap(b.slots) {
		b.grow()
	}
	b.slots, b.messages = b.slots[:n+1], b.messages[:n+1]
	s := &b.slots[n]
	s.to, s.buffer[0] = to, data
	s.addr.Port, s.addr.Zone = int(to.Port()), to.Addr().Zone()
	if a := to.Addr().Unmap(); a.Is4() {
		v4 := a.As4()
		s.addr.IP = s.ip[:copy(s.ip[:], v4[:])]
	} else {
		s.ip = a.As16()
		s.addr.IP = s.ip[:]
	}
}

// grow makes room for more: the messages point to other slots then.
func (b *Batch) grow() {
	n := max(16, 2*cap(b.slots))
	slots := append(make([]slot, 0, n), b.slots...)
	b.slots = slots
	b.messages = make([]ipv4.Message, len(slots), n)
	for i := range n {
		s := &slots[:n][i]
		if i < len(slots) { // its IP is a part of the slot that it came from
			s.addr.IP = s.ip[:len(s.addr.IP)]
		}
		b.messages[:n][i] = ipv4.Message{Buffers: s.buffer[:], Addr: &s.addr}
	}
}

// SendBatch sends a batch and empties it: in few calls where the system can
// (sendmmsg), packet by packet elsewhere. After an error it goes on with the next
// packet, and returns the first one.
func (s *Socket) SendBatch(b *Batch) error {
	var first error
	failed := func(err error) {
		if s.sent(err, 1) != nil && first == nil {
			first = err
		}
	}
	many := s.udp != nil && canBatch && len(b.slots) > 1
	if many && b.socket != s {
		b.socket, b.conn = s, ipv4.NewPacketConn(s.udp)
	}
	for i := 0; i < len(b.slots); {
		n := 1
		if many {
			sent, err := b.conn.WriteBatch(b.messages[i:], 0)
			if errors.Is(err, net.ErrClosed) {
				failed(err)
				break
			}
			if failed(err); err == nil {
				n = max(1, sent)
			}
		} else {
			failed(s.write(b.slots[i].buffer[0], nil, b.slots[i].to))
		}
		i += n
	}
	for i := range b.slots {
		b.slots[i].buffer[0] = nil // it may be long
	}
	b.slots, b.messages = b.slots[:0], b.messages[:0]
	return first
}
