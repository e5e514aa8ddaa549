package rendezvous

import (
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

var noLimits = Limits{
	Registrations: 1 << 30, Lifetime: 1000 * time.Hour, Introductions: -1, Introduced: -1, RelayPerPair: -1, RelayPerNode: -1,
}

func source(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
}

// What one new registration costs the server: the hello, and the Register with its
// BOX. The nodes' own work is done before.
func BenchmarkRegister(b *testing.B) {
	r := NewRegistry(serverKey, noLimits, nil)
	now := time.Unix(1_800_000_000, 0)
	hello := wire.AppendRegister(nil, wire.TransactionID{1}, nil, nil)
	registers := make([][]byte, b.N)
	for i := range registers {
		id := wire.TransactionID{byte(i), byte(i >> 8), byte(i >> 16)}
		nonce := r.nonces.make(now, source(i))
		key := testKey(byte(i)) // few keys, many instances: keys are slow to make
		box, err := wire.SealRegister(key, serverKey.ID(), id, nonce, wire.Registration{
			Instance: uint64(i + 1), Counter: 1, Flags: wire.FlagOpen, Description: make([]byte, 40),
		})
		if err != nil {
			b.Fatal(err)
		}
		registers[i] = wire.AppendRegister(nil, id, nonce, box)
	}
	r.limits.Instances = b.N + 1
	var out []Outgoing
	b.ReportAllocs()
	b.ResetTimer()
	for i, register := range registers {
		out, _ = r.Step(now, 0, source(i), hello, out[:0])
		out, _ = r.Step(now, 0, source(i), register, out[:0])
	}
	b.StopTimer()
	if s := r.Stats(); s.Registrations != b.N {
		b.Fatalf("%+v", s)
	}
}

func BenchmarkRefresh(b *testing.B) {
	w := newWorld(b, 1)
	r := w.serve(noLimits)
	n := w.register("a", testKey(1))
	a := n.agent
	packets := make([][]byte, b.N)
	for i := range packets {
		packets[i] = a.seal(stun.NewType(wire.Refresh, stun.ClassRequest), wire.TransactionID{1}, nil, nil)
	}
	var out []Outgoing
	b.ReportAllocs()
	b.ResetTimer()
	for _, p := range packets {
		out, _ = r.Step(w.now, 0, n.public[1], p, out[:0])
	}
	if r.Stats().Replayed+r.Stats().Forged > 0 {
		b.Fatalf("%+v", r.Stats())
	}
}

// What one introduction costs the server: the request, the two messages that it
// brings, and the acknowledgement.
func BenchmarkIntroduce(b *testing.B) {
	w := newWorld(b, 1)
	r := w.serve(noLimits)
	from, to := w.register("a", testKey(1)), w.register("b", testKey(2))
	ask := wire.Ask{Target: to.key.ID(), Channel: 0x4000, Offer: make([]byte, 200)}.Append(nil)
	packets := make([][]byte, b.N)
	for i := range packets {
		id := wire.TransactionID{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}
		packets[i] = from.agent.seal(stun.NewType(wire.Introduce, stun.ClassRequest), id, nil, ask)
	}
	now, ack := w.now, stun.NewType(wire.Introduced, stun.ClassSuccessResponse)
	var out []Outgoing
	b.ReportAllocs()
	b.ResetTimer()
	for _, p := range packets {
		out, _ = r.Step(now, 0, from.public[1], p, out[:0])
		id := wire.TransactionID(out[1].Data[8:20])
		out, _ = r.Step(now, 0, to.public[1], to.agent.seal(ack, id, nil, nil), out[:0])
		if now = now.Add(time.Millisecond); len(r.introductions) > 1<<10 {
			now = now.Add(introductionLife)
			out, _ = r.Tick(now, out[:0])
		}
	}
	b.StopTimer()
	if s := r.Stats(); s.Introductions != uint64(b.N) || len(r.waiting) > 0 {
		b.Fatalf("%+v", s)
	}
}

// What one relayed packet costs beside the two system calls.
func BenchmarkRelay(b *testing.B) {
	w := newWorld(b, 1)
	r := w.serve(noLimits)
	from, to := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(from, to)
	packet := wire.AppendChannelData(nil, ca, make([]byte, 1200))
	var out []Outgoing
	b.ReportAllocs()
	b.SetBytes(1200)
	for b.Loop() {
		wire.PutChannelHeader(packet, ca, 1200) // the registry wrote the other number over it
		out, _ = r.Step(w.now, 0, from.public[1], packet, out[:0])
	}
	if len(out) != 1 || len(out[0].Data) != len(packet) || r.Stats().Limited > 0 {
		b.Fatalf("%+v", r.Stats())
	}
}

func TestRelayDoesNotAllocate(t *testing.T) {
	w := newWorld(t, 1)
	r := w.serve(noLimits)
	from, to := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(from, to)
	packet := wire.AppendChannelData(nil, ca, make([]byte, 1200))
	out := make([]Outgoing, 0, 1)
	if n := testing.AllocsPerRun(1000, func() {
		wire.PutChannelHeader(packet, ca, 1200)
		out, _ = r.Step(w.now, 0, from.public[1], packet, out[:0])
	}); n != 0 {
		t.Errorf("%v allocations for a relayed packet", n)
	}
}

// A plain Binding, without what its packets cost.
func BenchmarkBinding(b *testing.B) {
	r := NewRegistry(serverKey, Limits{Bindings: -1}, nil)
	request := wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil)
	now := time.Unix(1_800_000_000, 0)
	var out []Outgoing
	b.ReportAllocs()
	for b.Loop() {
		out, _ = r.Step(now, 0, source(1), request, out[:0])
	}
}
