package path

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/punch"
)

// After an outage QUIC sees the peer at another port, and what it writes there still
// takes routes of the class.
func TestPeerIsAnotherToQUICAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		s.publish(peerA, hole, channel)
		port := func() int {
			t.Helper()
			s.Deliver(1, hole.To, []byte("\xc0x"))
			b := make([]byte, 8)
			_, from, err := s.Accept().ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			at := from.(*net.UDPAddr)
			_, _ = s.Accept().WriteTo([]byte("answer"), at)
			if sent := s.out.take(); len(sent) != 1 || sent[0].to != hole.To {
				t.Errorf("the answer to port %d: %v", at.Port, sent)
			}
			return at.Port
		}
		come := func(keys ...Key) bool {
			t.Helper()
			var routes []Route
			for _, k := range keys {
				routes = append(routes, Route{Key: k})
			}
			afresh := s.Publish(peerA, routes)
			s.out.take() // the last packet, once more
			return afresh
		}
		first := port()
		if first != int(punch.UDP) {
			t.Errorf("at port %d at first", first)
		}
		if come(channel, hole) || come(hole, channel) || port() != first {
			t.Error("it is another one without an outage")
		}
		time.Sleep(time.Hour)
		if come(hole) || port() != first {
			t.Error("it is another one since nobody said anything")
		}
		_ = come()
		time.Sleep(outage)
		if !come(hole) {
			t.Error("the outage was not noticed")
		}
		second := port()
		if second == first || classOf(second) != punch.UDP {
			t.Errorf("at port %d after the outage, %d before", second, first)
		}
		for range 1 << 12 { // the ports come round
			_ = come()
			time.Sleep(outage)
			_ = come(hole)
		}
		if at := port(); classOf(at) != punch.UDP {
			t.Errorf("at port %d in the end", at)
		}
	})
}
