package bodkin_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/rendezvous"
)

var tcpOnly = bodkin.Config{Transports: []string{"tcp"}}

// A hole by TCP alone, between real kernels behind real NATs: the SYNs cross.
func TestHoleByTCPBetweenTwoHomes(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{}, rendezvous.Limits{})
	a, b := h.node(t, "a", tcpOnly), h.node(t, "b", tcpOnly)
	echo(t, b, "echo")
	ctx := testContext(t)
	if err := a.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	events := a.Events(ctx)
	begin := time.Now()
	if _, err := a.Dial(ctx, b.ID(), "echo"); err != nil {
		t.Fatal(err)
	}
	if d := untilDirect(t, ctx, events).Sub(begin); d < 160*time.Millisecond {
		t.Errorf("direct after %v, which is sooner than light", d)
	} else {
		t.Logf("direct after %v; light takes 160ms", d)
	}
	pong, err := a.Ping(ctx, b.ID())
	if err != nil || pong.Route.Transport != "tcp" {
		t.Errorf("pinged by %v: %v", pong.Route, err)
	}
	transfer(t, a, b, 4<<20, func() {})
}

// Where both homes block UDP the nodes know each other by the server's TCP, and punch by
// it.
func TestHoleByTCPWhereUDPIsBlocked(t *testing.T) {
	t.Parallel()
	h := startStreams(t, natlab.Options{PresetA: natlab.UDPBlocked, PresetB: natlab.UDPBlocked}, true, false)
	a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
	echo(t, b, "echo")
	direct(t, a, b)
	if r, err := a.Ping(testContext(t), b.ID()); err != nil || r.Route.Transport != "tcp" {
		t.Errorf("%v, %v", r.Route, err)
	}
}

// blockBetween keeps packets of an IP protocol from passing between the homes.
func (h homes) blockBetween(protocol uint8) (unblock func()) {
	a, b := h.Box("home-a").Addr(), h.Box("home-b").Addr()
	return h.Block(func(p natlab.Packet) bool {
		x, y := p.From.Addr(), p.To.Addr()
		return p.Protocol == protocol && (x == a && y == b || x == b && y == a)
	})
}

// A session begins on the relay and moves to TCP, to UDP when that is let through, and
// back, while a stream flows: no byte of it is lost.
func TestSessionMovesBetweenTransports(t *testing.T) {
	t.Parallel()
	h := startHomes(t, slowHomes, rendezvous.Limits{})
	unblockTCP, unblockUDP := h.blockBetween(natlab.ProtocolTCP), h.blockBetween(natlab.ProtocolUDP)
	// Between the homes only: the server is reached by UDP.
	cfg := bodkin.Config{Transports: []string{"udp", "tcp"}}
	a, b := h.node(t, "a", cfg), h.node(t, "b", cfg)
	f := startTorrent(t, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	events, stop := iter.Pull(a.Events(ctx))
	defer stop()
	until := func(transport string) {
		t.Helper()
		for {
			e, ok := events()
			if !ok {
				t.Fatalf("no move to %s", transport)
			}
			if e.Kind == bodkin.EventSwitched && e.Route.Transport == transport {
				f.passes(t) // by whatever route QUIC takes now
				return
			}
		}
	}
	f.passes(t)
	unblockTCP()
	until("tcp")
	unblockUDP()
	until("udp")
	unblockUDP = h.blockBetween(natlab.ProtocolUDP)
	until("tcp")
	unblockUDP()
	until("udp")
	f.end(t)
}

// torrent is a stream of random bytes from one node to another, until end.
type torrent struct {
	stop     atomic.Bool
	arrived  atomic.Int64
	sent     chan []byte // their hash
	received chan []byte
}

func startTorrent(t *testing.T, from, to *bodkin.Node) *torrent {
	t.Helper()
	f := &torrent{sent: make(chan []byte, 1), received: make(chan []byte, 1)}
	l, err := to.Listen("flow")
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	if err := to.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	out, err := from.Dial(ctx, to.ID(), "flow")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		hash, chunk := sha256.New(), make([]byte, 16<<10)
		for !f.stop.Load() {
			_, _ = rand.Read(chunk)
			if _, err := out.Write(chunk); err != nil {
				break
			}
			_, _ = hash.Write(chunk)
		}
		_ = out.CloseWrite()
		f.sent <- hash.Sum(nil)
	}()
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		hash := sha256.New()
		_, _ = io.Copy(io.MultiWriter(hash, counter{&f.arrived}), in)
		f.received <- hash.Sum(nil)
	}()
	return f
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// passes waits until some more has arrived.
func (f *torrent) passes(t *testing.T) {
	t.Helper()
	for before := f.arrived.Load(); f.arrived.Load() < before+100_000; {
		select {
		case <-t.Context().Done():
			t.Fatal("nothing arrives")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// end ends the stream, and compares what was sent with what came.
func (f *torrent) end(t *testing.T) {
	t.Helper()
	f.stop.Store(true)
	if sent, received := <-f.sent, <-f.received; !bytes.Equal(sent, received) {
		t.Error("what came is not what was sent")
	}
	t.Logf("%d bytes arrived", f.arrived.Load())
}
