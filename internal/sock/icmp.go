package sock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bodkin/internal/icmp"
)

// ICMPNetwork is a Network that has ICMP too.
type ICMPNetwork interface {
	Network
	// Do runs f where the sockets that f opens are the network's.
	Do(f func() error) error
}

// Way is how packets travel in ICMP messages.
type Way uint8

// Ways. What is asked of one side, the other answers: the two need not have their sockets
// from the same system call.
const (
	// Ask sends echo requests of our own identifier, and hears the replies.
	Ask Way = iota
	// Answer hears echo requests of any identifier, and sends replies, as many as it
	// likes.
	Answer
	// Unreachable and Exceeded send and hear errors about UDP packets that there
	// might have been between our UDP socket and the other side's. They pass where
	// those would, and even where those do not, once both sides have sent one.
	Unreachable
	Exceeded
	allWays
)

// kinds are what is sent by each way.
var kinds = [allWays]icmp.Kind{icmp.EchoRequest, icmp.EchoReply, icmp.PortUnreachable, icmp.TimeExceeded}

// magic begins what we put into ICMP; a tag follows, which each socket draws, to know its
// own echo.
var magic = [4]byte{'B', 'o', 'D', 'k'}

const (
	tagSize    = 4
	icmpPrefix = len(magic) + tagSize
	// openEvery is how often a packet of UDP keeps open what errors pass by, while
	// there is something of the control plane to send; openAgain is the first pause.
	openEvery = 2 * time.Second
	openAgain = 200 * time.Millisecond
	// openTTL is that of the first one, which is not to arrive anywhere.
	openTTL = 2
	// maxOpened bounds the endpoints that are remembered.
	maxOpened = 256
	// sourceLife is how long a route's source address is believed.
	sourceLife = 5 * time.Second
)

// ICMP is sockets for ICMP of one address family, in which packets travel by several
// Ways: unprivileged where the system lets us only Ask, raw otherwise.
type ICMP struct {
	network ICMPNetwork
	conn    net.PacketConn
	raw, v4 bool
	id      uint16
	tag     [tagSize]byte
	udp     *Socket // which errors are about; nil: none
	legs    [allWays]Leg
	out     pacer
	seq     atomic.Uint32

	mu      sync.Mutex
	opened  map[netip.AddrPort]opened
	sources map[netip.Addr]source

	// Echoed counts our own packets that somebody sent back, Malformed and Strange
	// what was not for us to read.
	Echoed, Malformed, Strange atomic.Uint64
}

// opened is when the flow to an endpoint was last opened, and how often.
type opened struct {
	at    time.Time
	times int
}

type source struct {
	addr netip.Addr
	at   time.Time
}

// Leg is one Way of an ICMP socket. Its endpoints are address and identifier of an echo,
// or the endpoint of the other side's UDP.
type Leg struct {
	icmp *ICMP
	way  Way
}

// OpenICMP opens a socket of the family of udp, whose flows errors are about. The error
// says what is missing where the system does not let us.
func OpenICMP(ctx context.Context, n Network, udp *Socket) (*ICMP, error) {
	in, ok := n.(ICMPNetwork)
	if !ok {
		return nil, fmt.Errorf("ICMP on this network: %w", errors.ErrUnsupported)
	}
	c := &ICMP{
		network: in, udp: udp, v4: udp.Is4(),
		opened: make(map[netip.AddrPort]opened), sources: make(map[netip.Addr]source),
	}
	err := in.Do(func() (err error) {
		if c.conn, err = listenRaw(ctx, c.v4, icmp.Filter(c.v4, magic)); err == nil {
			c.raw = true
			return nil
		}
		if conn, second := listenPing(c.v4); second == nil {
			c.conn = conn
			return nil
		}
		return err
	})
	if err != nil {
		return nil, noICMP(err)
	}
	c.start()
	return c, nil
}

// start gives an open socket what it needs beside.
func (c *ICMP) start() {
	_, _ = rand.Read(c.tag[:])
	if a, ok := c.conn.LocalAddr().(*net.UDPAddr); ok {
		c.id = uint16(a.Port)
	}
	for c.id == 0 {
		var b [2]byte
		_, _ = rand.Read(b[:])
		c.id = binary.BigEndian.Uint16(b[:])
	}
	for w := range c.legs {
		c.legs[w] = Leg{c, Way(w)}
	}
	c.out.write = c.write
}

// noICMP makes an error of the system's one that says what to do.
func noICMP(err error) error {
	if !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("open ICMP socket: %w", err)
	}
	program := "PROGRAM"
	if exe, err := os.Executable(); err == nil {
		program = filepath.Clean(exe)
	}
	return fmt.Errorf("open ICMP socket: %w; %s", err, grant(program))
}

// ErrNotRaw is what [OpenICMP] would say if a socket that only asks did not do.
func ErrNotRaw() error { return noICMP(os.ErrPermission) }

// ID is the identifier of our echo requests.
func (c *ICMP) ID() uint16 { return c.id }

// Is4 reports whether the socket is of IPv4.
func (c *ICMP) Is4() bool { return c.v4 }

// Raw reports whether all Ways are open, instead of Ask alone.
func (c *ICMP) Raw() bool { return c.raw }

// Leg is one way of the socket, nil if it is not open.
func (c *ICMP) Leg(w Way) *Leg {
	if w != Ask && !c.raw || w >= Unreachable && c.udp == nil {
		return nil
	}
	return &c.legs[w]
}

// Close ends Read. What waits to be sent is dropped.
func (c *ICMP) Close() error {
	c.out.close()
	return c.conn.Close()
}

// Read hands every packet to deliver, with the way and the endpoint that it came from,
// until the socket is closed. The bytes are deliver's only until it returns.
func (c *ICMP) Read(deliver func(w Way, from netip.AddrPort, b []byte)) error {
	b := make([]byte, packetSize)
	for {
		n, addr, err := c.conn.ReadFrom(b)
		switch {
		case err == nil:
			c.take(addrOf(addr), b[:n], deliver)
		case errors.Is(err, net.ErrClosed):
			return nil
		case !isErrno(err, errnosPassing):
			return err
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.IPAddr:
		ip = a.IP
	case *net.UDPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// take sorts one message.
func (c *ICMP) take(from netip.Addr, b []byte, deliver func(Way, netip.AddrPort, []byte)) {
	m, err := icmp.Parse(b, c.v4)
	if err != nil {
		c.Malformed.Add(1)
		return
	}
	w, remote, data := Answer, netip.AddrPortFrom(from, m.ID), m.Body
	switch m.Kind {
	case icmp.EchoRequest:
	case icmp.EchoReply:
		if w = Ask; m.ID != c.id {
			c.Strange.Add(1)
			return
		}
	case icmp.PortUnreachable, icmp.TimeExceeded:
		if w = Unreachable; m.Kind == icmp.TimeExceeded {
			w = Exceeded
		}
		q, err := icmp.ParseQuote(m.Body)
		if err != nil {
			c.Malformed.Add(1)
			return
		}
		if c.udp == nil || q.Echo || q.From.Port() != c.udp.Local().Port() {
			c.Strange.Add(1) // another process's flow
			return
		}
		remote, data = q.To, q.Data
	}
	if len(data) < icmpPrefix || [4]byte(data) != magic {
		c.Malformed.Add(1)
		return
	}
	own := [tagSize]byte(data[len(magic):]) == c.tag
	if data = data[icmpPrefix:]; own {
		c.Echoed.Add(1)
		if w != Ask || len(data) == 0 || data[0] > 3 {
			return // a probe that comes back tells something, other packets do not
		}
	}
	deliver(w, remote, data)
}

// Send sends a packet of the control plane. A ttl other than 0 is
// [errors.ErrUnsupported]: no way has openers of its own.
func (l *Leg) Send(to netip.AddrPort, ttl uint8, b []byte) error {
	if ttl != 0 {
		return errors.ErrUnsupported
	}
	if l.way >= Unreachable {
		l.icmp.open(to)
	}
	return l.icmp.out.send(parcel{l.way, to, b})
}

// Queue sends packets of segment bytes, the last one as long as is left, at the rate that
// is due to ICMP.
func (l *Leg) Queue(to netip.AddrPort, b []byte, segment int) {
	if segment <= 0 {
		segment = max(1, len(b))
	}
	for len(b) > 0 {
		n := min(segment, len(b))
		l.icmp.out.queue(parcel{l.way, to, b[:n]})
		b = b[n:]
	}
}

// SyscallConn implements path's Sender: QUIC has nothing to ask an ICMP socket.
func (l *Leg) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// write sends one packet.
func (c *ICMP) write(p parcel) error {
	m := icmp.Message{Kind: kinds[p.way], ID: p.to.Port()}
	body := make([]byte, 0, len(p.data)+icmpPrefix+icmp.QuoteSize(false))
	body = append(append(append(body, magic[:]...), c.tag[:]...), p.data...)
	switch p.way {
	case Ask:
		m.ID = c.id
		m.Seq = uint16(c.seq.Add(1))
	case Answer:
		m.Seq = uint16(c.seq.Add(1))
	default:
		own, err := c.source(p.to.Addr())
		if err != nil {
			return err
		}
		q := icmp.Quote{From: p.to, To: netip.AddrPortFrom(own, c.udp.Local().Port()), Data: body}
		m.ID, body = 0, q.Append(make([]byte, 0, len(body)+icmp.QuoteSize(c.v4)))
	}
	m.Body = body
	b := m.Append(make([]byte, 0, icmp.HeaderSize+len(body)), c.v4)
	var to net.Addr = &net.IPAddr{IP: p.to.Addr().AsSlice()}
	if !c.raw {
		to = &net.UDPAddr{IP: p.to.Addr().AsSlice()}
	}
	_, err := c.conn.WriteTo(b, to)
	return err
}

// source is our own address on the way to another: what a NAT must find in the packet
// that an error quotes.
func (c *ICMP) source(to netip.Addr) (netip.Addr, error) {
	now := time.Now()
	c.mu.Lock()
	s, ok := c.sources[to]
	c.mu.Unlock()
	if ok && now.Sub(s.at) < sourceLife {
		return s.addr, nil
	}
	err := c.network.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		s.addr = addrOf(conn.LocalAddr())
		return nil
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the address of ours that leads to %v: %w", to, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sources) >= maxOpened {
		clear(c.sources)
	}
	c.sources[to] = source{s.addr, now}
	return s.addr, nil
}

// open sends a packet of UDP to an endpoint now and then, so that our NAT has a flow which
// errors can be about. The packet says nothing.
func (c *ICMP) open(to netip.AddrPort) {
	now := time.Now()
	c.mu.Lock()
	o := c.opened[to]
	if pause := now.Sub(o.at); o.times == 1 && pause < openAgain || o.times > 1 && pause < openEvery {
		c.mu.Unlock()
		return
	}
	if len(c.opened) >= maxOpened {
		clear(c.opened)
	}
	c.opened[to] = opened{now, o.times + 1}
	c.mu.Unlock()
	nothing := append(append(make([]byte, 0, icmpPrefix), magic[:]...), c.tag[:]...)
	if o.times == 0 && c.udp.Send(to, openTTL, nothing) == nil {
		return
	}
	_ = c.udp.Send(to, 0, nothing)
}
