package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"bodkin/internal/icmp"
)

// Nowhere is where beacons are sent: an address of TEST-NET-1 (RFC 5737), which leads
// nowhere in the Internet.
var Nowhere = netip.AddrFrom4([4]byte{192, 0, 2, 66})

// Beacon is a raw socket for a listener that no server knows. It asks Nowhere for an echo,
// so that its NAT lets in errors about that; and somebody who knows its address and
// identifier sends one, with a message behind what it quotes.
type Beacon struct {
	network ICMPNetwork
	conn    net.PacketConn
	// Strange counts messages that are none for us to read.
	Strange atomic.Uint64
}

// OpenBeacon opens the socket. The error says what is missing where the system does not
// let us.
func OpenBeacon(ctx context.Context, n Network) (*Beacon, error) {
	in, ok := n.(ICMPNetwork)
	if !ok {
		return nil, fmt.Errorf("ICMP on this network: %w", errors.ErrUnsupported)
	}
	b := &Beacon{network: in}
	err := in.Do(func() (err error) {
		b.conn, err = listenRaw(ctx, true, icmp.QuotedEcho(Nowhere, magic))
		return err
	})
	if err != nil {
		return nil, noICMP(err)
	}
	return b, nil
}

// Send asks Nowhere for an echo, with our identifier.
func (b *Beacon) Send(id uint16) error {
	m := icmp.Message{Kind: icmp.EchoRequest, ID: id, Body: magic[:]}
	_, err := b.conn.WriteTo(m.Append(nil, true), &net.IPAddr{IP: Nowhere.AsSlice()})
	return err
}

// Greet sends the error that the NAT at an address lets in, if a listener of that
// identifier is behind it, with a message.
func (b *Beacon) Greet(to netip.Addr, id uint16, message []byte) error {
	q := icmp.Quote{
		Echo: true, From: netip.AddrPortFrom(to, id), To: netip.AddrPortFrom(Nowhere, id),
		Data: append(magic[:len(magic):len(magic)], message...),
	}
	m := icmp.Message{Kind: icmp.TimeExceeded, Body: q.Append(nil)}
	_, err := b.conn.WriteTo(m.Append(nil, true), &net.IPAddr{IP: to.AsSlice()})
	return err
}

// Read hands deliver who sent a message to our identifier, until the socket is closed. The
// bytes are deliver's.
func (b *Beacon) Read(id uint16, deliver func(from netip.Addr, message []byte)) error {
	p := make([]byte, packetSize)
	for {
		n, addr, err := b.conn.ReadFrom(p)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && !isErrno(err, errnosPassing):
			return err
		case err != nil:
			continue
		}
		message, ok := greeting(p[:n], id)
		if !ok {
			b.Strange.Add(1)
			continue
		}
		deliver(addrOf(addr), append([]byte(nil), message...))
	}
}

// greeting is the message in an error about our beacon.
func greeting(p []byte, id uint16) ([]byte, bool) {
	m, err := icmp.Parse(p, true)
	if err != nil || m.Kind != icmp.TimeExceeded {
		return nil, false
	}
	q, err := icmp.ParseQuote(m.Body)
	if err != nil || !q.Echo || q.To.Addr() != Nowhere || q.To.Port() != id ||
		len(q.Data) < len(magic) || [4]byte(q.Data) != magic {
		return nil, false
	}
	return q.Data[len(magic):], true
}

// Close ends Read.
func (b *Beacon) Close() error { return b.conn.Close() }

// Source is our own address on the way to another.
func (b *Beacon) Source(to netip.Addr) (a netip.Addr, err error) {
	err = b.network.Do(func() error {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
		if err != nil {
			return err
		}
		a = addrOf(conn.LocalAddr())
		return conn.Close()
	})
	return a, err
}
