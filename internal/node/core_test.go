package node

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/peer"
	"bodkin/rendezvous"
)

const (
	delayA = 20 * time.Millisecond
	delayB = 30 * time.Millisecond
	// limit is RTT(A,S) + RTT(A,B): no hole can be known to be open earlier.
	limit = 2*(delayA+serverDelay) + 2*(delayA+delayB)
)

func TestDialStartsOnTheRelayAndBecomesDirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	begin := w.now
	a.dial(b)
	relay := a.to(b, 0)
	if len(relay) != 1 || relay[0].Direct() {
		t.Fatalf("routes at once: %v, want the relay", relay)
	}
	w.send(a, Action{By: relay[0].Key, Data: wire.AppendChannelData(nil, relay[0].Channel, []byte("hello"))})
	w.until(time.Second, func() bool { return len(b.data) > 0 })
	if d := w.now.Sub(begin); d != delayA+delayB+2*serverDelay || b.data[0] != "hello from a" {
		t.Errorf("%q after %v", b.data, d)
	}
	w.until(time.Second, func() bool { return a.direct(b) })
	if d := w.now.Sub(begin); d != limit {
		t.Errorf("direct after %v, want %v", d, limit)
	}
	w.until(time.Second, func() bool { return b.direct(a) })
	if in := a.happened(path.WasIntroduced, b); len(in) != 1 || !slices.Equal(in[0].Event.Endpoints, []netip.AddrPort{b.public}) {
		t.Errorf("introduced: %+v", in)
	}
	b.retain(a)
	w.run(time.Hour)
	if !a.direct(b) || !b.direct(a) {
		t.Error("the hole closed within an hour")
	}
	for _, h := range w.homes {
		if ignored := h.core.Ignored(); len(ignored) > 0 {
			t.Errorf("%s ignored %v", h.name, ignored)
		}
	}
}

func TestEveryDialBecomesDirectUnderLoss(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		w := newWorld(t, seed)
		a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
		w.loss = 0.2
		a.dial(b)
		w.until(30*time.Second, func() bool { return a.direct(b) && b.direct(a) })
	}
}

func TestBothDialAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	b.dial(a)
	w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
	w.run(time.Minute)
	for _, h := range w.homes {
		other := w.homes[2-h.number]
		if len(h.core.members) != 1 || h.core.byOverlay[peer.Overlay(other.key.ID(), 0)] != h.core.members[0] {
			t.Errorf("%s knows %d members", h.name, len(h.core.members))
		}
		if !h.direct(other) {
			t.Errorf("%s lost its hole", h.name)
		}
	}
	a.say(b, "x")
	b.say(a, "y")
	w.run(time.Second)
	if !slices.Equal(b.data, []string{"x from a"}) || !slices.Equal(a.data, []string{"y from b"}) {
		t.Errorf("relayed: %q, %q", a.data, b.data)
	}
}

// A peer that we dialled is known under its instance too, and stays one member
// when it dials us.
func TestDialledPeerIsKnownUnderItsInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) })
	overlay, anyone := peer.Overlay(b.key.ID(), b.core.cfg.Instance), peer.Overlay(b.key.ID(), 0)
	if all := a.did(Alias); len(all) != 1 || all[0].Overlay != overlay || all[0].Of != anyone {
		t.Fatalf("aliases: %+v", all)
	}
	b.dial(a)
	w.run(20 * time.Second)
	if len(a.core.members) != 1 || len(a.did(AddPeer)) != 1 {
		t.Errorf("%d members", len(a.core.members))
	}
}

// The other way round: who dialled us is dialled, under instance 0. What was made
// for that goes over to the member that is there.
func TestDialMeetsAPeerThatDialledUs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	b.dial(a)
	w.until(time.Second, func() bool { return a.direct(b) })
	a.dial(b)
	w.until(time.Second, func() bool { return len(a.core.members) == 1 })
	overlay, anyone := peer.Overlay(b.key.ID(), b.core.cfg.Instance), peer.Overlay(b.key.ID(), 0)
	if all := a.did(Alias); len(all) != 1 || all[0].Overlay != anyone || all[0].Of != overlay {
		t.Errorf("aliases: %+v", all)
	}
	if !a.core.members[0].peer.Wanted() || !a.direct(b) {
		t.Error("the wish was lost")
	}
	w.run(time.Minute)
	for k, o := range a.heard {
		if a.core.byOverlay[o] != a.core.members[0] {
			t.Errorf("source %v still leads to %v", k, o)
		}
	}
	a.say(b, "x")
	b.say(a, "y")
	w.run(time.Second)
	if !slices.Equal(b.data, []string{"x from a"}) || !slices.Equal(a.data, []string{"y from b"}) {
		t.Errorf("relayed: %q, %q", a.data, b.data)
	}
}

// The peer's process died and another one listens with its key: the next dial
// reaches that one, at the limit, and what was known of the old one is gone.
func TestRestartedPeerIsReachedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) })
	old := b.public
	b.start()
	b.listen()
	a.release(b) // its session was reset
	begin := w.now
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) })
	if d := w.now.Sub(begin); d != limit {
		t.Errorf("direct after %v, want %v", d, limit)
	}
	if len(a.happened(path.Restarted, b)) != 1 {
		t.Error("the restart was not noticed")
	}
	for k := range a.heard {
		if k.To == old {
			t.Error("the old process is still heard")
		}
	}
}

// The restarted peer dials us before we dial it.
func TestRestartedPeerDialsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) })
	b.start()
	b.listen()
	b.dial(a)
	w.until(time.Second, func() bool { return b.direct(a) && a.direct(b) })
	a.release(b)
	a.dial(b)
	w.run(10 * time.Second)
	if !a.direct(b) || a.to(b, 0) == nil || len(a.core.members) != 1 {
		t.Errorf("%d members, routes %v", len(a.core.members), a.to(b, 0))
	}
	for k := range a.heard {
		if k.To != server && k.To != b.public {
			t.Errorf("%v is still heard", k)
		}
	}
}

// Nothing of a session depends on the server; it comes back without memory, and
// everything works again.
func TestServerIsLostAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
	b.retain(a)
	w.silent = true
	w.until(2*time.Minute, func() bool { return len(a.did(ServerLost)) == 1 && len(b.did(ServerLost)) == 1 })
	w.until(time.Minute, func() bool { return len(a.did(RegisterFailed)) == 1 })
	w.run(time.Minute)
	if !a.direct(b) || !b.direct(a) {
		t.Fatal("the hole was lost with the server")
	}
	if len(a.did(Resolve)) == 0 {
		t.Error("nobody asked whether the server has moved")
	}
	w.silent = false
	w.serve()
	c := w.home("c", delayB).listen()
	w.until(20*time.Second, func() bool { return w.registry.Stats().Registrations == 3 })
	a.dial(c)
	w.until(2*time.Second, func() bool { return a.direct(c) })
	w.until(20*time.Second, func() bool { return w.registry.Stats().Channels == 2 })
	a.say(b, "x")
	w.run(time.Second)
	if !slices.Equal(b.data, []string{"x from a"}) {
		t.Errorf("the relay to b: %q", b.data)
	}
}

// The network was away for a while, the server was not: the relay channels go on,
// also for the side that was dialled and does not ask.
func TestRelayOutlivesASilence(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]int{"dialler": 0, "dialled": 1} {
		w := newWorld(t, 1)
		a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
		w.blocked = true
		a.dial(b)
		w.run(time.Second)
		h := w.homes[silent]
		b.retain(a)
		h.cut = true
		w.until(time.Minute, func() bool { return len(h.did(ServerLost)) == 1 })
		h.cut = false
		w.until(20*time.Second, func() bool { return h.core.up })
		a.say(b, "x")
		b.say(a, "y")
		w.run(time.Second)
		if !slices.Equal(b.data, []string{"x from a"}) || !slices.Equal(a.data, []string{"y from b"}) {
			t.Errorf("%s was cut off; relayed: %q, %q", name, a.data, b.data)
		}
		if w.registry.Stats().Channels != 1 {
			t.Errorf("%s was cut off: %+v", name, w.registry.Stats())
		}
	}
}

// A restarted server has forgotten the channels; both sides get new ones as soon
// as they have noticed.
func TestRelayIsMadeAgainAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	w.blocked = true
	a.dial(b)
	w.run(time.Second)
	b.retain(a)
	w.serve()
	w.until(20*time.Second, func() bool { return w.registry.Stats().Channels == 1 })
	w.run(time.Second)
	a.say(b, "x")
	b.say(a, "y")
	w.run(time.Second)
	if !slices.Equal(b.data, []string{"x from a"}) || !slices.Equal(a.data, []string{"y from b"}) {
		t.Errorf("relayed: %q, %q", a.data, b.data)
	}
	if len(a.did(ServerLost))+len(b.did(ServerLost)) > 0 {
		t.Error("a server that answers was reported lost")
	}
}

// The server is the same, at another endpoint: channels go on there.
func TestRelayMovesWithTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	w.blocked = true
	b.dial(a)
	w.run(time.Second)
	elsewhere := netip.MustParseAddrPort("192.0.2.99:3478")
	a.fake(rendezvous.AgentAction{
		Op: rendezvous.AgentRegistered, To: rendezvous.ServerEndpoint{Local: 1, Addr: elsewhere},
		Registered: wire.Registered{Observed: []netip.AddrPort{a.public}},
	})
	r := a.to(b, b.core.cfg.Instance)
	if len(r) != 1 || r[0].To != elsewhere {
		t.Errorf("routes %v", r)
	}
	for k := range a.heard {
		if k.To != elsewhere {
			t.Errorf("%v is still heard", k)
		}
	}
}

// A hole that nobody uses lingers for a minute, so that the next dial finds it, and
// then all of it goes, the channel at the server too.
func TestReleasedPeerLingers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
	a.release(b)
	w.run(50 * time.Second)
	if !a.direct(b) {
		t.Fatal("the hole did not linger")
	}
	a.dial(b)
	w.run(time.Hour)
	if !a.direct(b) || len(a.did(RemovePeer)) > 0 {
		t.Fatal("a peer in use was removed")
	}
	a.release(b)
	w.run(linger + 10*time.Second)
	if len(a.core.members)+len(a.core.byOverlay)+len(a.core.asks) > 0 || len(a.did(RemovePeer)) != 1 || len(a.heard) > 0 {
		t.Errorf("left: %d members, sources %v", len(a.core.members), a.heard)
	}
	if w.registry.Stats().Channels != 0 {
		t.Error("the channel is still open")
	}
	b.step(Input{Op: Release, Overlay: peer.Overlay(a.key.ID(), a.core.cfg.Instance)})
	w.run(2 * linger)
	if len(b.core.members) > 0 {
		t.Error("b still knows a")
	}
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) })
}

// A session that the peer opened keeps it, until that is released.
func TestRetainedPeerStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return b.direct(a) })
	b.step(Input{Op: Retain, Overlay: peer.Overlay(a.key.ID(), a.core.cfg.Instance)})
	w.run(time.Hour)
	if len(b.core.members) != 1 {
		t.Error("a retained peer was removed")
	}
}

func TestDialFailsWithTheReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a := w.home("a", delayA).listen()
	closed := w.home("closed", delayB, peer.NewKey([32]byte{99}).ID()).listen()
	a.dial(closed)
	w.run(time.Second)
	if all := a.happened(path.Failed, closed); len(all) == 0 || !errors.Is(all[0].Event.Err, rendezvous.ErrNotReachable) {
		t.Errorf("failed: %+v", all)
	}
	if r := a.to(closed, 0); len(r) > 0 {
		t.Errorf("routes %v", r)
	}
	a.dial(a)
	if all := a.happened(path.Failed, a); len(all) != 1 || !errors.Is(all[0].Event.Err, errSelf) {
		t.Errorf("dialling itself: %+v", all)
	}
}

// Another process takes the place; a new wish takes it back.
func TestDisplacedAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	other := w.home("b elsewhere", delayB)
	other.key = b.key
	other.start()
	other.listen()
	w.until(time.Second, func() bool { return len(b.did(Displaced)) == 1 })
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(other) })
	b.done = nil
	b.listen()
	w.until(time.Second, func() bool { return len(other.did(Displaced)) == 1 })
	if len(b.did(Displaced)) > 0 {
		t.Error("both are displaced")
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a := w.home("a", delayA).listen()
	a.step(Input{Op: Close})
	w.run(time.Second)
	if w.registry.Stats().Registrations != 0 {
		t.Error("the server still knows the node")
	}
}

// IPv6 comes and goes with the network.
func TestNetworkChangeFindsTheServerAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a := w.home("a", delayA).listen()
	a.step(Input{Op: Network})
	if len(a.core.servers) > 0 {
		t.Error("a server without a socket to reach it by")
	}
	w.run(time.Minute)
	a.step(Input{
		Op:      Network,
		Sockets: []path.LocalSocket{{Local: 1, Bound: netip.AddrPortFrom(netip.IPv4Unspecified(), a.private.Port())}},
	})
	w.until(5*time.Second, func() bool { return a.core.up })
}

func TestIgnoredWordsAreDistinct(t *testing.T) {
	t.Parallel()
	words := map[string]bool{}
	for _, word := range reasonWords {
		words[word] = true
	}
	if len(words) != int(reasons) || words[""] {
		t.Errorf("%d words for %d reasons: %v", len(words), reasons, slices.Sorted(maps.Keys(words)))
	}
}

func TestKeepaliveFollowsTheLifetimeOfMappings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lives nat.Span
		want  time.Duration
	}{
		"not known":             {nat.Span{}, 0},
		"less than the least":   {nat.Span{Below: 15 * time.Second}, 5 * time.Second},
		"30 s":                  {nat.Span{AtLeast: 29 * time.Second, Below: 31 * time.Second}, 29 * time.Second * 2 / 3},
		"two minutes":           {nat.Span{AtLeast: 117 * time.Second, Below: 2 * time.Minute}, time.Minute},
		"for good":              {nat.Span{AtLeast: 5 * time.Minute}, time.Minute},
		"shorter than it seems": {nat.Span{AtLeast: 2 * time.Second, Below: 15 * time.Second}, 5 * time.Second},
	} {
		if got := keepalive(c.lives); got != c.want {
			t.Errorf("%s: every %v, want %v", name, got, c.want)
		}
	}
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
	b.retain(a)
	count := func() (n int) {
		before := a.probesTo(b.public) + b.probesTo(a.public)
		w.run(time.Hour)
		return a.probesTo(b.public) + b.probesTo(a.public) - before
	}
	w.run(time.Minute)
	// One packet each way every 15 s: the probe of one side, and its answer.
	if n := count(); n > 2*240 || n < 2*200 {
		t.Errorf("%d packets an hour", n)
	}
	for _, h := range w.homes {
		r := nat.Report{}
		r.Lifetime.Value, r.Lifetime.Time = nat.Span{AtLeast: 5 * time.Minute}, w.now
		h.core.measured(r)
	}
	w.run(time.Minute)
	if n := count(); n > 2*60 || n < 2*50 {
		t.Errorf("%d packets an hour where mappings live for long", n)
	}
	if !a.direct(b) || !b.direct(a) {
		t.Error("the hole closed")
	}
}
