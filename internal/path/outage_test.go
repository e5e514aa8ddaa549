package path

import (
	"net"
	"net/netip"
	"slices"
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

// QUIC repeats itself more and more seldom while nothing answers; then an answer comes.
func TestAnswerAfterRepeatsEndsAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newBench(t)
		s.publish(peerA, hole)
		ended := 0
		s.cfg.Answered = func(at netip.Addr) {
			if at != peerA {
				t.Errorf("answered by %v", at)
			}
			ended++
		}
		send := func(pauses ...time.Duration) {
			for _, p := range pauses {
				time.Sleep(p)
				_, _ = s.Dial().WriteTo([]byte("data"), &net.UDPAddr{IP: peerA.AsSlice(), Port: int(punch.UDP)})
			}
		}
		answer := func() { s.Deliver(1, hole.To, []byte("\xc0x")) }
		const ms = time.Millisecond
		for _, c := range []struct {
			name   string
			pauses []time.Duration
			want   int
		}{
			{"question and answer", []time.Duration{ms}, 0},
			{"an acknowledgement, and a question a minute later", []time.Duration{ms, time.Minute, 20 * ms, 20 * ms}, 0},
			{"a flow to a distant peer", slices.Repeat([]time.Duration{20 * ms}, 50), 0},
			{"repeats", []time.Duration{ms, 300 * ms, 600 * ms, 1200 * ms}, 1},
			{"what follows", []time.Duration{ms, ms}, 0},
		} {
			ended = 0
			send(c.pauses...)
			answer()
			answer()
			if ended != c.want {
				t.Errorf("%s: ended %d outages", c.name, ended)
			}
		}
		s.out.take()
		if s.Revive(peerA, true) || len(s.out.take()) > 0 {
			t.Error("revived though it was heard just now")
		}
		if !s.Revive(peerA, false) || len(s.out.take()) != 1 {
			t.Error("not revived")
		}
		time.Sleep(outage)
		if !s.Revive(peerA, true) || len(s.out.take()) != 1 {
			t.Error("not revived after a silence")
		}
		if s.Revive(selfAt, false) {
			t.Error("revived a stranger")
		}
	})
}
