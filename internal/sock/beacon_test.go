package sock

import (
	"bytes"
	"net/netip"
	"testing"

	"bodkin/internal/icmp"
)

// hail is the error that carries a message to a listener, as it comes in.
func hail(to netip.Addr, id uint16, message string) []byte {
	q := icmp.Quote{
		Echo: true, From: netip.MustParseAddrPort("192.168.1.2:7"), To: netip.AddrPortFrom(to, id),
		Data: append(bytes.Clone(magic[:]), message...),
	}
	q.From = netip.AddrPortFrom(q.From.Addr(), id)
	return icmp.Message{Kind: icmp.TimeExceeded, Body: q.Append(nil)}.Append(nil, true)
}

// Only an error about our own ping, with our magic behind it, carries a message.
func TestGreeting(t *testing.T) {
	t.Parallel()
	whole := hail(Nowhere, 7, "hello")
	if m, ok := greeting(whole, 7); !ok || string(m) != "hello" {
		t.Errorf("%q, %v", m, ok)
	}
	for name, p := range map[string][]byte{
		"another identifier": hail(Nowhere, 8, "hello"),
		"another address":    hail(netip.MustParseAddr("192.0.2.1"), 7, "hello"),
		"an echo":            icmp.Message{Kind: icmp.EchoRequest, ID: 7, Body: magic[:]}.Append(nil, true),
		"nothing":            nil,
		"no magic":           whole[:len(whole)-len("hello")-1],
	} {
		if m, ok := greeting(p, 7); ok {
			t.Errorf("%s: %q", name, m)
		}
	}
}

func FuzzGreeting(f *testing.F) {
	f.Add(hail(Nowhere, 7, "hello"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if m, ok := greeting(p, 7); ok && len(m) > len(p) {
			t.Errorf("%d bytes of %d", len(m), len(p))
		}
	})
}
