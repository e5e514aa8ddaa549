package path

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"

	"golang.org/x/net/ipv4"
)

// recorder is a simulated socket that keeps what is sent.
type recorder struct {
	mu   sync.Mutex
	sent []sentPacket
	done chan struct{}
	once sync.Once
}

type sentPacket struct {
	to   netip.AddrPort
	data []byte
}

func (r *recorder) ListenPacket(context.Context, string, netip.AddrPort) (net.PacketConn, error) {
	return r, nil
}
func (r *recorder) Prefixes() ([]netip.Prefix, error) { return nil, nil }

func (r *recorder) WriteTo(b []byte, to net.Addr) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, sentPacket{to.(*net.UDPAddr).AddrPort(), bytes.Clone(b)})
	return len(b), nil
}

func (r *recorder) ReadFrom([]byte) (int, net.Addr, error) {
	<-r.done
	return 0, nil, net.ErrClosed
}

func (r *recorder) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

func (r *recorder) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(ap("192.0.2.50:50")) }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// take returns what was sent since the last time.
func (r *recorder) take() []sentPacket {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.sent
	r.sent = nil
	return out
}

var (
	selfAt   = netip.MustParseAddr("fd00::1")
	peerA    = netip.MustParseAddr("fd00::a")
	peerB    = netip.MustParseAddr("fd00::b")
	hole     = Key{Local: 1, To: ap("198.51.100.1:6000")}
	channel  = Key{Local: 1, To: serverAt, Channel: wire.FirstAskedChannel}
	dialledB = byte(0xdd) // what the tests' packets of dialled connections begin with
)

type control struct {
	local punch.Local
	from  netip.AddrPort
	data  []byte
}

type active struct {
	overlay netip.Addr
	by      Key
	heard   time.Time
}

// bench is a Socket over a recorder, with two peers that have no routes.
type bench struct {
	*Socket
	out      *recorder
	mu       sync.Mutex
	controls []control
	actives  []active
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	s := &bench{out: &recorder{done: make(chan struct{})}}
	s.Socket = NewSocket(SocketConfig{
		Overlay: selfAt,
		Dialled: func(b []byte) bool { return len(b) > 0 && b[0] == dialledB },
		Control: func(by Key, b []byte) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.controls = append(s.controls, control{by.Local, by.To, b})
		},
		Active: func(overlay netip.Addr, by Key, heard time.Time, _ int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.actives = append(s.actives, active{overlay, by, heard})
		},
	})
	c, err := sock.Open(context.Background(), s.out, "udp4", netip.AddrPort{})
	if err != nil {
		tb.Fatal(err)
	}
	s.SetSocket(1, c)
	s.SetServers(serverAt)
	s.AddPeer(peerA)
	s.AddPeer(peerB)
	tb.Cleanup(s.Close)
	return s
}

func (s *bench) publish(overlay netip.Addr, keys ...Key) {
	var routes []Route
	for _, k := range keys {
		s.Hear(overlay, k)
		routes = append(routes, Route{Key: k})
	}
	s.Publish(overlay, routes)
}

// got reads what is queued at a connection, without waiting.
func got(tb testing.TB, c net.PacketConn) (out []string) {
	tb.Helper()
	_ = c.SetReadDeadline(time.Time{})
	conn := bare(c)
	for {
		conn.mu.Lock()
		n := conn.queue.packets
		conn.mu.Unlock()
		if n == 0 {
			return out
		}
		b := make([]byte, 2048)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%v:%s", from.(*net.UDPAddr).AddrPort(), b[:n]))
	}
}

func bare(c net.PacketConn) *Conn {
	if p, ok := c.(plain); ok {
		return p.c
	}
	return c.(*Conn)
}

func channelData(k Key, data string) []byte {
	return wire.AppendChannelData(nil, k.Channel, []byte(data))
}

func TestDeliverClassifies(t *testing.T) {
	t.Parallel()
	stun := wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil)
	noCookie := bytes.Clone(stun)
	noCookie[4]++
	unknown := Key{Local: 1, To: serverAt, Channel: wire.FirstServedChannel + 9}
	elsewhere := netip.AddrPortFrom(serverAt.Addr(), serverAt.Port()+1)
	for name, c := range map[string]struct {
		local   punch.Local
		from    netip.AddrPort
		data    []byte
		accept  string
		dial    string
		control bool
	}{
		"QUIC of a peer":                         {1, hole.To, []byte("\xc0quic"), "[fd00::a]:4:\xc0quic", "", false},
		"of a connection that we dialled":        {1, hole.To, []byte("\xddquic"), "", "[fd00::a]:4:\xddquic", false},
		"short header that looks like a channel": {1, hole.To, channelData(channel, "x"), "[fd00::a]:4:" + string(channelData(channel, "x")), "", false},
		"every such byte":                        {1, hole.To, []byte("\x4fabc"), "[fd00::a]:4:\x4fabc", "", false},
		"another port of the peer":               {1, netip.AddrPortFrom(hole.To.Addr(), 1), []byte("\xc0quic"), "", "", false},
		"another socket":                         {2, hole.To, []byte("\xc0quic"), "", "", false},
		"relayed":                                {1, serverAt, channelData(channel, "quic"), "[fd00::a]:1:quic", "", false},
		"relayed, dialled":                       {1, serverAt, channelData(channel, "\xddquic"), "", "[fd00::a]:1:\xddquic", false},
		"relayed STUN":                           {1, serverAt, channelData(channel, string(stun)), "", "", true},
		"relayed, padded":                        {1, serverAt, append(channelData(channel, "quic"), 0, 0), "[fd00::a]:1:quic", "", false},
		"channel of nobody":                      {1, serverAt, channelData(unknown, "quic"), "", "", false},
		"channel cut short":                      {1, serverAt, channelData(channel, "quic")[:6], "", "", false},
		"channel from the server's other port":   {1, elsewhere, channelData(channel, "quic"), "", "", false},
		"QUIC of the server":                     {1, serverAt, []byte("\xc0quic"), "", "", false},
		"STUN of the server":                     {1, serverAt, stun, "", "", true},
		"STUN of a peer":                         {1, hole.To, stun, "", "", true},
		"STUN of a stranger":                     {1, ap("192.0.2.99:9"), stun, "", "", true},
		"without the cookie":                     {1, hole.To, noCookie, "[fd00::a]:4:" + string(noCookie), "", false},
		"nothing":                                {1, ap("192.0.2.99:9"), nil, "", "", false},
		"too large for QUIC":                     {1, hole.To, bytes.Repeat([]byte{0xc0}, maxPacket+1), "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newBench(t)
			s.publish(peerA, hole, channel)
			data := bytes.Clone(c.data)
			s.Deliver(c.local, c.from, data)
			clear(data) // the bytes were Deliver's only until it returned
			want := func(s string) []string {
				if s == "" {
					return nil
				}
				return []string{s}
			}
			if g := got(t, s.Accept()); !slices.Equal(g, want(c.accept)) {
				t.Errorf("accept got %q", g)
			}
			if g := got(t, s.Dial()); !slices.Equal(g, want(c.dial)) {
				t.Errorf("dial got %q", g)
			}
			if (len(s.controls) == 1) != c.control {
				t.Fatalf("control got %v", s.controls)
			}
			if c.control && (!bytes.HasSuffix(c.data, s.controls[0].data) || s.controls[0].from != c.from || s.controls[0].local != c.local) {
				t.Errorf("control got %v", s.controls[0])
			}
			counted := s.Stray.Load() + s.Overrun.Load()
			if lost := c.accept == "" && c.dial == "" && !c.control; (counted == 1) != lost {
				t.Errorf("%d counted", counted)
			}
		})
	}
}

func FuzzDeliver(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add(wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil), uint8(0))
	f.Add(channelData(channel, "data"), uint8(1))
	f.Add([]byte("\x40\x00\xff\xff"), uint8(1))
	f.Add([]byte("\xc0\x00\x00\x00\x01"), uint8(2))
	s := newBench(f)
	s.publish(peerA, hole, channel)
	from := []netip.AddrPort{ap("192.0.2.99:9"), serverAt, hole.To}
	f.Fuzz(func(t *testing.T, b []byte, who uint8) {
		s.controls = nil
		before := s.Stray.Load() + s.Overrun.Load()
		s.Deliver(1, from[int(who)%len(from)], b)
		where := len(s.controls) + len(got(t, s.Accept())) + len(got(t, s.Dial())) + int(s.Stray.Load()+s.Overrun.Load()-before)
		if where != 1 {
			t.Errorf("a packet went to %d places", where)
		}
	})
}

// The asker's first data comes right behind the server's word of it.
func TestEarlyRelayedPacketsWaitForTheirChannel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		other := channel
		other.Channel++
		s.Deliver(1, serverAt, channelData(channel, "too old"))
		time.Sleep(earlyLife)
		s.Deliver(1, serverAt, channelData(channel, "one"))
		s.Deliver(1, serverAt, channelData(other, "of another"))
		s.Deliver(1, serverAt, channelData(channel, "two"))
		s.Deliver(1, hole.To, []byte("\xc0direct ones do not wait"))
		s.Hear(peerA, channel)
		if g := got(t, s.Accept()); !slices.Equal(g, []string{"[fd00::a]:1:one", "[fd00::a]:1:two"}) {
			t.Errorf("got %q", g)
		}
		s.Hear(peerB, other)
		if g := got(t, s.Accept()); !slices.Equal(g, []string{"[fd00::b]:1:of another"}) {
			t.Errorf("got %q", g)
		}
		s.Hear(peerA, channel)
		s.Hear(peerA, hole)
		if g := got(t, s.Accept()); g != nil {
			t.Errorf("delivered again: %q", g)
		}
	})
}

func TestEarlyPacketsAreFew(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	for i := range 3 * maxEarly {
		s.Deliver(1, serverAt, channelData(channel, fmt.Sprint(i)))
	}
	s.Hear(peerA, channel)
	g := got(t, s.Accept())
	if len(g) != maxEarly || g[len(g)-1] != fmt.Sprintf("[fd00::a]:1:%d", 3*maxEarly-1) {
		t.Errorf("got %q", g)
	}
}

// Whichever of the two comes first, the packet must not fall in between.
func TestEarlyPacketMeetsItsChannel(t *testing.T) {
	t.Parallel()
	for range 500 {
		s := newBench(t)
		var wg sync.WaitGroup
		wg.Go(func() { s.Deliver(1, serverAt, channelData(channel, "x")) })
		wg.Go(func() { s.Hear(peerA, channel) })
		wg.Wait()
		if g := got(t, s.Accept()); len(g) != 1 {
			t.Fatalf("got %q", g)
		}
	}
}

// A probe tells who sent it, not where from: it cannot take over the source of
// another peer's route. Our own nonce that came back can.
func TestSourceOfARouteStaysItsPeers(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	s.publish(peerA, hole)
	s.Hear(peerB, hole)
	s.Deliver(1, hole.To, []byte("\xc0x"))
	if g := got(t, s.Accept()); !slices.Equal(g, []string{"[fd00::a]:4:\xc0x"}) {
		t.Errorf("got %q", g)
	}
	s.publish(peerB, hole)
	s.Deliver(1, hole.To, []byte("\xc0y"))
	if g := got(t, s.Accept()); !slices.Equal(g, []string{"[fd00::b]:4:\xc0y"}) {
		t.Errorf("got %q", g)
	}
	s.Unhear(hole)
	s.Deliver(1, hole.To, []byte("\xc0z"))
	if g := got(t, s.Accept()); g != nil {
		t.Errorf("a closed source: %q", g)
	}
}

func TestPacketsLeaveByTheBestRouteOfTheirClass(t *testing.T) {
	t.Parallel()
	second := Key{Local: 1, To: ap("198.51.100.1:6001")}
	for name, c := range map[string]struct {
		routes []Key
		class  punch.Transport
		want   netip.AddrPort
	}{
		"direct":                         {[]Key{hole, channel}, punch.UDP, hole.To},
		"relay, though a hole is better": {[]Key{hole, channel}, punch.Relay, serverAt},
		"the best of two":                {[]Key{second, hole}, punch.UDP, second.To},
		"emergency: the hole is gone":    {[]Key{channel}, punch.UDP, serverAt},
		"emergency: the relay is gone":   {[]Key{hole}, punch.Relay, hole.To},
		"no such class":                  {[]Key{hole, channel}, 77, hole.To},
		"no route":                       {nil, punch.UDP, netip.AddrPort{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newBench(t)
			s.publish(peerA, c.routes...)
			n, err := s.Dial().WriteTo([]byte("data"), &net.UDPAddr{IP: peerA.AsSlice(), Port: int(c.class)})
			if n != 4 || err != nil {
				t.Errorf("wrote %d, %v: a packet that cannot leave is lost, not an error", n, err)
			}
			sent := s.out.take()
			if !c.want.IsValid() {
				if len(sent) != 0 {
					t.Errorf("sent %v", sent)
				}
				return
			}
			want := []byte("data")
			if c.want == serverAt {
				want = channelData(channel, "data")
			}
			if len(sent) != 1 || sent[0].to != c.want || !bytes.Equal(sent[0].data, want) {
				t.Errorf("sent %v", sent)
			}
			if c.class == punch.UDP || c.class == punch.Relay {
				// The connection of a class does not look at the port.
				_, _ = s.Moved(c.class).WriteTo([]byte("data"), &net.UDPAddr{IP: peerA.AsSlice(), Port: 9})
				if sent := s.out.take(); len(sent) != 1 || sent[0].to != c.want {
					t.Errorf("moved: sent %v", sent)
				}
			}
		})
	}
}

func TestNothingLeavesForAStranger(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	if _, err := s.Dial().WriteTo([]byte("data"), &net.UDPAddr{IP: net.ParseIP("fd00::c"), Port: 4}); err != nil {
		t.Error(err)
	}
	if _, err := s.Dial().WriteTo(nil, &net.UDPAddr{IP: peerA.AsSlice(), Port: 4}); err != nil {
		t.Error(err)
	}
	if _, err := s.Dial().WriteTo([]byte("data"), &net.TCPAddr{}); err == nil {
		t.Error("wrote to a TCP address")
	}
	if sent := s.out.take(); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
	if err := s.SendControl(7, hole.To, 0, []byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket that does not exist sent: %v", err)
	}
}

// When a route comes back after an outage, the last packet leaves once more.
func TestLastPacketLeavesAgainWhenARouteComesBack(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	to := &net.UDPAddr{IP: peerA.AsSlice(), Port: int(punch.UDP)}
	s.publish(peerA, channel)
	if sent := s.out.take(); len(sent) != 0 {
		t.Errorf("sent %v: there is no last packet", sent)
	}
	s.publish(peerA)
	_, _ = s.Dial().WriteTo([]byte("first"), to)
	_, _ = s.Dial().WriteTo([]byte("last"), to)
	s.publish(peerA, hole)
	if sent := s.out.take(); len(sent) != 1 || string(sent[0].data) != "last" || sent[0].to != hole.To {
		t.Errorf("sent %v", sent)
	}
	s.publish(peerA, hole, channel)
	if sent := s.out.take(); len(sent) != 0 {
		t.Errorf("sent %v: the best route is the same", sent)
	}
	s.publish(peerA, channel)
	if sent := s.out.take(); len(sent) != 1 || !bytes.Equal(sent[0].data, channelData(channel, "last")) {
		t.Errorf("sent %v", sent)
	}
	s.Again()
	if sent := s.out.take(); len(sent) != 1 {
		t.Errorf("again: sent %v", sent)
	}
}

func TestActivityIsToldFourTimesASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		s.publish(peerA, hole)
		time.Sleep(time.Second)
		s.Deliver(1, hole.To, []byte("\xc0x"))
		heard := time.Now()
		for range 1000 {
			_, _ = s.Dial().WriteTo([]byte("data"), &net.UDPAddr{IP: peerA.AsSlice(), Port: 4})
			time.Sleep(time.Millisecond)
		}
		if len(s.actives) != 4 || s.actives[3] != (active{peerA, hole, time.Unix(0, heard.UnixNano())}) {
			t.Errorf("told %v", s.actives)
		}
	})
}

func TestTrafficIsCountedByClass(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	s.publish(peerA, hole, channel)
	to := func(c punch.Transport) *net.UDPAddr { return &net.UDPAddr{IP: peerA.AsSlice(), Port: int(c)} }
	_, _ = s.Dial().WriteTo(make([]byte, 100), to(punch.UDP))
	_, _ = s.Dial().WriteTo(make([]byte, 10), to(punch.Relay))
	s.Deliver(1, hole.To, bytes.Repeat([]byte{0xc0}, 30))
	s.Deliver(1, serverAt, channelData(channel, "1234567"))
	want := Traffic{}
	want.Sent[punch.UDP], want.Sent[punch.Relay] = 100, 10
	want.Received[punch.UDP], want.Received[punch.Relay] = 30, 7
	if got := s.Traffic(peerA); got != want {
		t.Errorf("traffic %+v", got)
	}
	if got := s.Traffic(peerB); got != (Traffic{}) {
		t.Errorf("the other peer's traffic %+v", got)
	}
	for k, want := range map[Key][2]uint64{hole: {100, 30}, channel: {10, 7}, {Local: 7}: {}} {
		if sent, arrived := s.RouteTraffic(k); sent != want[0] || arrived != want[1] {
			t.Errorf("by %v %d sent, %d arrived", k, sent, arrived)
		}
	}
}

func TestAliasIsTheSamePeer(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	s.publish(peerA, hole)
	also := netip.MustParseAddr("fd00::aa")
	s.Alias(also, peerA)
	_, _ = s.Dial().WriteTo([]byte("x"), &net.UDPAddr{IP: also.AsSlice(), Port: 4})
	if sent := s.out.take(); len(sent) != 1 || sent[0].to != hole.To {
		t.Errorf("sent %v", sent)
	}
	// B turns out to be A: what B had is gone, and its address is A's.
	s.publish(peerB, channel)
	s.Alias(peerB, peerA)
	s.Deliver(1, serverAt, channelData(channel, "x"))
	if g := got(t, s.Accept()); g != nil {
		t.Errorf("got %q", g)
	}
	if a, b := s.Traffic(peerA), s.Traffic(peerB); a != b || a.Sent[punch.UDP] != 1 {
		t.Errorf("traffic %v and %v", a, b)
	}
	s.Alias(netip.MustParseAddr("fd00::cc"), netip.MustParseAddr("fd00::dd")) // of nobody
	s.RemovePeer(also)
	s.RemovePeer(also)
	s.Deliver(1, hole.To, []byte("\xc0x"))
	_, _ = s.Dial().WriteTo([]byte("x"), &net.UDPAddr{IP: peerB.AsSlice(), Port: 4})
	if g, sent := got(t, s.Accept()), s.out.take(); g != nil || len(sent) != 0 {
		t.Errorf("after removal got %q, sent %v", g, sent)
	}
	if n := len(*s.sources.Load()) + len(*s.peers.Load()); n != 0 {
		t.Errorf("%d sources and peers are left", n)
	}
	s.Hear(peerA, hole)
	s.Publish(peerA, []Route{{Key: hole}})
	if n := len(*s.sources.Load()); n != 0 {
		t.Errorf("%d sources of a peer that is gone", n)
	}
}

func TestQueueOverrunIsCounted(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	s.publish(peerA, hole)
	packet := []byte("\xc0\x00\x00")
	for i := range queueLength + 7 {
		packet[1], packet[2] = byte(i>>8), byte(i)
		s.Deliver(1, hole.To, packet)
	}
	if n := s.Overrun.Load(); n != 7 {
		t.Errorf("%d overrun", n)
	}
	c := s.Accept()
	b := make([]byte, 16)
	for i := range queueLength {
		if n, _, err := c.ReadFrom(b); err != nil || n != 3 || b[1] != byte(i>>8) || b[2] != byte(i) {
			t.Fatalf("packet %d is %x, %v", i, b[:n], err)
		}
		if i < 5 { // the ring goes around
			s.Deliver(1, hole.To, []byte("\xc1"))
		}
	}
	if g := got(t, c); len(g) != 5 || g[0] != "[fd00::a]:4:\xc1" {
		t.Errorf("then %q", g)
	}
}

func TestReadWaitsForAPacket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		s.publish(peerA, hole)
		c := bare(s.Accept())
		messages := make([]ipv4.Message, 8)
		for i := range messages {
			messages[i].Buffers = [][]byte{make([]byte, 64)}
			messages[i].NN = 9
		}
		n := -1
		go func() { n, _ = c.ReadBatch(messages, 0) }()
		synctest.Wait()
		if n != -1 {
			t.Fatal("did not wait")
		}
		s.Deliver(1, hole.To, []byte("\xc0one"))
		synctest.Wait()
		if n != 1 || messages[0].N != 4 || messages[0].NN != 0 || messages[0].Addr.String() != "[fd00::a]:4" {
			t.Errorf("%d packets, %+v", n, messages[0])
		}
		for range 10 {
			s.Deliver(1, hole.To, []byte("\xc0more"))
		}
		if n, err := c.ReadBatch(messages, 0); n != 8 || err != nil {
			t.Errorf("%d packets, %v", n, err)
		}
		if n, err := c.ReadBatch(messages, 0); n != 2 || err != nil {
			t.Errorf("%d packets, %v", n, err)
		}
	})
}

func TestReadDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		s.publish(peerA, hole)
		c := s.Accept()
		read := func() error {
			_, _, err := c.ReadFrom(make([]byte, 8))
			return err
		}
		begin := time.Now()
		_ = c.SetReadDeadline(begin.Add(time.Second))
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("then %v", err)
		}
		// A deadline without a monotonic clock, as from a file or the wire.
		_ = c.SetDeadline(time.Now().Add(time.Second).Round(0))
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wall clock: %v", err)
		}
		// It moves while somebody reads: the old one does not count any more.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		begin = time.Now()
		done := make(chan error)
		go func() { done <- read() }()
		synctest.Wait()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 5*time.Second {
			t.Errorf("moved: %v after %v", err, time.Since(begin))
		}
		// The past ends a read under way: so does QUIC's Close.
		_ = c.SetReadDeadline(time.Time{})
		go func() { done <- read() }()
		synctest.Wait()
		_ = c.SetReadDeadline(time.Now())
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("past: %v", err)
		}
		_ = c.SetReadDeadline(time.Time{})
		s.Deliver(1, hole.To, []byte("\xc0x"))
		if err := read(); err != nil {
			t.Errorf("after all: %v", err)
		}
	})
}

func TestCloseEndsReadingAndWriting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		s.publish(peerA, hole)
		done := make(chan error, 3)
		for range cap(done) {
			go func() {
				_, _, err := s.Accept().ReadFrom(make([]byte, 8))
				done <- err
			}()
		}
		_ = s.Accept().SetReadDeadline(time.Now().Add(time.Hour))
		synctest.Wait()
		s.Close()
		for range cap(done) {
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a reader ended with %v", err)
			}
		}
		for _, c := range []net.PacketConn{s.Accept(), s.Dial(), s.Moved(punch.Relay), s.Moved(punch.UDP)} {
			if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: peerA.AsSlice(), Port: 4}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("wrote to a closed connection: %v", err)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Hour))
			if _, _, err := c.ReadFrom(make([]byte, 8)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read from a closed connection: %v", err)
			}
		}
		s.Deliver(1, hole.To, []byte("\xc0x"))
		if s.Overrun.Load() != 1 || len(s.out.take()) != 0 {
			t.Error("a closed connection took a packet")
		}
	})
}

// Every reader that waits is woken by as many packets as there are.
func TestNoWakeupIsLost(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	s.publish(peerA, hole)
	c := s.Accept()
	const readers, packets = 4, 4000
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for range packets / readers {
				if _, _, err := c.ReadFrom(make([]byte, 8)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range packets {
		before := s.Overrun.Load()
		s.Deliver(1, hole.To, []byte("\xc0x"))
		for s.Overrun.Load() != before { // the readers are behind: again
			before = s.Overrun.Load()
			s.Deliver(1, hole.To, []byte("\xc0x"))
		}
	}
	wg.Wait()
}

// All at once, for the race detector.
func TestControlAndDataMeetNowhere(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	repeat := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	overlays := []netip.Addr{peerA, peerB}
	for _, c := range []net.PacketConn{s.Accept(), s.Dial()} {
		wg.Go(func() {
			for {
				if _, _, err := c.ReadFrom(make([]byte, 64)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
			}
		})
	}
	repeat(func(i int) { s.publish(overlays[i%2], hole, channel) })
	repeat(func(i int) { s.publish(overlays[i%2]) })
	repeat(func(i int) { s.Unhear(channel) })
	repeat(func(i int) { s.RemovePeer(overlays[i%2]); s.AddPeer(overlays[i%2]) })
	repeat(func(i int) { s.Alias(netip.MustParseAddr("fd00::f"), overlays[i%2]) })
	repeat(func(i int) { s.Deliver(1, hole.To, []byte("\xc0x")) })
	repeat(func(i int) { s.Deliver(1, serverAt, channelData(channel, "\xddx")) })
	repeat(func(i int) { s.Traffic(peerA); s.SetServers(serverAt); s.Again(); s.out.take() })
	repeat(func(i int) { _ = s.Accept().SetReadDeadline(time.Now().Add(time.Duration(i%3) * time.Microsecond)) })
	to := &net.UDPAddr{IP: peerA.AsSlice(), Port: 4}
	for i := range 3000 {
		_, _ = s.Dial().WriteTo([]byte("data"), to)
		_, _ = s.Moved(punch.Transport(1+i%4)).WriteTo([]byte("data"), to)
	}
	close(stop)
	s.Close()
	wg.Wait()
}

func TestSimulatedSocketsAreNotAskedForADescriptor(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	for _, c := range []net.PacketConn{s.Accept(), s.Dial(), s.Moved(punch.UDP)} {
		if _, ok := c.(interface{ SyscallConn() }); ok {
			t.Error("it has SyscallConn")
		}
		if _, ok := c.(interface {
			SetReadBuffer(int) error
			SetWriteBuffer(int) error
		}); !ok {
			t.Error("QUIC will complain about buffers")
		}
		if a := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); a != selfAt {
			t.Errorf("local address %v", a)
		}
	}
}

// The overlay address is the peer's and its instance's, whatever the route.
func TestOverlayAddressesOfInstancesDiffer(t *testing.T) {
	t.Parallel()
	id := peer.NewKey([32]byte{1}).ID()
	if peer.Overlay(id, 1) == peer.Overlay(id, 2) {
		t.Error("two processes share an address")
	}
}
