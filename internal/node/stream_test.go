package node

import (
	"slices"
	"testing"
	"time"

	"bodkin/internal/path"
	"bodkin/nat"
)

// tcpHome is a node that punches by TCP, too.
func tcpHome(w *world, name string, profile *nat.Profile) *home {
	h := w.home(name, 20*time.Millisecond)
	h.tcp, h.profile = true, profile
	return h
}

// connectedAt is when the node asked for its first connection to the server, counted
// from begin; 0 if it did not.
func (h *home) connectedAt(begin time.Time) time.Duration {
	all := h.did(Connect)
	if len(all) == 0 {
		return 0
	}
	return all[0].at.Sub(begin)
}

// Where holes open by UDP no node has a connection to its server.
func TestNoConnectionWhereUDPDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := tcpHome(w, "a", &endpointIndependent), tcpHome(w, "b", &endpointIndependent)
	a.start()
	b.start()
	b.listen()
	a.dial(b)
	w.run(time.Minute)
	if !a.direct(b) || a.streams+b.streams != 0 {
		t.Errorf("direct %v, %d and %d connections", a.direct(b), a.streams, b.streams)
	}
}

// When no hole opens for a while both sides let the server see their TCP, and the one
// that wants the other asks again.
func TestConnectionWhenNoHoleOpens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.blocked = true
	a, b := tcpHome(w, "a", &endpointIndependent), tcpHome(w, "b", &endpointIndependent)
	a.start()
	b.start()
	b.listen()
	begin := w.now
	a.dial(b)
	w.run(byTCPAfter + candidatesWait)
	for _, h := range []*home{a, b} {
		if d := h.connectedAt(begin); d < byTCPAfter || d > byTCPAfter+100*time.Millisecond {
			t.Errorf("%s connects after %v", h.name, d)
		}
		if got := h.core.self.Side.ObservedTCP; !slices.Contains(got, h.seenByTCP()) {
			t.Errorf("the server sees %s's TCP at %v", h.name, got)
		}
	}
	if n := len(a.happened(path.WasIntroduced, b)); n != 2 {
		t.Errorf("introduced %d times", n)
	}
}

const candidatesWait = 3 * time.Second

// A node whose UDP is blocked dials one that has no connection yet: that one gets one at
// once, and tells the other.
func TestPeerOfABlockedNodeConnects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	a, b := tcpHome(w, "a", nil), tcpHome(w, "b", &endpointIndependent)
	a.noUDP = true
	a.start()
	b.start()
	b.listen()
	w.until(5*time.Second, func() bool { return a.core.up })
	if got := a.did(Registered); got[len(got)-1].Via != ViaTCP || b.did(Registered)[0].Via != ViaUDP {
		t.Fatalf("a by %s", got[len(got)-1].Via)
	}
	begin := w.now
	a.dial(b)
	w.until(time.Second, func() bool { return b.streams > 0 })
	w.until(time.Second, func() bool { return len(b.happened(path.WasIntroduced, a)) == 2 })
	if d := w.now.Sub(begin); d > 1200*time.Millisecond || !b.core.byOverlay[b.core.members[0].overlay].byTCP {
		t.Errorf("introduced with both sides' TCP after %v", d)
	}
}

// A node whose own UDP mapping is another for every destination has a connection.
func TestConnectionBehindAHardNAT(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	hard := nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent}
	a := tcpHome(w, "a", &hard)
	a.start()
	w.run(2 * time.Second)
	if a.streams != 1 || a.core.self.Side.ServerRTT != 60*time.Millisecond {
		t.Errorf("%d connections, round trip %v", a.streams, a.core.self.Side.ServerRTT)
	}
	// One that does not punch by TCP has none.
	b := w.home("b", 20*time.Millisecond)
	b.profile = &hard
	b.start()
	w.run(2 * time.Second)
	if b.streams != 0 {
		t.Error("a connection for nothing")
	}
}

var endpointIndependent = nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent}
