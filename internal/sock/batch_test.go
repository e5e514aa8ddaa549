package sock

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// Packets of a batch go each to its own, in order, also when some before them
// cannot; the batch can be filled again.
func TestBatchGoesToMany(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]Network{"system": System{}, "simulated": simulated{}} {
		for _, network := range []string{"udp4", "udp6"} {
			t.Run(name+" "+network, func(t *testing.T) {
				t.Parallel()
				a := open(t, n, network)
				var to []*Socket
				var at []<-chan packet
				for range 3 {
					s := open(t, n, network)
					to, at = append(to, s), append(at, reading(t, s))
				}
				wrong := netip.MustParseAddrPort("[::1]:9")
				if network == "udp6" {
					wrong = netip.MustParseAddrPort("127.0.0.1:9")
				}
				var b Batch
				for _, size := range []int{1, 3, 100, 2} { // the room grows
					for i := range size {
						if i == size/2 {
							b.Add(to[0].Local(), make([]byte, 1<<16)) // no packet is so long
						}
						if i == 0 {
							b.Add(wrong, nil)
						}
						b.Add(to[i%3].Local(), []byte{byte(i), byte(size)})
					}
					before := a.Dropped.Load()
					if err := a.SendBatch(&b); err == nil {
						t.Error("all were sent")
					}
					if d := a.Dropped.Load() - before; d != 2 {
						t.Errorf("%d packets were dropped, want 2", d)
					}
					for i := range size {
						if p := <-at[i%3]; p.from != a.Local() || !bytes.Equal(p.data, []byte{byte(i), byte(size)}) {
							t.Errorf("%d of %d: %v from %v", i, size, p.data, p.from)
						}
					}
				}
				if err := a.SendBatch(&b); err != nil {
					t.Errorf("nothing: %v", err)
				}
				if together := canBatch && name == "system"; (b.conn != nil) != together {
					t.Errorf("packets left together: %v, want %v", b.conn != nil, together)
				}
				_ = a.Close()
				for i := range 3 {
					b.Add(to[i].Local(), nil)
				}
				if err := a.SendBatch(&b); !errors.Is(err, net.ErrClosed) {
					t.Errorf("closed: %v", err)
				}
			})
		}
	}
}

// What was batched before points to no other's packet when the room grows.
func TestBatchKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	var b Batch
	var want []netip.AddrPort
	for i := range 200 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(i))
		if i%3 == 0 {
			a = netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), uint16(i))
		}
		want = append(want, a)
		b.Add(a, []byte{byte(i)})
	}
	var got []netip.AddrPort
	for i, m := range b.messages {
		got = append(got, unmap(m.Addr.(*net.UDPAddr).AddrPort()))
		if m.Buffers[0][0] != byte(i) {
			t.Errorf("%d holds %x", i, m.Buffers[0])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
