package path

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"bodkin/internal/wire"

	"golang.org/x/net/ipv4"
)

// joined is packets as the kernel joins them.
func joined(packets ...[]byte) []byte { return bytes.Join(packets, nil) }

// short is a packet with a short header.
func short(first byte, size int) []byte {
	b := bytes.Repeat([]byte{first ^ 0x55}, size)
	b[0] = first
	return b
}

// Whatever is joined goes where it would have gone one by one.
func TestJoinedPacketsGoWhereSingleOnesGo(t *testing.T) {
	t.Parallel()
	stun := wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil)
	n := len(stun)
	for name, c := range map[string]struct {
		from    netip.AddrPort
		packets [][]byte
	}{
		"one connection":      {hole.To, [][]byte{short(0x40, 50), short(0x41, 50), short(0x42, 20)}},
		"dialled":             {hole.To, [][]byte{short(dialledB, 50), short(dialledB, 50)}},
		"two connections":     {hole.To, [][]byte{short(0x40, 50), short(dialledB, 50), short(0x40, 1)}},
		"STUN in between":     {hole.To, [][]byte{short(0x40, n), stun, short(0x40, n)}},
		"stranger":            {ap("192.0.2.99:9"), [][]byte{short(0x40, 50), short(0x41, 50)}},
		"relayed":             {serverAt, [][]byte{channelData(channel, "one"), channelData(channel, "two"), channelData(channel, "3")}},
		"too large":           {hole.To, [][]byte{short(0x40, maxPacket+1), short(0x40, maxPacket+1)}},
		"enough to be kept":   {hole.To, slices.Repeat([][]byte{short(0x40, 1228)}, 20)},
		"nearly enough":       {hole.To, slices.Repeat([][]byte{short(0x40, 100)}, 20)},
		"a single large one":  {hole.To, [][]byte{short(0x40, 1400)}},
		"an empty one":        {hole.To, [][]byte{nil}},
		"as many as can come": {hole.To, slices.Repeat([][]byte{short(0x40, 30)}, 2000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, all := newBench(t), newBench(t)
			one.publish(peerA, hole, channel)
			all.publish(peerA, hole, channel)
			for _, p := range c.packets {
				if len(p) > 0 {
					one.Deliver(1, c.from, p)
				}
			}
			b := joined(c.packets...)
			kept := all.DeliverRun(1, c.from, b, len(c.packets[0]))
			if want := name == "enough to be kept" || name == "as many as can come"; kept != want {
				t.Errorf("kept: %v", kept)
			}
			if !kept {
				clear(b)
			}
			compare(t, one, all)
		})
	}
}

// compare finds what two sockets did differently.
func compare(t *testing.T, one, all *bench) {
	t.Helper()
	if want, g := got(t, one.Accept()), got(t, all.Accept()); !slices.Equal(g, want) {
		t.Errorf("accept got %d packets, want %d", len(g), len(want))
	}
	if want, g := got(t, one.Dial()), got(t, all.Dial()); !slices.Equal(g, want) {
		t.Errorf("dial got %d packets, want %d", len(g), len(want))
	}
	if len(one.controls) != len(all.controls) {
		t.Errorf("%d control packets, want %d", len(all.controls), len(one.controls))
	}
	if all.Stray.Load() != one.Stray.Load() || all.Overrun.Load() != one.Overrun.Load() {
		t.Errorf("stray %d and overrun %d, want %d and %d", all.Stray.Load(), all.Overrun.Load(), one.Stray.Load(), one.Overrun.Load())
	}
	if all.Traffic(peerA) != one.Traffic(peerA) {
		t.Errorf("traffic %v, want %v", all.Traffic(peerA), one.Traffic(peerA))
	}
}

func FuzzDeliverRun(f *testing.F) {
	f.Add(joined(short(0x40, 50), short(dialledB, 50)), uint16(50), uint8(2))
	f.Add(joined(channelData(channel, "one"), channelData(channel, "two")), uint16(7), uint8(1))
	f.Add(bytes.Repeat([]byte{0x40}, keepFrom+1), uint16(1228), uint8(2))
	from := []netip.AddrPort{ap("192.0.2.99:9"), serverAt, hole.To}
	f.Fuzz(func(t *testing.T, b []byte, segment uint16, who uint8) {
		one, all := newBench(t), newBench(t)
		one.publish(peerA, hole, channel)
		all.publish(peerA, hole, channel)
		size := max(1, int(segment))
		at := from[int(who)%len(from)]
		for p := range slices.Chunk(b, size) {
			one.Deliver(1, at, p)
		}
		all.DeliverRun(1, at, bytes.Clone(b), size)
		if count(b, size) < queueLength { // else what is lost differs: a run is lost as a whole
			compare(t, one, all)
		}
	})
}

func TestRunsAreReadInOrderAsTheQueueMoves(t *testing.T) {
	t.Parallel()
	var q runs
	next, last := 0, 0
	b := make([]byte, 16)
	for range 1000 {
		for range 3 {
			q.put([]byte{byte(last), byte(last + 1), byte(last + 2)}, 1, nil, false)
			last += 3
		}
		for range 8 {
			if n, _ := q.take(b); n != 1 || b[0] != byte(next) {
				t.Fatalf("packet %d is %x", next, b[:n])
			}
			next++
		}
		if next%500 == 0 {
			for q.packets > 0 {
				_, _ = q.take(b)
				next++
			}
		}
	}
	if q.packets != last-next {
		t.Errorf("%d packets are left of %d", q.packets, last-next)
	}
	q.clear()
	if q.packets != 0 || len(q.queue) != 0 {
		t.Error("not clear")
	}
}

// receiver reads as quic-go does.
type receiver struct {
	conn     *Conn
	messages []ipv4.Message
}

func newReceiver(c *Conn) receiver {
	r := receiver{c, make([]ipv4.Message, 8)}
	for i := range r.messages {
		r.messages[i].Buffers = [][]byte{make([]byte, maxPacket)}
	}
	return r
}

func (r receiver) drain(packets int) {
	for packets > 0 {
		n, err := r.conn.ReadBatch(r.messages, 0)
		if err != nil {
			panic(err)
		}
		packets -= n
	}
}

// What a run of 16 packets costs from the socket's reader to QUIC, and the same
// packets one by one, directly and relayed.
func BenchmarkReceive(b *testing.B) {
	packet := short(0x40, 1228)
	run := bytes.Repeat(packet, 16)
	relayed := channelData(channel, string(packet))
	s := newBench(b)
	s.publish(peerA, hole, channel)
	r := newReceiver(s.accept)
	for name, deliver := range map[string]func(){
		"run":     func() { s.DeliverRun(1, hole.To, run, len(packet)) },
		"single":  func() { each(16, func() { s.Deliver(1, hole.To, packet) }) },
		"relayed": func() { each(16, func() { s.Deliver(1, serverAt, relayed) }) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(run)))
			for b.Loop() {
				deliver()
				r.drain(16)
			}
		})
	}
}

func each(n int, f func()) {
	for range n {
		f()
	}
}

func TestReceivingDoesNotAllocate(t *testing.T) {
	packet := short(0x40, 1228)
	run := bytes.Repeat(packet, 16)
	relayed := channelData(channel, string(packet))
	s := newBench(t)
	s.publish(peerA, hole, channel)
	r := newReceiver(s.accept)
	for name, deliver := range map[string]func(){
		"run":     func() { s.DeliverRun(1, hole.To, run, len(packet)) },
		"single":  func() { each(16, func() { s.Deliver(1, hole.To, packet) }) },
		"relayed": func() { each(16, func() { s.Deliver(1, serverAt, relayed) }) },
	} {
		if n := testing.AllocsPerRun(1000, func() {
			deliver()
			r.drain(16)
		}); n >= 1 {
			t.Errorf("%s: %v allocations for 16 packets", name, n)
		}
	}
}
