package conform

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

func (s *suite) measureTimes(m *Times, seen Measured) {
	if seen.UDP.Passes && seen.UDP.Filtering != nat.None {
		m.UDPUnreplied = lifetime(func(d time.Duration) bool { return s.survives(false, d) })
		m.UDPReplied = lifetime(func(d time.Duration) bool { return s.survives(true, d) })
		m.UDPRefreshOut = s.refreshes(m.UDPReplied, true)
		m.UDPRefreshIn = s.refreshes(m.UDPReplied, false)
	}
	if seen.TCP.Passes && seen.TCP.Filtering != nat.None {
		m.TCPTransitory = lifetime(func(d time.Duration) bool {
			c := s.newStream(s.in[0], s.out[0], s.next())
			c.goes(false, natlab.SYN)
			s.wait(d)
			return c.goes(true, natlab.SYN|natlab.ACK)
		})
		after := func(flags natlab.TCPFlags) time.Duration {
			return lifetime(func(d time.Duration) bool {
				c := s.newStream(s.in[0], s.out[0], s.next())
				c.open()
				if flags != 0 {
					c.goes(false, flags)
				}
				s.wait(d)
				return c.goes(true, natlab.ACK)
			})
		}
		m.TCPEstablished, m.TCPAfterReset, m.TCPAfterFIN = after(0), after(natlab.RST), after(natlab.FIN|natlab.ACK)
	}
	if seen.ICMP.Passes && !seen.ICMP.StrangersReplies {
		m.ICMPQuery = lifetime(func(d time.Duration) bool {
			query, _ := s.icmp(s.in[0], echo, s.next(), s.out[0].Addr(), s.out[0])
			s.wait(d)
			_, ok := s.icmp(s.out[0], echoReply, identifier(query), query.From.Addr(), s.in[0])
			return ok
		})
	}
}

// longest is what counts as never.
const longest = 20 * 24 * time.Hour

// lifetime is the first second at which something no longer lives. It tries times
// that double, and halves what is between.
func lifetime(lives func(time.Duration) bool) time.Duration {
	if !lives(0) {
		return 0
	}
	alive, dead := time.Duration(0), time.Second
	for lives(dead) {
		if alive, dead = dead, 2*dead; dead > longest {
			return Never
		}
	}
	for dead-alive > time.Second {
		if middle := (alive + (dead-alive)/2).Truncate(time.Second); lives(middle) {
			alive = middle
		} else {
			dead = middle
		}
	}
	return dead
}

// flow is UDP between a host inside and one outside, through a mapping.
type flow struct {
	*suite
	p, q   uint16
	mapped netip.AddrPort
}

// talk opens a flow; with replies it goes on until the box takes it for a stream.
func (s *suite) talk(replied bool) *flow {
	f := &flow{suite: s, p: s.listen(s.in[0]), q: s.listen(s.out[0])}
	if !replied {
		f.sends()
		return f
	}
	const stream, step = 3 * time.Second, 500 * time.Millisecond // Linux wants two seconds
	for d := time.Duration(0); d < stream; d += step {
		if d > 0 {
			s.wait(step)
		}
		f.sends()
		f.hears()
	}
	return f
}

// sends sends one packet out.
func (f *flow) sends() {
	if from, ok := f.udp(f.in[0], f.p, endpoint(f.out[0], f.q), f.out[0]); ok {
		f.mapped = from
	}
}

// hears has the other side send one, and reports whether it comes in.
func (f *flow) hears() bool { return f.reaches(f.out[0], f.q, f.mapped, f.in[0]) }

// survives reports whether a mapping still lets in after a time without packets.
func (s *suite) survives(replied bool, d time.Duration) bool {
	f := s.talk(replied)
	s.wait(d)
	return f.hears()
}

// refreshes reports whether packets of one direction alone keep a mapping alive
// (RFC 4787 REQ-6).
func (s *suite) refreshes(idle time.Duration, out bool) bool {
	if idle == Never {
		return true
	}
	f := s.talk(true)
	s.wait(idle * 6 / 10)
	if out {
		f.sends()
	} else {
		f.hears()
	}
	s.wait(idle * 6 / 10)
	return f.hears()
}

// Expires reports whether states of boxes are gone after a time without packets:
// of UDP without a reply and with one, and of an ICMP query. In real time it takes
// that long, and some seconds.
func Expires(ctx context.Context, bed Bed, chain []natlab.NAT, after time.Duration) (unreplied, replied, query bool, err error) {
	s, err := start(ctx, bed, chain, 1)
	if err != nil {
		return false, false, false, err
	}
	defer s.lab.Close()
	defer func() { err = caught(recover(), err) }()
	long, short := s.talk(true), s.talk(false)
	ping, _ := s.icmp(s.in[0], echo, s.next(), s.out[0].Addr(), s.out[0])
	if len(ping.Data) == 0 || !long.mapped.IsValid() || !short.mapped.IsValid() {
		return false, false, false, errors.New("nothing passes")
	}
	s.wait(after)
	_, answered := s.icmp(s.out[0], echoReply, identifier(ping), ping.From.Addr(), s.in[0])
	return !short.hears(), !long.hears(), !answered, nil
}
