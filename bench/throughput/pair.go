package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"time"

	"bodkin/bench/throughput/end"
	"bodkin/natlab/netbed"
)

// pair is the two ends of one contender: a sends to b.
type pair struct {
	kind   string
	a, b   *process
	rounds []round
}

// round is what one round showed.
type round struct {
	seconds        float64
	bytes, packets int64 // that arrived
	cpu            time.Duration
	trips          []time.Duration
	loss           float64 // of the datagrams
}

// process is one end.
type process struct {
	in  io.Writer
	out *bufio.Scanner
}

func openPair(ctx context.Context, lab *netbed.Lab, kind string, program []string, url string, port uint16) (*pair, error) {
	at := func(name string) (self, outside netip.AddrPort) {
		return netip.AddrPortFrom(lab.Host(name).Addr(), port), netip.AddrPortFrom(lab.Box("home-"+name).Addr(), port)
	}
	selfA, outsideA := at("a")
	selfB, outsideB := at("b")
	b, err := start(ctx, lab.Host("b"), program, end.Config{Kind: kind, Self: selfB, Peer: outsideA, Server: url})
	if err != nil {
		return nil, err
	}
	hello, err := b.answer()
	if err != nil {
		return nil, err
	}
	a, err := start(ctx, lab.Host("a"), program, end.Config{
		Kind: kind, Dial: true, Self: selfA, Peer: outsideB, Server: url, Hello: hello.Hello,
	})
	if err != nil {
		return nil, err
	}
	for _, p := range []*process{a, b} {
		for {
			s, err := p.answer()
			if err != nil {
				return nil, err
			}
			if s.Open {
				break
			}
		}
	}
	return &pair{kind: kind, a: a, b: b}, nil
}

func start(ctx context.Context, h *netbed.Host, program []string, cfg end.Config) (*process, error) {
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.Start(cmd); err != nil {
		return nil, err
	}
	p := &process{in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 1<<20) // a round's round trips are many
	return p, json.NewEncoder(in).Encode(cfg)
}

func (p *process) answer() (a end.Answer, err error) {
	if !p.out.Scan() {
		return a, errors.Join(p.out.Err(), io.ErrUnexpectedEOF)
	}
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (p *process) tell(what string) (end.Mark, error) {
	if _, err := fmt.Fprintln(p.in, what); err != nil {
		return end.Mark{}, err
	}
	a, err := p.answer()
	if err == nil && a.Mark == nil {
		err = errors.New("an end did not say how far it is")
	}
	if err != nil {
		return end.Mark{}, err
	}
	return *a.Mark, nil
}

const (
	// warmTime is for the congestion window to open, drainTime for what is under
	// way to arrive.
	warmTime  = 300 * time.Millisecond
	drainTime = 200 * time.Millisecond
)

// round sends for a while.
func (p *pair) round(ctx context.Context, d time.Duration) error {
	said := make(map[string]end.Mark)
	for _, step := range []struct {
		process *process
		what    string
		name    string
		then    time.Duration
	}{
		{p.b, "mark", "b before", 0},
		{p.a, "begin", "a before", warmTime},
		{p.a, "mark", "a first", 0},
		{p.b, "mark", "b first", d},
		{p.b, "mark", "b last", 0},
		{p.a, "mark", "a last", 0},
		{p.a, "end", "a after", drainTime},
		{p.b, "mark", "b after", 0},
	} {
		m, err := step.process.tell(step.what)
		if err != nil {
			return err
		}
		said[step.name] = m
		select {
		case <-time.After(step.then):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	first, last := said["b first"], said["b last"]
	r := round{
		seconds: float64(last.Time-first.Time) / 1e9,
		bytes:   last.Bytes - first.Bytes, packets: last.Count - first.Count,
		cpu:   last.CPU - first.CPU + said["a last"].CPU - said["a first"].CPU,
		trips: said["a last"].Trips,
	}
	if sent := said["a after"].Count - said["a before"].Count; sent > 0 {
		r.loss = 1 - float64(said["b after"].Count-said["b before"].Count)/float64(sent)
	}
	slices.Sort(r.trips)
	p.rounds = append(p.rounds, r)
	return nil
}
