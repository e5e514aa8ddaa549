package main

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"bodkin/internal/sock"
	"bodkin/internal/wire"
	"bodkin/rendezvous"
)

// measureRelay lets one node send to another, as fast as the packets arrive.
func measureRelay(r *result, d time.Duration) error {
	s, err := startServer()
	if err != nil {
		return err
	}
	defer func() { _, _ = s.stop() }()
	p, err := newPair(s)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.meet(); err != nil {
		return err
	}
	begin := time.Now()
	sent, lost, err := p.send(d)
	if err != nil {
		return err
	}
	took, n := time.Since(begin).Seconds(), float64(p.arrived.Load())
	cpu, err := s.stop()
	const mbit = packetSize * 8 / 1e6
	r.Loopback.Packets, r.Loopback.Mbit = n/took, n/took*mbit
	r.Loopback.Lost = float64(lost) / float64(max(sent, 1))
	r.Loopback.PacketsPerCPU, r.Loopback.MbitPerCPU = n/cpu.Seconds(), n/cpu.Seconds()*mbit
	return err
}

// pair is two nodes with a socket each.
type pair struct {
	*fleet
	sockets  [2]*sock.Socket
	incoming chan message
	arrived  atomic.Int64 // relayed packets
}

type message struct {
	to   int
	data []byte
}

func newPair(s *server) (*pair, error) {
	f, err := newFleet(2, s.url.ID, s.endpoint())
	if err != nil {
		return nil, err
	}
	p := &pair{fleet: f, incoming: make(chan message, 64)}
	for i := range p.sockets {
		c, err := sock.Open(context.Background(), sock.System{}, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			p.close()
			return nil, err
		}
		p.sockets[i] = c
		go func() {
			_ = c.Read(func(_ netip.AddrPort, b []byte) {
				if wire.Classify(b, true) == wire.ClassChannel {
					p.arrived.Add(1)
					return
				}
				p.incoming <- message{i, append([]byte(nil), b...)}
			})
		}()
	}
	return p, nil
}

func (p *pair) close() {
	for _, c := range p.sockets {
		if c != nil {
			_ = c.Close()
		}
	}
}

// meet registers both and introduces the first to the second.
func (p *pair) meet() error {
	p.hello(time.Now())
	for i := range p.sockets {
		if err := p.talk(i, rendezvous.AgentRegistered); err != nil {
			return err
		}
	}
	p.step(0, time.Now(), rendezvous.AgentInput{Op: rendezvous.AgentAsk, Target: p.keys[1].ID(), Offer: offer})
	return p.talk(0, rendezvous.AgentIntroduced)
}

// talk carries messages until a node has had what it wants.
func (p *pair) talk(i int, want rendezvous.AgentOp) error {
	deadline := time.After(10 * time.Second)
	for p.did[i].Op != want {
		for j := range p.out {
			if p.out[j] != nil {
				_ = p.sockets[j].Send(p.server.Addr, 0, p.out[j])
				p.out[j] = nil
			}
		}
		select {
		case m := <-p.incoming:
			p.receive(m.to, time.Now(), m.data)
		case <-deadline:
			return errors.New("the server does not answer")
		}
	}
	return nil
}

const (
	// burst is what QUIC hands over at once, window what may be under way.
	burst  = 40
	window = 400
	// stuck is how long nothing may arrive before what is missing counts as lost.
	stuck = 50 * time.Millisecond
)

// send sends from the first to the second for a while, and says how many packets
// left and how many of them were lost.
func (p *pair) send(d time.Duration) (sent, lost int64, err error) {
	var data []byte
	for range burst {
		data = wire.AppendChannelData(data, wire.FirstAskedChannel, make([]byte, packetSize))
	}
	for begin := time.Now(); time.Since(begin) < d; sent += burst {
		for waited := time.Now(); sent-lost-p.arrived.Load() > window-burst; {
			if time.Since(waited) > stuck {
				lost = sent - p.arrived.Load()
			}
			time.Sleep(20 * time.Microsecond)
		}
		if err := p.sockets[0].SendSegments(p.server.Addr, data, packetSize+wire.ChannelOverhead); err != nil {
			return sent, lost, err
		}
	}
	return sent, lost, nil
}
