package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"bodkin/internal/sock"
)

// Network makes sockets and knows the machine's addresses: the system's by default,
// a lab host's in tests.
type Network interface {
	// ListenPacket opens an unconnected UDP socket; network is udp4 or udp6.
	ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error)
	// Prefixes are the addresses of the interfaces that are up, with the length
	// of their link's prefix; loopback ones are left out.
	Prefixes() ([]netip.Prefix, error)
}

// LiveConfig says what Measure measures, and with what.
type LiveConfig struct {
	Config
	// Network makes the sockets; the system's if nil.
	Network Network
	// Progress, if not nil, is told each time that something became known. It
	// delays the measurement until it returns.
	Progress func(Report)
}

// Measure finds out which kind of NAT this machine is behind, from fresh sockets.
// It takes a second or two; seven where nothing answers, which the report says; ten
// minutes at the most with Lifetime. An error is that of ctx, with the report of
// what was found out so far, or says that no socket can be opened.
func Measure(ctx context.Context, c LiveConfig) (Report, error) {
	if c.Network == nil {
		c.Network = sock.System{}
	}
	prefixes, err := c.Network.Prefixes()
	if err != nil {
		return Report{}, err
	}
	for _, p := range prefixes {
		c.Own = append(c.Own, p.Addr())
	}
	l := &live{
		config: c, m: NewMeasurement(c.Config),
		sockets: make(map[Socket]*sock.Socket), arrived: make(chan Input, 64), done: make(chan struct{}),
	}
	defer l.close()
	return l.run(ctx)
}

// live drives a Measurement: one loop has the state, and readers hand it packets.
type live struct {
	config  LiveConfig
	m       *Measurement
	sockets map[Socket]*sock.Socket
	arrived chan Input
	done    chan struct{}
	readers sync.WaitGroup
	pending []Input // what became of our own actions
	opened  int
	failure error
}

func (l *live) run(ctx context.Context) (Report, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	in := Input{Op: Start}
	for {
		l.pending = append(l.pending, in)
		for len(l.pending) > 0 {
			in, l.pending = l.pending[0], l.pending[1:]
			actions, next := l.m.Step(time.Now(), in, nil)
			for _, a := range actions {
				l.do(ctx, a)
			}
			if !next.IsZero() {
				timer.Reset(time.Until(next))
			}
		}
		if r := l.m.Report(); r.Complete {
			if l.opened == 0 && l.failure != nil {
				return r, l.failure
			}
			return r, nil
		}
		select {
		case in = <-l.arrived:
		case <-timer.C:
			in = Input{Op: Tick}
		case <-ctx.Done():
			return l.m.Report(), ctx.Err()
		}
	}
}

// do does one of the measurement's actions. What the system does not send counts
// as lost.
func (l *live) do(ctx context.Context, a Action) {
	switch a.Op {
	case Open:
		l.open(ctx, a)
	case Close:
		if s := l.sockets[a.Socket]; s != nil {
			_ = s.Close()
			delete(l.sockets, a.Socket)
		}
	case Send:
		if s := l.sockets[a.Socket]; s != nil {
			_ = s.Send(a.To, a.TTL, a.Data)
		}
	case Measured:
		if l.config.Progress != nil {
			l.config.Progress(*a.Report)
		}
	default:
	}
}

func (l *live) open(ctx context.Context, a Action) {
	network, any := "udp4", netip.IPv4Unspecified()
	if !a.Is4 {
		network, any = "udp6", netip.IPv6Unspecified()
	}
	s, err := sock.OpenSmall(ctx, l.config.Network, network, netip.AddrPortFrom(any, 0))
	if err != nil {
		l.failure = errors.Join(l.failure, err)
		l.pending = append(l.pending, Input{Op: OpenFailed, Socket: a.Socket})
		return
	}
	l.opened++
	l.sockets[a.Socket] = s
	l.pending = append(l.pending, Input{Op: Opened, Socket: a.Socket, Bound: s.Local()})
	l.readers.Go(func() {
		_ = s.Read(func(from netip.AddrPort, b []byte) {
			select {
			case l.arrived <- Input{Op: Packet, Socket: a.Socket, From: from, Data: append([]byte(nil), b...)}:
			case <-l.done:
			}
		})
	})
}

// close ends all sockets and their readers.
func (l *live) close() {
	close(l.done)
	for _, s := range l.sockets {
		_ = s.Close()
	}
	l.readers.Wait()
}
