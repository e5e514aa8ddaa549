package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"bodkin/internal/wire"

	"golang.org/x/net/ipv4"
)

const (
	// sources have one request under way each. They are addresses in 127.0.0.0/8,
	// all of one socket, so that the load costs less than the answers.
	sources = 128
	batch   = 64 // packets in one call of the system's
)

// loaded is what the load's process reports.
type loaded struct {
	Sent    int     `json:"sent"`
	Answers int     `json:"answers"`
	Seconds float64 `json:"seconds"`
}

// runLoad puts load on a server, from another process.
func runLoad(to netip.AddrPort, d time.Duration) (l loaded, err error) {
	self, err := os.Executable()
	if err != nil {
		return l, err
	}
	cmd := pinned(loadCore, self, "--load", to.String(), "--seconds", fmt.Sprint(d.Seconds()))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return l, fmt.Errorf("load: %w", err)
	}
	return l, json.Unmarshal(out, &l)
}

// generator is the socket of all sources.
type generator struct {
	*ipv4.PacketConn
	requests [sources]ipv4.Message
	answers  [batch]ipv4.Message
	out      []ipv4.Message
	loaded
}

func newGenerator(to string) (*generator, error) {
	server, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return nil, err
	}
	c, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	g := &generator{PacketConn: ipv4.NewPacketConn(c)}
	for i := range g.requests {
		source := ipv4.ControlMessage{Src: net.IPv4(127, 1, byte(i>>8), byte(i))}
		request := wire.BindingRequest{ID: wire.TransactionID{byte(i >> 8), byte(i)}}.Append(nil)
		g.requests[i] = ipv4.Message{Buffers: [][]byte{request}, OOB: source.Marshal(), Addr: server}
	}
	for i := range g.answers {
		g.answers[i].Buffers = [][]byte{make([]byte, 256)}
	}
	return g, nil
}

// ask sends what is in out.
func (g *generator) ask() error {
	g.Sent += len(g.out)
	for len(g.out) > 0 {
		n, err := g.WriteBatch(g.out[:min(batch, len(g.out))], 0)
		if err != nil {
			return err
		}
		g.out = g.out[n:]
	}
	return nil
}

// load keeps requests under way for a while and reports the answers.
func load(to string, d time.Duration) error {
	g, err := newGenerator(to)
	if err != nil {
		return err
	}
	queue := make([]ipv4.Message, 0, sources)
	g.out = append(queue, g.requests[:]...)
	begin := time.Now()
	for time.Since(begin) < d {
		if err := g.ask(); err != nil {
			return err
		}
		_ = g.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := g.ReadBatch(g.answers[:], 0)
		g.out = queue
		if errors.Is(err, os.ErrDeadlineExceeded) { // those that are left are lost
			g.out = append(g.out, g.requests[:]...)
			continue
		}
		if err != nil {
			return err
		}
		g.Answers += n
		for _, a := range g.answers[:n] {
			b := a.Buffers[0]
			g.out = append(g.out, g.requests[(int(b[8])<<8|int(b[9]))%sources])
		}
	}
	g.Seconds = time.Since(begin).Seconds()
	return json.NewEncoder(os.Stdout).Encode(g.loaded)
}
