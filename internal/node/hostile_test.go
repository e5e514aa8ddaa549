package node

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"bodkin/internal/path"
	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// An offer that the server made up, or changed, or took from elsewhere, is refused
// and counted, and makes the node send nothing to anybody.
func TestOfferThatTheServerMadeUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b, c := w.home("a", delayA).listen(), w.home("b", delayB).listen(), w.home("c", delayB)
	victim := netip.MustParseAddrPort("198.51.100.99:53")
	offer := wire.Offer{Instance: a.core.cfg.Instance, Counter: 1, Nonce: [32]byte{1}}
	var forged []rendezvous.AgentAction
	add := func(change func(x *rendezvous.AgentAction)) {
		x := introduced(t, a.key, offer, b, victim)
		change(&x)
		forged = append(forged, x)
	}
	add(func(x *rendezvous.AgentAction) { x.Party.ID = c.key.ID() })                               // somebody else's
	add(func(x *rendezvous.AgentAction) { x.Party.Instance++ })                                    // another process's
	add(func(x *rendezvous.AgentAction) { x.Party.Offer = nil })                                   // none
	add(func(x *rendezvous.AgentAction) { *x = introduced(t, a.key, offer, c, victim) })           // for another reader
	add(func(x *rendezvous.AgentAction) { *x = introduced(t, b.key, offer, b, victim) })           // the reader's own
	add(func(x *rendezvous.AgentAction) { x.Party.Offer = seal(t, serverKey, b, "offer", offer) }) // in a's name
	add(func(x *rendezvous.AgentAction) { x.Party.Offer = seal(t, a.key, b, "register", offer) })  // for another purpose
	other := peer.NewKey([32]byte{201}).ID()
	add(func(x *rendezvous.AgentAction) { // for another server
		x.Party.Offer, _ = a.key.Seal(b.key.ID(), wire.OfferPurpose, other[:], offer.Append(nil))
	})
	whole := introduced(t, a.key, offer, b, victim)
	for bit := range 8 * len(whole.Party.Offer) {
		add(func(x *rendezvous.AgentAction) {
			x.Party.Offer = slices.Clone(whole.Party.Offer)
			x.Party.Offer[bit/8] ^= 1 << (bit % 8)
		})
	}
	done := len(b.done)
	for _, x := range forged {
		b.fake(x)
	}
	w.run(time.Second)
	if n := b.core.Ignored()["forged-offer"]; n != uint64(len(forged)) {
		t.Errorf("%d of %d counted: %v", n, len(forged), b.core.Ignored())
	}
	if len(b.done) != done || len(b.core.members) > 0 || b.probesTo(victim) > 0 {
		t.Errorf("%d members, %d probes: %+v", len(b.core.members), b.probesTo(victim), b.done[done:])
	}
	b.fake(whole)
	if len(b.core.members) != 1 {
		t.Error("the offer itself is refused: this test shows nothing")
	}
}

// seal is an offer's box, sealed for a purpose that may be wrong.
func seal(tb testing.TB, from peer.Key, to *home, purpose string, offer wire.Offer) []byte {
	tb.Helper()
	server := serverKey.ID()
	box, err := from.Seal(to.key.ID(), purpose, server[:], offer.Append(nil))
	if err != nil {
		tb.Fatal(err)
	}
	return box
}

// The server brings an introduction again: at once, after the peer is forgotten,
// or that of a process which has a successor.
func TestReplayedIntroductionChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	victim := netip.MustParseAddrPort("198.51.100.99:53")
	old := introduced(t, a.key, wire.Offer{Instance: 7, Counter: 1, Nonce: [32]byte{1}}, b, a.public)
	niu := introduced(t, a.key, wire.Offer{Instance: 9, Counter: 1, Nonce: [32]byte{2}}, b, a.public)
	b.fake(old)
	w.run(time.Second)
	b.fake(niu)
	w.run(time.Second)
	again := func(when string, want uint64) {
		t.Helper()
		done := len(b.done)
		for _, x := range []rendezvous.AgentAction{old, niu} {
			x.Party.Observed = []netip.AddrPort{victim}
			b.fake(x)
		}
		if len(b.done) != done || b.probesTo(victim) > 0 {
			t.Errorf("%s: %+v", when, b.done[done:])
		}
		if n := b.core.Ignored()["replayed-offer"]; n != want {
			t.Errorf("%s: %d counted", when, n)
		}
	}
	again("at once", 2)
	w.run(2 * linger)
	if len(b.core.members) > 0 {
		t.Fatal("the peer was not forgotten")
	}
	again("after it was forgotten", 4)
	w.run(time.Minute)
	if b.probesTo(victim) > 0 {
		t.Error("the victim was probed")
	}
	b.fake(introduced(t, a.key, wire.Offer{Instance: 9, Counter: 2, Nonce: [32]byte{3}}, b, a.public))
	if len(b.core.members) != 1 {
		t.Error("a new offer was refused")
	}
}

// What is remembered of offers is bounded.
func TestOffersOfManyProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	b := w.home("b", delayB)
	b.core.cfg.Abilities = 0
	for i := range maxOrigins {
		b.core.offers[origin{b.key.ID(), uint64(i)}] = 1
	}
	b.fake(introduced(t, peer.NewKey([32]byte{50}), wire.Offer{Instance: 1, Counter: 1}, b, b.public))
	if n := len(b.core.offers); n != maxOrigins || len(b.core.members) != 1 {
		t.Errorf("%d offers remembered, %d members", n, len(b.core.members))
	}
}

// A peer that the policy does not name gets no address from the server and no
// packet from the node, even if the server introduces it all the same.
func TestPeerThatThePolicyDoesNotName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	friend := w.home("friend", delayA).listen()
	b := w.home("b", delayB, friend.key.ID()).listen()
	stranger := w.home("stranger", delayA).listen()
	stranger.dial(b)
	w.run(5 * time.Second)
	if in := stranger.happened(path.WasIntroduced, b); len(in) > 0 {
		t.Errorf("the stranger was introduced: %+v", in)
	}
	b.fake(introduced(t, stranger.key, wire.Offer{Instance: stranger.core.cfg.Instance, Counter: 1}, b, stranger.public))
	w.run(5 * time.Second)
	if n := b.core.Ignored()["not-allowed"]; n != 1 || len(b.core.members) > 0 || b.probesTo(stranger.public) > 0 {
		t.Errorf("%d counted, %d members, %d probes", n, len(b.core.members), b.probesTo(stranger.public))
	}
	friend.dial(b)
	w.until(time.Second, func() bool { return friend.direct(b) && b.direct(friend) })
}

// A router sends the node's own probes back to it, from where they went. They
// verify nowhere, so they open no route, and the relay stays in use.
func TestOwnProbesEchoedByARouter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	w.blocked = true
	w.strangers[b.public] = echo(w)
	w.strangers[a.public] = echo(w)
	a.dial(b)
	w.run(20 * time.Second)
	for _, h := range w.homes {
		other := w.homes[2-h.number]
		if slices.ContainsFunc(h.to(other, other.core.cfg.Instance), path.Route.Direct) || len(h.happened(path.RouteUp, other)) != 1 {
			t.Errorf("%s has routes %v", h.name, h.to(other, other.core.cfg.Instance))
		}
		if h.core.Ignored()["forged-probe"] == 0 {
			t.Errorf("%s counted nothing: %v", h.name, h.core.Ignored())
		}
		for k := range h.heard {
			if k.Channel == 0 {
				t.Errorf("%s takes data from %v", h.name, k)
			}
		}
	}
}

// echo sends a packet back to where it came from.
func echo(w *world) func(*home, punchPacket) {
	return func(from *home, p punchPacket) {
		w.at(w.now.Add(from.delay), func() { from.receive(punchPacket{p.to, p.from, p.data}) })
	}
}

// Somebody in our own home has the private address that the peer has in its own:
// whatever they answer, they are not the peer.
func TestStrangerWithThePeersPrivateAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	link := netip.MustParsePrefix("192.168.0.0/16") // so b's address is on a's link
	a.step(Input{
		Op: Network, Links: []netip.Prefix{link},
		Sockets: []path.LocalSocket{{Local: 1, Bound: netip.AddrPortFrom(netip.IPv4Unspecified(), a.private.Port())}},
	})
	// They send back what came, and try with keys of their own.
	mallory := peer.NewKey([32]byte{66})
	secret, err := mallory.Shared(a.key.ID())
	if err != nil {
		t.Fatal(err)
	}
	keys := wire.NewProbeKeys(secret, [32]byte{1}, mallory.ID(), a.key.ID())
	back := echo(w)
	w.strangers[b.private] = func(from *home, p punchPacket) {
		back(from, p)
		probe, err := wire.ParseProbe(p.data)
		if err != nil {
			return
		}
		keys.Session = probe.Session
		p.data = keys.AppendAnswer(nil, probe.ID, p.from)
		back(from, p)
		p.data = keys.AppendProbe(nil, probe.ID, 1<<40)
		back(from, p)
	}
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) })
	w.run(20 * time.Second)
	if n := a.probesTo(b.private); n == 0 || n > 10 {
		t.Errorf("%d probes to the private address", n)
	}
	for k := range a.heard {
		if k.To == b.private {
			t.Error("the stranger is heard as the peer")
		}
	}
	if n := a.core.Ignored()["forged-probe"]; n != uint64(3*a.probesTo(b.private)) {
		t.Errorf("%d counted of 3 for each of %d probes", n, a.probesTo(b.private))
	}
	if !a.direct(b) {
		t.Error("the real hole is gone")
	}
}

// Probes of introductions that the node does not know, and bytes that are none.
func TestStrayPacketsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a := w.home("a", delayA).listen()
	from := netip.MustParseAddrPort("198.51.100.99:53")
	mallory := peer.NewKey([32]byte{66})
	secret, err := mallory.Shared(a.key.ID())
	if err != nil {
		t.Fatal(err)
	}
	keys := wire.NewProbeKeys(secret, [32]byte{1}, mallory.ID(), a.key.ID())
	done := len(a.done)
	a.step(Input{Op: Packet, By: path.Key{Local: 1, To: from}, Data: keys.AppendProbe(nil, wire.TransactionID{1}, 1)})
	a.step(Input{Op: Packet, By: path.Key{Local: 1, To: from}, Data: wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil)})
	a.step(Input{Op: Packet, By: path.Key{Local: 1, To: from}})
	a.step(Input{Op: Packet, By: path.Key{Local: 1, To: server}, Data: []byte("not a message")})
	want := map[string]uint64{"unknown-session": 1, "malformed-probe": 2, "malformed-server-message": 1}
	got := a.core.Ignored()
	for word, n := range want {
		if got[word] != n {
			t.Errorf("%s: %d, want %d", word, got[word], n)
		}
	}
	if len(got) != len(want) || len(a.done) != done || a.probesTo(from) > 0 {
		t.Errorf("%v; %+v", got, a.done[done:])
	}
}

// FuzzPacket gives a node arbitrary bytes from a peer's endpoint, from a
// stranger's, and from the server's.
func FuzzPacket(f *testing.F) {
	w := newWorld(f, 1)
	a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
	a.dial(b)
	w.until(time.Second, func() bool { return a.direct(b) && b.direct(a) })
	genuine := map[string]bool{}
	for _, h := range w.homes {
		for _, p := range h.sent {
			f.Add(p.data)
			genuine[string(p.data)] = true
		}
	}
	var mu sync.Mutex // a fuzzer runs its seeds in parallel
	f.Fuzz(func(t *testing.T, data []byte) {
		if genuine[string(data)] {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		done, heard := len(a.done), len(a.heard)
		for _, from := range []netip.AddrPort{b.public, netip.MustParseAddrPort("198.51.100.99:53"), server} {
			a.step(Input{Op: Packet, By: path.Key{Local: 1, To: from}, Data: data})
		}
		if len(a.done) != done || len(a.heard) != heard {
			t.Fatalf("%x: %+v", data, a.done[done:])
		}
	})
}
