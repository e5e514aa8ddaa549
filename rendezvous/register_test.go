package rendezvous

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// What a node costs the server is this, its description and tags, and three
// entries of maps.
func TestRegistrationIsSmall(t *testing.T) {
	t.Parallel()
	if n := unsafe.Sizeof(registration{}); n > 256 {
		t.Errorf("a registration has %d bytes, more than the 256 of its size class", n)
	}
}

func TestRegistrationTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	begin := w.now
	n := w.register("a", testKey(1))
	if d := w.now.Sub(begin); d != 4*w.delay {
		t.Errorf("registered after %v, want two round trips: %v", d, 4*w.delay)
	}
	got := n.last(AgentRegistered)
	if want := []netip.AddrPort{n.public[1]}; !slices.Equal(got.Registered.Observed, want) {
		t.Errorf("observed at %v, want %v", got.Registered.Observed, want)
	}
	if got.Again || got.Registered.Lifetime != time.Minute || !got.Settled {
		t.Errorf("registered: %+v", got)
	}
	if s := r.Stats(); s.Registrations != 1 || s.Registered != 1 || s.Unproved != 1 {
		t.Errorf("stats: %+v", s)
	}
}

// A hello leaves nothing behind at the server: the NONCE that answers it is
// computed, not remembered.
func TestHelloCostsNoState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	before := state(r)
	for i := range 1000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 1)
		out, _ := r.Step(w.now, 0, from, wire.AppendRegister(nil, wire.TransactionID{byte(i)}, nil, nil), nil)
		if len(out) != 1 || out[0].To != from {
			t.Fatalf("hello answered with %v", out)
		}
	}
	if state(r) != before {
		t.Error("hellos left state behind")
	}
}

func TestRefreshKeepsARegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	n := w.register("a", testKey(1))
	w.run(time.Hour)
	if r.Stats().Registrations != 1 || len(n.did(AgentLost)) > 0 || len(n.did(AgentRegistered)) != 1 {
		t.Errorf("after an hour: %+v, %d actions", r.Stats(), len(n.done))
	}
	refreshes := 0
	for _, p := range w.seen {
		if m, err := wire.Decode(p.data); err == nil && m.Type == stun.NewType(wire.Refresh, stun.ClassRequest) {
			refreshes++
		}
	}
	if refreshes < 240 || refreshes > 280 {
		t.Errorf("%d refreshes in an hour, want one in 13.5 to 15 s", refreshes)
	}
}

func TestRegistrationExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	delete(b.public, 1) // b's cable is cut
	w.nodes = w.nodes[:1]
	w.run(time.Minute + sweepEvery)
	if n := r.Stats().Registrations; n != 1 {
		t.Errorf("%d registrations, want a's alone", n)
	}
	token := a.ask(b, "")
	w.run(time.Second)
	if d := a.answer(token); d == nil || !errors.Is(d.Err, ErrNotReachable) {
		t.Errorf("asking for b: %+v", d)
	}
	if len(r.bySource) != 1 || len(r.byID) != 1 {
		t.Errorf("left behind: %d sources, %d IDs", len(r.bySource), len(r.byID))
	}
}

func TestGoodbyeForgetsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	b.step(AgentInput{Op: AgentLeave})
	w.run(w.delay)
	if n := r.Stats().Registrations; n != 1 {
		t.Errorf("%d registrations after a goodbye, want 1", n)
	}
	token := a.ask(b, "")
	w.run(2 * w.delay)
	if d := a.answer(token); d == nil || !errors.Is(d.Err, ErrNotReachable) {
		t.Errorf("asking for b: %+v", d)
	}
	w.run(10 * time.Minute)
	if len(r.graves)+len(r.buried) > 0 {
		t.Error("what is known of the dead is kept for ever")
	}
}

// Goodbyes of short-lived processes, `dial` after `dial`, do not count against the
// processes that one ID may have.
func TestManyShortProcessesOfOneID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{Instances: 2})
	w.register("listener", testKey(1))
	for range 20 {
		n := w.register("dialler", testKey(1))
		n.step(AgentInput{Op: AgentLeave})
		w.run(time.Second)
	}
}

func TestRegistersUnderLoss(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		w := newWorld(t, seed)
		w.loss, w.jitter = 0.2, 20*time.Millisecond
		r := w.serve(Limits{})
		n := w.node("a", testKey(1), true)
		n.step(AgentInput{Op: AgentUpdate, Description: []byte("a"), Accepting: true})
		n.find(server4, server6)
		w.until(30*time.Second, n.registered)
		w.until(5*time.Minute, func() bool { return len(n.last(AgentRegistered).Registered.Observed) == 2 })
		w.run(10 * time.Minute)
		if r.Stats().Registrations != 1 {
			t.Fatalf("seed %d: %+v", seed, r.Stats())
		}
	}
}

func TestBothFamiliesAreObserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	n := w.node("a", testKey(1), true)
	n.find(server4, server6)
	w.run(time.Second)
	want := []netip.AddrPort{n.public[1], n.public[2]}
	got := n.last(AgentRegistered).Registered.Observed
	if slices.SortFunc(got, netip.AddrPort.Compare); !slices.Equal(got, want) {
		t.Errorf("observed at %v, want %v", got, want)
	}
}

// A family that stops working is forgotten, and the other takes over if it was
// the first.
func TestOneFamilyFails(t *testing.T) {
	t.Parallel()
	for _, dead := range []uint32{1, 2} {
		w := newWorld(t, uint64(dead))
		r := w.serve(Limits{})
		n := w.node("a", testKey(1), true)
		n.step(AgentInput{Op: AgentUpdate, Accepting: true})
		n.find(server4, server6)
		w.run(time.Second)
		b := w.register("b", testKey(2))
		lost := n.public[dead]
		w.tamper = func(p packet) []packet {
			if p.from == lost || p.to == lost {
				return nil
			}
			return []packet{p}
		}
		w.run(3 * time.Minute)
		if !n.registered() || r.Stats().Registrations != 2 {
			t.Fatalf("family %d failed: the node is gone", dead)
		}
		token := b.ask(n, "")
		w.run(time.Second)
		d := b.answer(token)
		if d == nil || d.Err != nil || !slices.Equal(d.Party.Observed, []netip.AddrPort{n.public[3-dead]}) {
			t.Errorf("family %d failed: introduced as %+v", dead, d)
		}
		if len(n.did(AgentAsked)) != 1 {
			t.Errorf("family %d failed: the node was not told", dead)
		}
	}
}

func TestRestartedServerIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	w.introduce(a, b)
	r := w.serve(Limits{})
	w.until(16*time.Second, func() bool { return r.Stats().Registrations == 2 })
	w.until(time.Second, func() bool { return a.last(AgentRegistered).Again && b.last(AgentRegistered).Again })
	ca, cb := w.introduce(a, b)
	a.say(ca, "x")
	b.say(cb, "y")
	w.run(time.Second)
	if len(a.received) != 1 || len(b.received) != 1 {
		t.Error("the relay does not work after the restart")
	}
	if len(a.did(AgentLost))+len(b.did(AgentLost)) > 0 {
		t.Error("a server that answers was reported lost")
	}
}

// A node that relays finds out at once, not at its next keepalive.
func TestRestartedServerIsNoticedByDataFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	w.run(3 * time.Second)
	w.serve(Limits{})
	a.say(ca, "twenty bytes or more of data")
	w.until(10*w.delay, func() bool { return a.last(AgentRegistered).Again })
}

// An introduction that is under way when the server restarts succeeds.
func TestServerRestartsDuringAnAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	w.run(3 * time.Second)
	r := w.serve(Limits{})
	token := a.ask(b, "offer")
	b.step(AgentInput{Op: AgentUpdate, Description: []byte("other"), Accepting: true}) // so it notices, too
	w.until(3*time.Second, func() bool { return a.answer(token) != nil })
	if d := a.answer(token); d.Err != nil && !errors.Is(d.Err, ErrNotReachable) {
		t.Fatalf("%v", d.Err)
	}
	if r.Stats().Registrations == 0 {
		t.Error("nobody registered again")
	}
}

func TestMovedServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{}, server4)
	n := w.register("a", testKey(1))
	elsewhere := ap("192.0.2.99:3478")
	w.stop(server4)
	w.serve(Limits{}, elsewhere)
	w.until(time.Minute, func() bool { return len(n.did(AgentResolve)) > 0 })
	if len(n.did(AgentLost)) != 1 {
		t.Error("the loss was not reported")
	}
	n.find(elsewhere)
	w.until(time.Second, n.registered)
	if d := n.last(AgentRegistered); !d.Again || d.To.Addr != elsewhere {
		t.Errorf("registered: %+v", d)
	}
	n.find() // a name that no longer resolves to anything of ours
	n.step(AgentInput{Op: AgentUpdate, Description: []byte("new")})
	w.run(time.Minute)
	if n.registered() {
		t.Error("registered nowhere")
	}
	n.find(elsewhere)
	w.until(time.Second, n.registered)
}

// The network was away, the server was not: it still knows the node, and the
// relay channels are still there.
func TestServerIsSilentForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, cb := w.introduce(a, b)
	w.tamper = func(p packet) []packet {
		if p.from == a.public[1] || p.to == a.public[1] {
			return nil
		}
		return []packet{p}
	}
	w.until(time.Minute, func() bool { return len(a.did(AgentLost)) == 1 })
	w.until(time.Minute, func() bool { return len(a.did(AgentFailed)) == 1 })
	if err := a.last(AgentFailed).Err; !errors.Is(err, ErrNoServer) {
		t.Errorf("failed with %v", err)
	}
	w.tamper = nil
	w.until(20*time.Second, a.registered)
	if a.last(AgentRegistered).Again {
		t.Error("the server had not forgotten the node")
	}
	a.say(ca, "x")
	b.say(cb, "y")
	w.run(time.Second)
	if len(a.received) != 1 || len(b.received) != 1 {
		t.Error("the channel did not live on")
	}
}

// The node's NAT gives it another port: the new endpoint has to prove itself
// first, then everything goes on there, channels included.
func TestChangedOwnEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, cb := w.introduce(a, b)
	a.public[1] = ap("203.0.113.7:7777")
	unproved := r.Stats().Unproved
	w.until(16*time.Second, func() bool {
		return slices.Equal(a.last(AgentRegistered).Registered.Observed, []netip.AddrPort{a.public[1]})
	})
	if r.Stats().Unproved != unproved+1 {
		t.Error("the new endpoint did not have to prove itself")
	}
	a.say(ca, "x")
	b.say(cb, "y")
	w.run(time.Second)
	if len(a.received) != 1 || len(b.received) != 1 {
		t.Error("the channel did not move with the node")
	}
	token := b.ask(a, "")
	w.run(time.Second)
	if d := b.answer(token); d == nil || !slices.Equal(d.Party.Observed, []netip.AddrPort{a.public[1]}) {
		t.Errorf("a is introduced as %+v", d)
	}
}

// Relayed data from the new endpoint makes the node notice within round trips.
func TestChangedOwnEndpointIsNoticedByDataFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	w.run(3 * time.Second)
	a.public[1] = ap("203.0.113.7:7777")
	a.say(ca, "twenty bytes or more of data")
	w.until(8*w.delay, func() bool {
		return slices.Equal(a.last(AgentRegistered).Registered.Observed, []netip.AddrPort{a.public[1]})
	})
}

func TestSomebodyElseHasTheEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.node("a", testKey(1), false).find(server4)
	w.run(time.Minute)
	if err := w.nodes[0].last(AgentFailed).Err; !errors.Is(err, ErrNoServer) {
		t.Errorf("without a server: %v", err)
	}
	if n := len(w.nodes[0].did(AgentFailed)); n != 1 {
		t.Errorf("reported %d times", n)
	}

	w = newWorld(t, 2)
	w.servers[server4] = &serverSocket{NewRegistry(testKey(201), Limits{}, seeded{w.rng}), 0, []netip.AddrPort{server4}}
	w.node("a", testKey(1), false).find(server4)
	w.run(time.Minute)
	if err := w.nodes[0].last(AgentFailed).Err; !errors.Is(err, ErrWrongServer) {
		t.Errorf("a server with another key: %v", err)
	}
	if n := len(w.seen); n > 80 {
		t.Errorf("%d packets in a minute to the wrong server", n)
	}
}

func TestFullServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{Registrations: 2, Instances: 1})
	w.register("a", testKey(1))
	second := w.node("a again", testKey(1), false)
	second.find(server4)
	w.run(time.Second)
	if err := second.last(AgentFailed).Err; !errors.Is(err, ErrServerFull) {
		t.Errorf("a second instance: %v", err)
	}
	b := w.register("b", testKey(2))
	third := w.node("c", testKey(3), false)
	third.find(server4)
	w.run(time.Second)
	if err := third.last(AgentFailed).Err; !errors.Is(err, ErrServerFull) {
		t.Errorf("a third node: %v", err)
	}
	if s := r.Stats(); s.Registrations != 2 || s.Limited < 2 {
		t.Errorf("stats: %+v", s)
	}
	b.step(AgentInput{Op: AgentLeave})
	w.until(time.Minute, third.registered)
}

func TestDescriptionAndPolicyChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.loss = 0.2
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	for i := range 50 {
		b.step(AgentInput{Op: AgentUpdate, Description: []byte{byte(i)}, Accepting: true})
		w.until(10*time.Second, b.registered)
		token := a.ask(b, "")
		w.until(10*time.Second, func() bool { return a.answer(token) != nil })
		if d := a.answer(token); d.Err == nil && !slices.Equal(d.Party.Description, []byte{byte(i)}) {
			t.Fatalf("change %d: described as %q", i, d.Party.Description)
		}
	}
}

// Two changes overtake each other on the way: the later one holds.
func TestOvertakenRefreshDoesNotUndoALaterOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	n := w.register("a", testKey(1))
	var held []packet
	w.tamper = func(p packet) []packet {
		held = append(held, p)
		return nil
	}
	n.step(AgentInput{Op: AgentUpdate, Description: []byte("old"), Accepting: true})
	n.step(AgentInput{Op: AgentUpdate, Description: []byte("new"), Accepting: true})
	w.tamper = nil
	for _, p := range []packet{held[1], held[0]} {
		w.deliver(p)
	}
	if g := r.find(n.key.ID(), 1); string(g.description()) != "new" {
		t.Errorf("the server has %q", g.description())
	}
	if r.Stats().Replayed != 1 {
		t.Errorf("stats: %+v", r.Stats())
	}
}
