package nat

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/wire"
)

// FuzzMeasurement gives a measurement answers of every kind, from the right places
// and wrong ones, with IDs that it knows and others. It must neither fail nor ask
// without end.
func FuzzMeasurement(f *testing.F) {
	answer := wire.BindingAnswer{Mapped: netip.MustParseAddrPort("203.0.113.1:4000"), Other: netip.MustParseAddrPort("192.0.2.2:3479"), OtherPorts: []uint16{3479}}
	f.Add([]byte{}, []byte{})
	f.Add(answer.Append(nil)[20:], []byte{0, 1, 2, 3})
	f.Add(wire.BindingAnswer{Code: 420}.Append(nil)[20:], []byte{7, 0, 9, 4, 200, 17})
	f.Add(wire.BindingAnswer{Mapped: netip.MustParseAddrPort("[2001:db8::1]:4000"), Other: netip.MustParseAddrPort("[2001:db8::2]:0")}.Append(nil)[20:], []byte{1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, attributes, choices []byte) {
		attributes = attributes[:min(len(attributes), 1000)]
		m := NewMeasurement(Config{
			Server: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:3478"), netip.MustParseAddrPort("[2001:db8::9]:3478")},
			Rand:   rand.NewChaCha8([32]byte{}), Lifetime: true,
		})
		now := time.Unix(1000, 0)
		actions, next := m.Step(now, Input{Op: Start}, nil)
		for turn := 0; !next.IsZero() || len(actions) > 0; turn++ {
			if turn > 20_000 {
				t.Fatal("it does not end")
			}
			var more []Action
			for i, a := range actions {
				choice := 0
				if len(choices) > 0 {
					choice = int(choices[(turn+i)%len(choices)])
				}
				var in Input
				switch a.Op {
				case Open:
					in = Input{Op: Opened, Socket: a.Socket, Bound: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(40000+a.Socket))}
					if choice%8 == 7 {
						in.Op = OpenFailed
					}
				case Send:
					from := a.To
					switch choice % 4 {
					case 1:
						from = netip.AddrPortFrom(a.To.Addr(), a.To.Port()^1)
					case 2:
						continue
					}
					b := append([]byte{1, byte(1 + choice/4%2*0x10), byte(len(attributes) >> 8), byte(len(attributes))}, a.Data[4:20]...)
					in = Input{Op: Packet, Socket: a.Socket + Socket(choice/16%2), From: from, Data: append(b, attributes...)}
				default:
					continue
				}
				more, next = m.Step(now, in, more)
			}
			if actions = more; len(actions) == 0 && !next.IsZero() {
				if next.After(now) {
					now = next
				}
				actions, next = m.Step(now, Input{Op: Tick}, nil)
			}
		}
		if r := m.Report(); !r.Complete {
			t.Errorf("not complete: %+v", r)
		}
		if len(m.sockets) > 120 {
			t.Errorf("%d sockets", len(m.sockets))
		}
	})
}
