package path

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"

	"bodkin/punch"
)

// A packet is of the path that its connection ID began on: one that took the relay in
// an emergency does not move the connection, and one that tries a path does not either.
func TestPacketsAreOfThePathThatTheirConnectionIDBeganOn(t *testing.T) {
	t.Parallel()
	s := newBench(t)
	// A packet is a letter, which is its connection ID, and "?" if it tries a path.
	s.cfg.ConnID = func(b []byte) (uint64, bool) {
		if b[0] == 'I' {
			return 0, false // a connection begins
		}
		return uint64(b[0]), len(b) > 1
	}
	s.publish(peerA, hole, channel)
	ports := make(map[int]string)
	for _, step := range []struct {
		by     Key
		packet string
		of     punch.Transport
	}{
		{channel, "I", punch.Relay},
		{channel, "r", punch.Relay},
		{hole, "r", punch.Relay}, // the class does not follow the route
		{hole, "u?", punch.UDP},  // the peer tries the hole
		{hole, "u?", punch.UDP},
		{channel, "r", punch.Relay},
		{hole, "u", punch.UDP}, // and has moved there
		{hole, "u", punch.UDP},
		{channel, "u", punch.UDP}, // an emergency
		{channel, "u", punch.UDP},
		{channel, "v", punch.UDP}, // a new ID on the same path
		{channel, "v", punch.UDP},
		{channel, "s?", punch.Relay}, // the peer tries the relay
		{channel, "v", punch.UDP},
		{channel, "s", punch.Relay},
		{channel, "t?", punch.Relay}, // and once more, since an answer got lost
		{hole, "w", punch.Relay},     // a new ID, in another emergency
	} {
		if step.by == channel {
			s.Deliver(step.by.Local, step.by.To, channelData(channel, step.packet))
		} else {
			s.Deliver(step.by.Local, step.by.To, []byte(step.packet))
		}
		b := make([]byte, 8)
		n, from, err := s.Accept().ReadFrom(b)
		if err != nil || string(b[:n]) != step.packet || classOf(from.(*net.UDPAddr).Port) != step.of {
			t.Fatalf("%s by %v came as %q from %v, %v; want class %v", step.packet, step.by.Transport(), b[:n], from, err, step.of)
		}
		// One that is tried is not the one in use, nor any before.
		if port := from.(*net.UDPAddr).Port; len(step.packet) > 1 && ports[port] != step.packet && ports[port] != "" {
			t.Errorf("%s tries path %d, which is that of %s", step.packet, port, ports[port])
		} else {
			ports[port] = step.packet
		}
	}
	// Any number of IDs takes a bounded memory.
	s.cfg.ConnID = func(b []byte) (uint64, bool) { return binary.BigEndian.Uint64(b), true }
	for i := range 10 * maxOrigins {
		s.Deliver(hole.Local, hole.To, binary.BigEndian.AppendUint64(nil, uint64(i)<<32|0x7f<<56))
	}
	if n := len((*s.peers.Load())[peerA].origins.known); n != maxOrigins {
		t.Errorf("%d origins are known", n)
	}
	// Packets that came in one piece and are of several paths are told apart.
	s.cfg.ConnID = func(b []byte) (uint64, bool) { return uint64(b[0]), b[0] == 'p' }
	_ = got(t, s.Accept())
	s.DeliverRun(hole.Local, hole.To, []byte(strings.Repeat("q", 8)+strings.Repeat("p", 8)), 8)
	if g := got(t, s.Accept()); len(g) != 2 || g[0] == strings.Replace(g[1], "pppppppp", "qqqqqqqq", 1) {
		t.Errorf("a run of two paths came as %q", g)
	}
}
