package sock

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// counted is packets of up to 2000 bytes behind their length.
var counted = Framing{
	Room: 2002,
	Read: func(r *bufio.Reader) ([]byte, error) {
		head, err := r.Peek(2)
		if err != nil {
			return nil, err
		}
		n := 2 + int(binary.BigEndian.Uint16(head))
		b, err := r.Peek(n)
		_, _ = r.Discard(len(b))
		return b[min(2, len(b)):], err
	},
	Append: func(b, packet []byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(packet))), packet...)
	},
	Size: func(n int) int { return n + 2 },
}

func forEver() time.Time { return time.Time{} }

// collect reads packets until the stream ends.
func collect(s *Stream) (out []string, err error) {
	err = s.Read(func(b []byte) bool {
		out = append(out, string(b))
		return true
	}, forEver)
	return out, err
}

// stalled is a connection of which nobody reads the other end.
func stalled(t *testing.T, budget *Budget) *Stream {
	t.Helper()
	near, far := net.Pipe()
	s := NewStream(near, netip.AddrPort{}, counted, budget)
	t.Cleanup(func() {
		_ = s.Abort()
		_ = far.Close()
	})
	return s
}

func TestBurstsAreCutIntoFrames(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	out, in := NewStream(near, netip.AddrPort{}, counted, nil), NewStream(far, netip.AddrPort{}, counted, nil)
	if err := out.Send(netip.AddrPort{}, 0, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	out.Queue(netip.AddrPort{}, []byte("aabbc"), 2)
	out.Queue(netip.AddrPort{}, []byte("whole"), 0)
	if err := out.Send(netip.AddrPort{}, 5, []byte("opener")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a TTL for one packet: %v", err)
	}
	go func() { _ = out.Close() }() // what waits leaves first
	got, err := collect(in)
	if want := []string{"hello", "aa", "bb", "c", "whole"}; !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if err := out.Send(netip.AddrPort{}, 0, []byte("late")); err == nil || out.Dropped.Load() != 1 {
		t.Errorf("after Close: %v, %d dropped", err, out.Dropped.Load())
	}
}

// A connection that takes nothing costs what is allowed, blocks nobody, and keeps
// some room for what is urgent.
func TestStalledStreamDropsTheTail(t *testing.T) {
	t.Parallel()
	s := stalled(t, nil)
	packet := make([]byte, 998)
	for range 1000 {
		s.Queue(netip.AddrPort{}, packet, len(packet))
	}
	kept := 1000 - s.Dropped.Load()
	if kept < maxUnsent/1000 || kept > 2*maxUnsent/1000+1 {
		t.Errorf("%d packets of 1000 bytes wait", kept)
	}
	if err := s.Send(netip.AddrPort{}, 0, packet); err != nil {
		t.Errorf("no room for what is urgent: %v", err)
	}
	var err error
	for range 100 {
		err = s.Send(netip.AddrPort{}, 0, packet)
	}
	if !errors.Is(err, errFull) {
		t.Errorf("urgent packets without end: %v", err)
	}
}

func TestStreamsShareABudget(t *testing.T) {
	t.Parallel()
	budget := &Budget{Limit: 10_000}
	a, b := stalled(t, budget), stalled(t, budget)
	packet := make([]byte, 998)
	for range 20 {
		a.Queue(netip.AddrPort{}, packet, len(packet))
		b.Queue(netip.AddrPort{}, packet, len(packet))
	}
	if dropped := a.Dropped.Load() + b.Dropped.Load(); dropped != 30 {
		t.Errorf("%d packets dropped, want 30", dropped)
	}
	_, _ = a.Abort(), b.Abort()
	for _, s := range []*Stream{a, b} {
		s.out.mu.Lock()
		done := s.out.done
		s.out.mu.Unlock()
		if done != nil {
			<-done
		}
	}
	if n := budget.waiting.Load(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

// A connection that takes nothing for long is given up.
func TestStalledStreamEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stalled(t, nil)
		began := time.Now()
		if err := s.Send(netip.AddrPort{}, 0, []byte("anybody?")); err != nil {
			t.Fatal(err)
		}
		if _, err := collect(s); err == nil {
			t.Error("no error")
		}
		if d := time.Since(began); d != stallTime {
			t.Errorf("after %v, want %v", d, stallTime)
		}
	})
}

// stalledTLS is one that speaks TLS, whose other end reads nothing after the handshake.
func stalledTLS(t *testing.T) *Stream {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	server := tls.Server(near, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, SessionTicketsDisabled: true,
	})
	go func() { _ = tls.Client(far, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()) }()
	if err := server.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return NewStream(server, netip.AddrPort{}, counted, nil)
}

// Whoever ends a connection over TLS does not wait for one who takes nothing, and nor
// does who sends.
func TestStalledTLSHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stalledTLS(t)
		began := time.Now()
		_ = s.Abort()
		if d := time.Since(began); d != 0 {
			t.Errorf("Abort took %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := stalledTLS(t)
		began := time.Now()
		if err := s.Send(netip.AddrPort{}, 0, []byte("anybody?")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(stallTime)
		synctest.Wait()
		if err := s.Send(netip.AddrPort{}, 0, []byte("nobody")); err == nil {
			t.Error("sent")
		}
		if d := time.Since(began); d != stallTime {
			t.Errorf("after %v, want %v", d, stallTime)
		}
	})
}

// Close has no more patience where the other end took a part of what waited.
func TestCloseOfSlowStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		s := NewStream(near, netip.AddrPort{}, counted, nil)
		for _, text := range []string{"first", "second"} {
			if err := s.Send(netip.AddrPort{}, 0, []byte(text)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the writer has the first, alone
		}
		began := time.Now()
		closed := make(chan struct{})
		go func() {
			_ = s.Close()
			close(closed)
		}()
		synctest.Wait()
		if _, err := io.ReadFull(far, make([]byte, len("..first"))); err != nil {
			t.Fatal(err)
		}
		<-closed
		if d := time.Since(began); d != closeTime {
			t.Errorf("after %v, want %v", d, closeTime)
		}
	})
}

// While much comes, the reader is asked for its patience once for many packets.
func TestBusyStreamReadsAhead(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	in := NewStream(far, netip.AddrPort{}, counted, nil)
	const packets = 500
	go func() {
		var b []byte
		for range packets {
			b = counted.Append(b, make([]byte, 100))
		}
		_, _ = near.Write(b)
		_ = near.Close()
	}()
	got, idle := 0, 0
	err := in.Read(func([]byte) bool { got++; return true }, func() time.Time { idle++; return time.Time{} })
	if !errors.Is(err, io.EOF) || got != packets {
		t.Errorf("%d packets, %v", got, err)
	}
	if idle > packets/2 {
		t.Errorf("asked %d times for %d packets", idle, got)
	}
}

func TestReaderHasHadEnough(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	in := NewStream(far, netip.AddrPort{}, counted, nil)
	go func() { _, _ = near.Write(counted.Append(counted.Append(nil, []byte("a")), []byte("b"))) }()
	got := ""
	if err := in.Read(func(b []byte) bool { got += string(b); return false }, forEver); err != nil || got != "a" {
		t.Errorf("%q, %v", got, err)
	}
	_ = near.Close()
}
