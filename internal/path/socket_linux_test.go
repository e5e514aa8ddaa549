package path

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"unsafe"

	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/punch"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// What quic-go asks a connection for before it sends bursts and reads batches.
var _ interface {
	quic.OOBCapablePacketConn
	ReadBatch(messages []ipv4.Message, flags int) (int, error)
	SetWriteBuffer(int) error
} = (*Conn)(nil)

func segmentMessage(size uint16) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = size
	return b
}

// ecnMessage is what quic-go puts in front: it belongs to the overlay.
func ecnMessage() []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	h.SetLen(unix.CmsgLen(4))
	b[unix.CmsgLen(0)] = 2
	return b
}

func TestRelayedBurstHasAHeaderAPacket(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	s.publish(peerA, hole, channel)
	burst := bytes.Repeat([]byte("0123456789"), 5)[:45]
	oob := append(ecnMessage(), segmentMessage(10)...)
	for class, want := range map[punch.Transport]int{punch.Relay: wire.ChannelOverhead, punch.UDP: 0} {
		n, oobn, err := bare(s.Dial()).WriteMsgUDP(burst, oob, &net.UDPAddr{IP: peerA.AsSlice(), Port: int(class)})
		if n != len(burst) || oobn != len(oob) || err != nil {
			t.Errorf("wrote %d and %d, %v", n, oobn, err)
		}
		sent := s.out.take()
		if len(sent) != 5 {
			t.Fatalf("%d packets", len(sent))
		}
		for i, p := range sent {
			b := p.data
			if want > 0 {
				c, data, ok := wire.ParseChannelData(b)
				if !ok || c != channel.Channel {
					t.Fatalf("packet %d is %x", i, b)
				}
				b = data
			}
			if !bytes.Equal(b, burst[10*i:min(10*i+10, len(burst))]) {
				t.Errorf("packet %d is %q", i, b)
			}
		}
	}
	// Of a burst the last packet is the one that leaves again.
	s.publish(peerA, channel)
	if sent := s.out.take(); len(sent) != 1 || string(sent[0].data[wire.ChannelOverhead:]) != "01234" {
		t.Errorf("sent again: %v", sent)
	}
}

func TestSegmentOf(t *testing.T) {
	t.Parallel()
	whole := append(ecnMessage(), segmentMessage(1228)...)
	if got := segmentOf(whole); got != 1228 {
		t.Errorf("got %d", got)
	}
	for i := range whole[:len(whole)-1] {
		_ = segmentOf(whole[:i])
	}
	if got := segmentOf(nil) + segmentOf(ecnMessage()); got != 0 {
		t.Errorf("got %d", got)
	}
}

// Over the system's sockets: what QUIC writes as a burst arrives packet by
// packet, in both families, directly and through a server.
func TestBurstsOverLoopback(t *testing.T) {
	t.Parallel()
	for network, local := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			open := func() *sock.Socket {
				c, err := sock.Open(t.Context(), sock.System{}, network, netip.MustParseAddrPort(local))
				if sock.NoFamily(err) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			x, y := open(), open()
			a, b := newBench(t), newBench(t)
			for _, end := range []struct {
				s *bench
				c *sock.Socket
			}{{a, x}, {b, y}} {
				end.s.SetSocket(2, end.c)
				done := make(chan error, 1)
				go func() {
					done <- end.c.Read(func(from netip.AddrPort, p []byte) { end.s.Deliver(2, from, p) })
				}()
				t.Cleanup(func() {
					_ = end.c.Close()
					if err := <-done; err != nil {
						t.Error(err)
					}
				})
			}
			a.publish(peerB, Key{Local: 2, To: y.Local()})
			b.publish(peerA, Key{Local: 2, To: x.Local()})
			conn, ok := a.Dial().(*Conn)
			if !ok {
				t.Fatal("no descriptor to ask")
			}
			if _, err := conn.SyscallConn(); err != nil {
				t.Fatal(err)
			}
			burst := make([]byte, 16*1228-100)
			for i := range burst {
				burst[i] = 0xc0 | byte(i/1228)
			}
			if _, _, err := conn.WriteMsgUDP(burst, segmentMessage(1228), &net.UDPAddr{IP: peerB.AsSlice(), Port: int(punch.UDP)}); err != nil {
				t.Fatal(err)
			}
			for i := range 16 {
				p := make([]byte, 2048)
				n, from, err := b.Accept().ReadFrom(p)
				if err != nil || !bytes.Equal(p[:n], burst[1228*i:min(1228*(i+1), len(burst))]) {
					t.Fatalf("packet %d has %d bytes, %v", i, n, err)
				}
				if from.String() != "[fd00::a]:4" {
					t.Errorf("from %v", from)
				}
			}
			if want := uint64(len(burst)); b.Traffic(peerA).Received[punch.UDP] != want || a.Traffic(peerB).Sent[punch.UDP] != want {
				t.Error("traffic is counted wrong")
			}
		})
	}
}

// What QUIC's bursts cost on their way to a socket of the system's, directly and
// through the relay.
func TestSendingDoesNotAllocate(t *testing.T) {
	x, err := sock.Open(t.Context(), sock.System{}, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	s := newBench(t)
	s.SetSocket(2, x)
	direct := Key{Local: 2, To: x.Local()}
	relayed := Key{Local: 2, To: x.Local(), Channel: wire.FirstAskedChannel}
	s.publish(peerA, direct, relayed)
	burst := make([]byte, 16*1228)
	oob := segmentMessage(1228)
	conn := bare(s.Dial())
	for _, class := range []punch.Transport{punch.UDP, punch.Relay} {
		to := &net.UDPAddr{IP: peerA.AsSlice(), Port: int(class)}
		if n := testing.AllocsPerRun(500, func() {
			if _, _, err := conn.WriteMsgUDP(burst, oob, to); err != nil {
				t.Error(err)
			}
		}); n >= 1 {
			t.Errorf("%v: %v allocations for a burst", class, n)
		}
	}
}
