package bodkin_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// flow is what one side hears of the other: when last, and the longest silence.
type flow struct {
	mu    sync.Mutex
	last  time.Time
	worst time.Duration
	total int
	err   error
}

func (f *flow) heard(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.worst = max(f.worst, time.Since(f.last)); f.last.IsZero() {
		f.worst = 0
	}
	f.last, f.total = time.Now(), f.total+n
}

func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = errors.Join(f.err, err)
}

// begin forgets silences of before.
func (f *flow) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.worst = 0
}

func (f *flow) silence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.worst, time.Since(f.last))
}

// load is a stream and a flow of datagrams between two nodes, both ways.
type load struct {
	*testing.T
	stop      chan struct{}
	wg        sync.WaitGroup
	streams   [2]flow // what a and b hear
	datagrams [2]flow
	sent      [2]int // bytes on the stream, by a and by b
}

const (
	chunk     = 1200
	chunkPace = 20 * time.Millisecond
)

// pattern is what stands at an offset of a stream: any byte lost, repeated or out
// of place shows.
func pattern(b []byte, at int) {
	for i := range b {
		n := at + i
		b[i] = byte(n>>13) ^ byte(n*7)
	}
}

func (x *lane) load(ctx context.Context) *load {
	x.Helper()
	l := &load{T: x.T, stop: make(chan struct{})}
	listener, err := x.b.Listen("stream")
	if err != nil {
		x.Fatal(err)
	}
	packets, err := x.b.ListenPacket("datagrams")
	if err != nil {
		x.Fatal(err)
	}
	if err := x.b.WaitRegistered(ctx); err != nil {
		x.Fatal(err)
	}
	out, err := x.a.Dial(ctx, x.b.ID(), "stream")
	if err != nil {
		x.Fatal(err)
	}
	l.wg.Go(func() { l.write(out, 0) })
	l.wg.Go(func() { l.read(out, 0) })
	in, err := listener.Accept()
	if err != nil {
		x.Fatal(err)
	}
	l.wg.Go(func() { l.write(in, 1) })
	l.wg.Go(func() { l.read(in, 1) })
	d, err := x.a.DialPacket(ctx, x.b.ID(), "datagrams")
	if err != nil {
		x.Fatal(err)
	}
	l.wg.Go(func() { l.count(d) })
	go l.collect(&l.datagrams[0], func(b []byte) (int, error) { return d.Read(b) })
	go l.collect(&l.datagrams[1], func(b []byte) (int, error) {
		n, from, err := packets.ReadFrom(b)
		if err == nil {
			_, err = packets.WriteTo(b[:n], from)
		}
		return n, err
	})
	return l
}

// write writes the pattern at a pace, and ends the stream when told to.
func (l *load) write(c net.Conn, side int) {
	b := make([]byte, chunk)
	pace := time.NewTicker(chunkPace)
	defer pace.Stop()
	for {
		select {
		case <-l.stop:
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			return
		case <-pace.C:
		}
		pattern(b, l.sent[side])
		if _, err := c.Write(b); err != nil {
			l.streams[side].fail(fmt.Errorf("write: %w", err))
			return
		}
		l.sent[side] += len(b)
	}
}

func (l *load) read(c net.Conn, side int) {
	f := &l.streams[side]
	got, want := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, err := c.Read(got)
		if n > 0 {
			pattern(want[:n], f.total)
			if !bytes.Equal(got[:n], want[:n]) {
				f.fail(fmt.Errorf("what came after %d bytes was not what was sent", f.total))
				return
			}
			f.heard(n)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				f.fail(fmt.Errorf("read: %w", err))
			}
			return
		}
	}
}

// count sends numbered datagrams.
func (l *load) count(c net.Conn) {
	pace := time.NewTicker(chunkPace)
	defer pace.Stop()
	for i := uint64(0); ; i++ {
		select {
		case <-l.stop:
			return
		case <-pace.C:
		}
		if _, err := c.Write(binary.BigEndian.AppendUint64(make([]byte, 92), i)); err != nil {
			l.datagrams[0].fail(fmt.Errorf("datagram: %w", err))
			return
		}
	}
}

// collect takes numbered datagrams: none may come twice.
func (l *load) collect(f *flow, read func([]byte) (int, error)) {
	seen := map[uint64]bool{}
	b := make([]byte, 2048)
	for {
		n, err := read(b)
		if err != nil {
			return
		}
		i := binary.BigEndian.Uint64(b[n-8:])
		if n != 100 || seen[i] {
			f.fail(fmt.Errorf("datagram %d of %d bytes came twice or changed", i, n))
		}
		seen[i] = true
		f.heard(1)
	}
}

func (l *load) each(f func(*flow)) {
	for i := range 2 {
		f(&l.streams[i])
		f(&l.datagrams[i])
	}
}

// finish ends the flows, and checks that everything arrived once.
func (l *load) finish() {
	l.Helper()
	close(l.stop)
	l.wg.Wait()
	for i := range 2 {
		if got, want := l.streams[i].total, l.sent[1-i]; got != want {
			l.Errorf("%d bytes of %d arrived", got, want)
		}
	}
	l.each(func(f *flow) {
		if f.err != nil {
			l.Error(f.err)
		}
	})
}

// worst is the longest silence of a stream and of the datagrams' echo.
func (l *load) worst() (stream, datagrams time.Duration) {
	return max(l.streams[0].silence(), l.streams[1].silence()), l.datagrams[0].silence()
}
