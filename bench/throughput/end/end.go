// Package end is one end of a measured connection: a process of its own, so that
// its CPU time can be told, which does what it is told on standard input and answers
// with JSON on standard output.
//
// It is a package because a contender with many dependencies lives in a module of
// its own: see bench/libp2p.
package end

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what an end is told first.
type Config struct {
	Kind string         `json:"kind"` // what is measured
	Dial bool           `json:"dial"` // this end dials, and sends
	Self netip.AddrPort `json:"self"` // where to bind
	Peer netip.AddrPort `json:"peer"` // the other end, outside of its NAT
	// Server is the URL of the rendezvous server, Hello what the other end said
	// of itself.
	Server string `json:"server"`
	Hello  string `json:"hello"`
}

// Link is an open connection.
type Link struct {
	Bulk net.Conn
	Echo net.Conn // beside it, for round trips; nil if there is none
	// Packet is the size of what Bulk carries if that is datagrams, else 0.
	Packet int
}

// Answer is what an end says, a line each.
type Answer struct {
	Hello string `json:"hello,omitempty"` // it can be dialled
	Open  bool   `json:"open,omitempty"`  // the link is
	Mark  *Mark  `json:"mark,omitempty"`
	Error string `json:"error,omitempty"`
}

// Mark is how far an end is.
type Mark struct {
	Time  int64           `json:"time_ns"`
	CPU   time.Duration   `json:"cpu_ns"` // of the process
	Bytes int64           `json:"bytes"`  // sent by the one end, received by the other
	Count int64           `json:"count"`  // of writes, or of datagrams
	Trips []time.Duration `json:"trips,omitempty"`
}

// Open opens a link. The end that is dialled calls hello when it can be.
type Open func(ctx context.Context, cfg Config, hello func(string)) (Link, error)

const (
	blockSize = 256 << 10
	pingEvery = 10 * time.Millisecond
)

// Run is the program of an end.
func Run(open Open) error {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	if !in.Scan() {
		return io.ErrUnexpectedEOF
	}
	var cfg Config
	if err := json.Unmarshal(in.Bytes(), &cfg); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	l, err := open(context.Background(), cfg, func(s string) { _ = out.Encode(Answer{Hello: s}) })
	if err != nil {
		_ = out.Encode(Answer{Error: err.Error()})
		return err
	}
	e := &runner{link: l, failed: make(chan error, 4)}
	if cfg.Dial {
		err = e.greet()
	} else {
		e.serve()
	}
	if err != nil {
		_ = out.Encode(Answer{Error: err.Error()})
		return err
	}
	if err := out.Encode(Answer{Open: true}); err != nil {
		return err
	}
	for in.Scan() {
		select {
		case err := <-e.failed:
			return errors.Join(err, out.Encode(Answer{Error: err.Error()}))
		default:
		}
		switch in.Text() {
		case "begin":
			e.begin()
		case "end":
			e.end()
		}
		if err := out.Encode(Answer{Mark: e.mark()}); err != nil {
			return err
		}
	}
	return in.Err()
}

type runner struct {
	link   Link
	bytes  atomic.Int64
	count  atomic.Int64
	failed chan error

	stop chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	trips []time.Duration
}

func (e *runner) mark() *Mark {
	m := &Mark{Time: time.Now().UnixNano(), CPU: CPUTime(), Bytes: e.bytes.Load(), Count: e.count.Load()}
	e.mu.Lock()
	defer e.mu.Unlock()
	m.Trips, e.trips = e.trips, nil
	return m
}

func (e *runner) fail(err error) {
	select {
	case e.failed <- err:
	default:
	}
}

// greet makes the other end's streams known to it: QUIC opens them with the first
// byte.
func (e *runner) greet() error {
	if e.link.Packet == 0 {
		if _, err := e.link.Bulk.Write([]byte{0}); err != nil {
			return err
		}
	}
	if e.link.Echo != nil {
		_, err := e.trip()
		return err
	}
	return nil
}

// serve reads and answers, from now on.
func (e *runner) serve() {
	go func() {
		b := make([]byte, blockSize)
		for {
			n, err := e.link.Bulk.Read(b)
			e.bytes.Add(int64(n))
			e.count.Add(1)
			if err != nil {
				e.fail(err)
				return
			}
		}
	}()
	if e.link.Echo != nil {
		go func() {
			var b [8]byte
			for {
				if _, err := io.ReadFull(e.link.Echo, b[:]); err != nil {
					e.fail(err)
					return
				}
				if _, err := e.link.Echo.Write(b[:]); err != nil {
					e.fail(err)
					return
				}
			}
		}()
	}
}

func (e *runner) trip() (time.Duration, error) {
	var b [8]byte
	begin := time.Now()
	binary.BigEndian.PutUint64(b[:], uint64(begin.UnixNano()))
	if _, err := e.link.Echo.Write(b[:]); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(e.link.Echo, b[:])
	return time.Since(begin), err
}

// begin sends as fast as the link takes it, with a ping now and then.
func (e *runner) begin() {
	stop := make(chan struct{})
	e.stop = stop
	e.wg.Go(func() {
		size := blockSize
		if e.link.Packet > 0 {
			size = e.link.Packet
		}
		b := make([]byte, size)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, err := e.link.Bulk.Write(b)
			e.bytes.Add(int64(n))
			e.count.Add(1)
			if err != nil {
				e.fail(err)
				return
			}
		}
	})
	if e.link.Echo == nil {
		return
	}
	e.wg.Go(func() {
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			d, err := e.trip()
			if err != nil {
				e.fail(err)
				return
			}
			e.mu.Lock()
			e.trips = append(e.trips, d)
			e.mu.Unlock()
		}
	})
}

func (e *runner) end() {
	if e.stop != nil {
		close(e.stop)
		e.stop = nil
	}
	e.wg.Wait()
}
