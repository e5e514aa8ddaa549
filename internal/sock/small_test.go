package sock

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

func openSmall(t *testing.T, n Network) *Socket {
	t.Helper()
	s, err := OpenSmall(t.Context(), n, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// exchange sends packets to a socket one by one, and sees each arrive.
func exchange(t *testing.T, from, to *Socket, arrives <-chan packet, n int) {
	t.Helper()
	for i := range n {
		sent := fmt.Appendf(nil, "packet %d", i)
		if err := from.Send(to.Local(), 0, sent); err != nil {
			t.Fatal(err)
		}
		if got := <-arrives; !bytes.Equal(got.data, sent) || got.from != from.Local() {
			t.Fatalf("%q of %v, want %q", got.data, got.from, sent)
		}
	}
}

func TestSmallSocketGrows(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]Network{"system": System{}, "simulated": simulated{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := open(t, n, "udp4"), openSmall(t, n)
			if b.gro {
				t.Error("a small socket joins packets")
			}
			atB := reading(t, b)
			exchange(t, a, b, atB, 3)
			for range 3 {
				b.Grow() // while the reader waits
				exchange(t, a, b, atB, 3)
			}
			// What the kernel joins is taken apart.
			sent, want := segments(20*1228+7, 1228)
			for range 3 {
				if err := a.SendSegments(b.Local(), sent, 1228); err != nil {
					t.Fatal(err)
				}
				for i, w := range want {
					if got := <-atB; !bytes.Equal(got.data, w) {
						t.Fatalf("packet %d has %d bytes, want %d", i, len(got.data), len(w))
					}
				}
			}
			if d := a.Dropped.Load() + b.Dropped.Load(); d != 0 {
				t.Errorf("%d packets dropped", d)
			}
		})
	}
}

// Before anybody reads, in the middle of packets, and from several goroutines at once.
func TestGrowAtAnyMoment(t *testing.T) {
	t.Parallel()
	a, b := open(t, System{}, "udp4"), openSmall(t, System{})
	b.Grow()
	atB := reading(t, b)
	exchange(t, a, b, atB, 2)

	c := openSmall(t, System{})
	atC := reading(t, c)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				c.Grow()
			}
		})
	}
	exchange(t, a, c, atC, 200)
	wg.Wait()
	exchange(t, a, c, atC, 2)
}

// The reader ends as it always does, whichever of the two comes first.
func TestCloseOfASocketThatGrows(t *testing.T) {
	t.Parallel()
	for range 100 {
		s := openSmall(t, System{})
		done := make(chan error, 1)
		go func() { done <- s.Read(func(netip.AddrPort, []byte) {}) }()
		var wg sync.WaitGroup
		wg.Go(s.Grow)
		wg.Go(func() { _ = s.Close() })
		wg.Wait()
		s.Grow()
		if err := <-done; err != nil {
			t.Fatalf("the reader ended with %v", err)
		}
	}
}
