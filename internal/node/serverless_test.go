package node

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"
)

// alone is a Core without a server, with one socket, and the time at which it stands.
type alone struct {
	core *Core
	now  time.Time
	key  peer.Key
}

func newAlone(n byte, at map[peer.ID]netip.AddrPort, allow ...peer.ID) *alone {
	x := &alone{now: time.Unix(1_800_000_000, 0), key: peer.NewKey([32]byte{n})}
	x.core = New(Config{
		Key: x.key, Serverless: true, At: at, Instance: uint64(n), Peers: allow, Abilities: punch.ByUDP,
	})
	x.step(Input{
		Op: Network, Links: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")},
		Sockets: []path.LocalSocket{{Local: 1, Bound: netip.MustParseAddrPort("0.0.0.0:5000")}},
	})
	return x
}

func (x *alone) step(in Input) []Action {
	out, _ := x.core.Step(x.now, in, nil)
	return out
}

var nat1 = netip.MustParseAddrPort("198.51.100.1:42663")

// hello is what a node says first to another one, which it knows to be at nat1.
func hello(tb testing.TB, from byte, to peer.ID) []byte {
	tb.Helper()
	a := newAlone(from, map[peer.ID]netip.AddrPort{to: nat1})
	for _, o := range a.step(Input{Op: Dial, ID: to}) {
		if o.Op == Greet && o.By.To == nat1 && o.ID == to {
			return o.Data
		}
	}
	tb.Fatal("no hello")
	return nil
}

func probes(out []Action, to netip.AddrPort) (n int) {
	for _, a := range out {
		if _, err := wire.ParseProbe(a.Data); err == nil && a.Op == Send && a.By.To == to {
			n++
		}
	}
	return n
}

// A hello makes the listener probe the address that it came from, at the port that it
// says, and no more than any attempt does, to an address that never answers.
func TestHelloIsProbed(t *testing.T) {
	t.Parallel()
	b := newAlone(2, nil)
	from := netip.MustParseAddrPort("203.0.113.9:5000")
	sent := probes(b.step(Input{Op: Greeted, From: netip.AddrPortFrom(from.Addr(), 0), Data: hello(t, 1, b.key.ID())}), from)
	if sent == 0 {
		t.Fatal("no probe")
	}
	for range 2000 {
		b.now = b.now.Add(10 * time.Millisecond)
		sent += probes(b.step(Input{Op: Tick}), from)
	}
	if sent > 60 {
		t.Errorf("%d probes to an address that says nothing", sent)
	}
	t.Logf("%d probes", sent)
}

// Hellos that are changed, old, brought again, our own or not allowed are counted and
// answered by nothing.
func TestHelloThatIsNotBelieved(t *testing.T) {
	t.Parallel()
	allowed := peer.NewKey([32]byte{1}).ID()
	b := newAlone(2, nil, allowed)
	whole, from := hello(t, 1, b.key.ID()), netip.MustParseAddrPort("203.0.113.9:0")
	refused := func(reason string, data []byte, n uint64) {
		t.Helper()
		before := b.core.Ignored()[reason]
		if out := b.step(Input{Op: Greeted, From: from, Data: data}); len(out) > 0 {
			t.Errorf("%s: %v", reason, out)
		}
		if got := b.core.Ignored()[reason] - before; got != n {
			t.Errorf("%s: %d counted: %v", reason, got, b.core.Ignored())
		}
	}
	for bit := range 8 * len(whole) {
		data := slices.Clone(whole)
		data[bit/8] ^= 1 << (bit % 8)
		refused("forged-offer", data, 1)
	}
	for n := range len(whole) {
		refused("forged-offer", whole[:n], 1)
	}
	refused("forged-offer", hello(t, 1, peer.NewKey([32]byte{9}).ID()), 1)
	refused("not-allowed", hello(t, 3, b.key.ID()), 1)
	b.now = b.now.Add(staleAfter + time.Second)
	refused("stale-hello", whole, 1)
	b.now = b.now.Add(-2*staleAfter - 2*time.Second)
	refused("stale-hello", whole, 1)
	b.now = b.now.Add(staleAfter + time.Second)
	if out := b.step(Input{Op: Greeted, From: from, Data: whole}); len(out) == 0 {
		t.Error("the hello itself is refused: this test shows nothing")
	}
	before := b.core.Ignored()["replayed-offer"]
	b.step(Input{Op: Greeted, From: netip.MustParseAddrPort("203.0.113.66:0"), Data: whole})
	if b.core.Ignored()["replayed-offer"] != before+1 {
		t.Errorf("a replay: %v", b.core.Ignored())
	}
}

// Without an address there is nobody to greet.
func TestDialWithoutServerNorAddress(t *testing.T) {
	t.Parallel()
	a := newAlone(1, nil)
	out := a.step(Input{Op: Dial, ID: peer.NewKey([32]byte{2}).ID()})
	if !slices.ContainsFunc(out, func(o Action) bool { return o.Op == Happened && o.Event.Err != nil }) {
		t.Errorf("no failure: %v", out)
	}
}

// Whatever is sealed in a hello, the listener lives.
func FuzzHello(f *testing.F) {
	to, key := peer.NewKey([32]byte{2}).ID(), peer.NewKey([32]byte{1})
	_, content, err := peer.NewKey([32]byte{2}).Open(wire.OfferPurpose, make([]byte, 32), hello(f, 1, to))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, content []byte) {
		b := newAlone(2, nil)
		box, err := key.Seal(to, wire.OfferPurpose, make([]byte, 32), content)
		if err != nil {
			t.Skip()
		}
		b.step(Input{Op: Greeted, From: netip.MustParseAddrPort("203.0.113.9:0"), Data: box})
	})
}
