package rendezvous

import (
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/internal/wire"
)

// The asker's data leaves beside its request, before any answer, and arrives
// right behind the introduction.
func TestDataTravelsBesideTheAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	begin := w.now
	a.ask(b, "offer")
	a.say(a.last(AgentAsking).Channel, "hello")
	w.run(time.Second)
	told := b.last(AgentAsked)
	want := []relayed{{begin.Add(2 * w.delay), told.Channel, "hello"}}
	if !slices.Equal(b.received, want) {
		t.Errorf("received %v, want %v", b.received, want)
	}
	b.say(told.Channel, "hello yourself")
	w.run(time.Second)
	if len(a.received) != 1 || a.received[0].channel != a.last(AgentAsking).Channel || a.received[0].data != "hello yourself" {
		t.Errorf("received %v", a.received)
	}
}

// A channel survives idleness, and is the same when its two are introduced again.
func TestChannelIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, cb := w.introduce(a, b)
	w.run(24 * time.Hour)
	a.say(ca, "x")
	b.say(cb, "y")
	w.run(time.Second)
	if len(a.received) != 1 || len(b.received) != 1 {
		t.Error("the channel did not survive a day")
	}
	if ca2, cb2 := w.introduce(a, b); ca2 != ca || cb2 != cb || r.Stats().Channels != 1 {
		t.Errorf("introduced again with channels %x, %x; were %x, %x", ca2, cb2, ca, cb)
	}
	if cb3, ca3 := w.introduce(b, a); cb3 == cb || ca3 == ca || r.Stats().Channels != 2 {
		t.Errorf("the other way round: channels %x, %x", ca3, cb3)
	}
}

func TestEitherSideClosesAChannel(t *testing.T) {
	t.Parallel()
	for name, closer := range map[string]int{"asker": 0, "target": 1} {
		w := newWorld(t, 1)
		w.loss = 0.1
		r := w.serve(Limits{})
		w.register("a", testKey(1))
		w.register("b", testKey(2))
		ca, cb := w.introduce(w.nodes[0], w.nodes[1])
		channels := []wire.Channel{ca, cb}
		w.nodes[closer].step(AgentInput{Op: AgentCloseChannel, Channel: channels[closer]})
		w.until(5*time.Second, func() bool { return r.Stats().Channels == 0 })
		other := w.nodes[1-closer]
		// Its data finds out, should the notice be lost.
		for range 20 {
			other.say(channels[1-closer], strings.Repeat("x", 100))
			w.run(time.Second)
		}
		if lost := other.did(AgentChannelLost); len(lost) == 0 || lost[0].Channel != channels[1-closer] {
			t.Errorf("%s closed: the other was told %v", name, lost)
		}
		if len(w.nodes[closer].received) > 0 {
			t.Errorf("%s closed, and got data", name)
		}
	}
}

// The channel ends with either registration, and the other side is told.
func TestChannelEndsWithARegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	b.step(AgentInput{Op: AgentLeave})
	w.run(time.Second)
	if lost := a.did(AgentChannelLost); len(lost) != 1 || lost[0].Channel != ca || r.Stats().Channels != 0 {
		t.Errorf("a was told %v; %+v", lost, r.Stats())
	}
}

func TestUnknownChannelIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a := w.register("a", testKey(1))
	for i := range 1000 {
		a.say(0x4123, strings.Repeat("x", 20+i%200))
	}
	from := len(w.seen)
	w.run(100 * time.Millisecond)
	if n := len(a.did(AgentChannelLost)); n == 0 || n > plainErrors+10 {
		t.Errorf("told %d times of 1000 packets", n)
	}
	for _, p := range w.seen[from:] {
		if len(p.data) != channelErrorSize {
			t.Errorf("answered with %d bytes", len(p.data))
		}
	}
	if n := r.Stats().Unknown; n != 1000 {
		t.Errorf("%d counted", n)
	}
	a.done = nil
	a.say(0x4123, "too short")
	w.run(time.Second)
	if len(a.done) > 0 {
		t.Error("a short packet was answered with a longer one")
	}
}

// ChannelData is authenticated by its source alone, so another source has no
// channel.
func TestChannelDataFromElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	w.run(time.Second)
	before := state(r)
	data := wire.AppendChannelData(nil, ca, []byte(strings.Repeat("x", 100)))
	for _, from := range []string{"198.51.0.99:4001", "198.51.0.1:4002", "[2001:db8::9]:4001"} {
		w.send(packet{from: ap(from), to: server4, data: data})
	}
	// The right source, by a socket that the node is not registered at.
	w.send(packet{from: a.public[1], to: server6, data: data})
	w.run(time.Second)
	if len(b.received) > 0 || state(r) != before || r.Stats().Unknown != 4 {
		t.Errorf("b received %v; %+v", b.received, r.Stats())
	}
}

func TestRelayLimits(t *testing.T) {
	t.Parallel()
	const size = 1000
	for _, c := range []struct {
		name   string
		limits Limits
		pairs  int // that a sends to
		back   bool
		want   float64 // bit/s that arrive in all
	}{
		{"pair", Limits{RelayPerPair: 1e6, RelayPerNode: -1}, 1, false, 1e6},
		{"pair, each way its own", Limits{RelayPerPair: 1e6, RelayPerNode: -1}, 1, true, 2e6},
		{"pairs", Limits{RelayPerPair: 1e6, RelayPerNode: -1}, 2, false, 2e6},
		{"node", Limits{RelayPerPair: -1, RelayPerNode: 1e6}, 2, false, 1e6},
		{"server", Limits{RelayPerPair: -1, RelayPerNode: -1, RelayPerServer: 1e6}, 2, true, 1e6},
		{"none", Limits{RelayPerPair: -1, RelayPerNode: -1}, 2, false, 8e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.serve(c.limits)
			a := w.register("a", testKey(1))
			data := strings.Repeat("x", size)
			for i := range c.pairs {
				b := w.register("b", testKey(byte(2+i)))
				ca, cb := w.introduce(a, b)
				for ms := range 10_000 { // 4 Mbit/s
					w.at(w.now.Add(time.Duration(ms)*time.Millisecond), func() {
						if ms%2 == 0 {
							a.say(ca, data)
						}
						if c.back && ms%2 == 1 {
							b.say(cb, data)
						}
					})
				}
			}
			w.run(11 * time.Second)
			bits := 0
			for _, n := range w.nodes {
				bits += len(n.received) * size * 8
			}
			// The burst, 64 KiB a bucket, comes on top of ten seconds.
			got := float64(bits) / 10
			if got < c.want*0.97 || got > c.want*1.03+0.11e6 {
				t.Errorf("%.2f Mbit/s arrived, want %.2f", got/1e6, c.want/1e6)
			}
		})
	}
}

// Numbers of the server's half go round; when all are taken, the channel that was
// idle longest makes room, and both its ends are told.
func TestChannelsRunOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{Introductions: -1, Introduced: -1})
	b := w.register("b", testKey(1))
	target := r.find(b.key.ID(), 1)
	first := w.register("first", testKey(2))
	ca, cb := w.introduce(first, b)
	second := w.register("second", testKey(3))
	g := r.find(first.key.ID(), 2)
	for range wire.ChannelsPerHalf - 1 { // askers that would take long to make
		x := &registration{}
		if r.open(x, target, wire.FirstAskedChannel) == nil {
			t.Fatal("no channel")
		}
	}
	token := second.ask(b, "")
	w.run(time.Second)
	if d := second.answer(token); d == nil || d.Err == nil {
		t.Fatalf("no channel was free, and none idle: %+v", d)
	}
	first.say(ca, "x")
	w.run(idleChannel)
	if r.open(g, target, ca) == nil {
		t.Fatal("an open channel was not kept")
	}
	for _, p := range target.extra.channels {
		p.used = r.stamp
	}
	target.extra.channels[cb].used = r.stamp - stamp(idleChannel/time.Millisecond)
	token = second.ask(b, "")
	w.run(time.Second)
	if d := second.answer(token); d == nil || d.Err != nil {
		t.Fatalf("the idlest channel did not make room: %+v", d)
	}
	if len(first.did(AgentChannelLost)) != 1 || b.last(AgentAsked).Channel != cb || len(b.did(AgentChannelLost)) != 1 {
		t.Error("the ends of the old channel were not told")
	}
}

// One asker cannot take a target's channels by asking with number after number.
func TestOneChannelBetweenAskerAndTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{Introductions: -1, Introduced: -1})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	for range 100 {
		w.introduce(a, b)
		clear(a.agent.channels)
	}
	if n := r.Stats().Channels; n != 1 {
		t.Errorf("%d channels between two nodes", n)
	}
}

// A node's own numbers rest before they mean another peer, and are free again
// after a refusal.
func TestAskedNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{Introductions: -1, Introduced: -1})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	for range 3 * wire.ChannelsPerHalf {
		token := a.askID(testKey(9).ID(), "")
		if a.last(AgentAsking).Channel == ca {
			t.Fatal("a number that is in use was given to another target")
		}
		w.run(2 * w.delay)
		if a.answer(token) == nil {
			t.Fatal("no answer")
		}
		a.done = a.done[:0]
	}
	if len(a.agent.channels) != 1 {
		t.Errorf("%d numbers are kept", len(a.agent.channels))
	}
}
