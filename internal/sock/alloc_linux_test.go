package sock

import (
	"net/netip"
	"testing"
)

// loop is a socket that sends to another, and a function that sends a burst and
// waits for its arrival.
func loop(tb testing.TB, send func(a *Socket, to netip.AddrPort, b []byte)) (roundTrip func()) {
	tb.Helper()
	a, b := openTB(tb), openTB(tb)
	arrived := make(chan int, 64)
	done := make(chan error, 1)
	go func() {
		done <- b.ReadRuns(func(_ netip.AddrPort, p []byte, _ int) bool {
			arrived <- len(p)
			return false
		})
	}()
	tb.Cleanup(func() {
		_ = b.Close()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	data := make([]byte, 16*1228)
	return func() {
		send(a, b.Local(), data)
		for n := 0; n < len(data); {
			n += <-arrived
		}
	}
}

func openTB(tb testing.TB) *Socket {
	tb.Helper()
	s, err := Open(tb.Context(), System{}, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

var ways = map[string]func(a *Socket, to netip.AddrPort, b []byte){
	"queued":   func(a *Socket, to netip.AddrPort, b []byte) { a.Queue(to, b, 1228) },
	"segments": func(a *Socket, to netip.AddrPort, b []byte) { _ = a.SendSegments(to, b, 1228) },
	"single": func(a *Socket, to netip.AddrPort, b []byte) {
		for len(b) > 0 {
			_ = a.Send(to, 0, b[:1228])
			b = b[1228:]
		}
	},
}

// What 16 packets cost from socket to socket, the system's part included.
func BenchmarkSocket(b *testing.B) {
	for name, send := range ways {
		b.Run(name, func(b *testing.B) {
			roundTrip := loop(b, send)
			b.ReportAllocs()
			b.SetBytes(16 * 1228)
			for b.Loop() {
				roundTrip()
			}
		})
	}
}

func TestSocketDoesNotAllocate(t *testing.T) {
	for name, send := range ways {
		roundTrip := loop(t, send)
		if n := testing.AllocsPerRun(500, roundTrip); n >= 1 {
			t.Errorf("%s: %v allocations for 16 packets", name, n)
		}
	}
}
