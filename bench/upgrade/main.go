// Upgrade measures what a transfer gains from a hole that opens while it runs: two
// homes whose relay carries 20 Mbit/s and whose own links carry 200.
//
//	go run ./bench/upgrade [--block 3s] [--json]
//
// The hole is kept shut for a while, so that the transfer is well under way on the
// relay; then it is let open, and the rate at which bytes arrive is sampled. It
// ends with 1 if the transfer stays below 150 Mbit/s for three seconds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
	"bodkin/rendezvous"
)

const (
	relayRate = 20_000_000  // bit/s
	holeRate  = 200_000_000 // bit/s of IP packets on the homes' links
	wanted    = 150.0       // Mbit/s of the application's bytes
	within    = 3 * time.Second
	sample    = 250 * time.Millisecond
)

// result is what one run showed, in Mbit/s of the application's bytes.
type result struct {
	Relay   float64   `json:"relay_mbit"`            // before the hole
	Samples []float64 `json:"samples_mbit"`          // every 250 ms since the hole
	Reached float64   `json:"reached_ms,omitempty"`  // from the hole to 150 Mbit/s; 0: never
	Lost    uint64    `json:"lab_overrun,omitempty"` // packets that this machine was too slow for
}

func main() {
	block := flag.Duration("block", 3*time.Second, "how long the hole is kept shut")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if err := netbed.Enter(); err != nil {
		fail(err)
	}
	r, err := run(*block)
	if err != nil {
		fail(err)
	}
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(r)
	} else {
		fmt.Printf("over the relay: %.1f Mbit/s\nsince the hole, every %v: %.0f Mbit/s\n", r.Relay, sample, r.Samples)
		fmt.Printf("%.0f Mbit/s reached after %.0f ms; packets that the machine was too slow for: %d\n", wanted, r.Reached, r.Lost)
	}
	if r.Reached == 0 {
		os.Exit(1)
	}
}

func fail(err error) {
	_, _ = fmt.Fprintln(os.Stderr, "upgrade:", err)
	os.Exit(2)
}

func run(block time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), block+30*time.Second)
	defer cancel()
	lab, err := netbed.Start(ctx, natlab.TwoHomes(natlab.Options{Rate: holeRate}))
	if err != nil {
		return result{}, err
	}
	defer lab.Close()
	unblock := lab.BlockBetween(lab.Box("home-a").Addr(), lab.Box("home-b").Addr())
	a, b, stop, err := nodes(ctx, lab)
	if err != nil {
		return result{}, err
	}
	defer stop()
	var received atomic.Int64
	if err := begin(ctx, a, b, &received); err != nil {
		return result{}, err
	}
	events := a.Events(ctx)
	time.Sleep(block / 2)
	before, since := received.Load(), time.Now()
	time.Sleep(block / 2)
	var r result
	r.Relay = rate(received.Load()-before, time.Since(since))
	unblock()
	if err := untilDirect(events); err != nil {
		return result{}, err
	}
	hole := time.Now()
	for time.Since(hole) < within+time.Second {
		n, at := received.Load(), time.Now()
		time.Sleep(sample)
		mbit := rate(received.Load()-n, time.Since(at))
		r.Samples = append(r.Samples, mbit)
		if took := time.Since(hole); mbit >= wanted && took <= within && r.Reached == 0 {
			r.Reached = float64(took.Milliseconds())
		}
	}
	r.Lost = lab.Lost()
	return r, nil
}

func rate(bytes int64, d time.Duration) float64 { return float64(bytes) * 8 / d.Seconds() / 1e6 }

// nodes runs a server whose relay is slow, and a node in each home.
func nodes(ctx context.Context, lab *netbed.Lab) (a, b *bodkin.Node, stop func(), err error) {
	key, err := peer.GenerateKey()
	if err != nil {
		return nil, nil, nil, err
	}
	h := lab.Host("server")
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), rendezvous.DefaultPort)},
		Limits: rendezvous.Limits{RelayPerPair: relayRate},
	})
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(ctx) })
	var nodes [2]*bodkin.Node
	for i, name := range []string{"a", "b"} {
		key, kerr := peer.GenerateKey()
		if kerr != nil {
			err = errors.Join(err, kerr)
			continue
		}
		n, nerr := bodkin.Start(ctx, bodkin.Config{Key: key, Server: s.URL(h.Addr().String()).String(), Network: lab.Host(name)})
		nodes[i], err = n, errors.Join(err, nerr)
	}
	stop = func() {
		for _, n := range nodes {
			if n != nil {
				_ = n.Close()
			}
		}
		cancel()
		served.Wait()
	}
	if err != nil {
		stop()
	}
	return nodes[0], nodes[1], stop, err
}

// begin lets a send to b without end.
func begin(ctx context.Context, a, b *bodkin.Node, received *atomic.Int64) error {
	l, err := b.Listen("sink")
	if err != nil {
		return err
	}
	if err := b.WaitRegistered(ctx); err != nil {
		return err
	}
	out, err := a.Dial(ctx, b.ID(), "sink")
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1<<18)
		for {
			if _, err := out.Write(buf); err != nil {
				return
			}
		}
	}()
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 1<<18)
		for {
			n, err := in.Read(buf)
			received.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	return nil
}

func untilDirect(events func(func(bodkin.Event) bool)) error {
	for e := range events {
		if e.Kind == bodkin.EventSwitched && e.Route.Direct() {
			return nil
		}
	}
	return io.ErrUnexpectedEOF
}
