package portmap_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin"
	"bodkin/peer"
	"bodkin/portmap"
	"bodkin/rendezvous"
)

// Whole nodes, and what they gain by asking the router.

// rendezvousAt runs a server on a host and returns its URL.
func (h *home) rendezvousAt(host string) string {
	h.t.Helper()
	at := h.Host(host)
	s, err := rendezvous.NewServer(h.t.Context(), rendezvous.ServerConfig{
		Key: key(h.t), Network: at, Listen: []netip.AddrPort{netip.AddrPortFrom(at.Addr(), 3478)},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	return s.URL(at.Addr().String()).String()
}

func key(t *testing.T) peer.Key {
	t.Helper()
	k, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// node starts a node on a host; it asks the routers by these protocols, or not.
func (h *home) node(t *testing.T, host, url string, protocols ...portmap.Protocol) *bodkin.Node {
	t.Helper()
	n, err := bodkin.Start(t.Context(), bodkin.Config{
		Key: key(t), Server: url, Network: h.Host(host), NoPortMap: len(protocols) == 0,
		PortMap: &portmap.Config{Protocols: protocols, Network: h.Host(host), Gateways: h.gateways(host)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// awaitNode waits for an event of a node's.
func awaitNode(t *testing.T, n *bodkin.Node, ok func(e bodkin.Event) bool) bodkin.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for e := range n.Events(ctx) {
		if ok(e) {
			return e
		}
	}
	t.Fatalf("no such event: %v", ctx.Err())
	return bodkin.Event{}
}

func mapped(e bodkin.Event) bool { return e.Kind == bodkin.EventMapped }

// Two homes whose routers take random ports for each peer never meet. One of them
// has a daemon.
func TestNodesBehindRandomPortsMeetByAMapping(t *testing.T) {
	t.Parallel()
	runs := 10
	if testing.Short() {
		runs = 2
	}
	for _, by := range []portmap.Protocol{portmap.PCP, portmap.NATPMP} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			h := startHome(t, daemonOptions{NATPMP: true, Far: true})
			url := h.rendezvousAt("world")
			var took []time.Duration
			for run := range runs {
				took = append(took, meet(t, h, url, run%2 == 0, by))
			}
			slices.Sort(took)
			t.Logf("%d of %d direct, after %v to %v, median %v; plain punching needs 160ms", len(took), runs, took[0], took[runs-1], took[runs/2])
		})
	}
}

// meet has two new nodes dial, and says how long it took until they were direct.
func meet(t *testing.T, h *home, url string, mappedDials bool, by portmap.Protocol) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a := h.node(t, "a", url, by)
	defer func() { _ = a.Close() }()
	if e := awaitNode(t, a, mapped); e.Endpoint.Addr() != h.Box("home").Addr() {
		t.Errorf("mapped at %v", e.Endpoint)
	}
	far := h.node(t, "far", url)
	defer func() { _ = far.Close() }()
	dialler, other := far, a
	if mappedDials {
		dialler, other = a, far
	}
	l, err := other.Listen("service")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, n := range []*bodkin.Node{other, dialler} {
		if err := n.WaitRegistered(ctx); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	c, err := dialler.Dial(ctx, other.ID(), "service")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	e := awaitNode(t, dialler, func(e bodkin.Event) bool { return e.Kind == bodkin.EventSwitched && e.Route.Direct() })
	return e.Time.Sub(begin)
}

// A node that is closed leaves nothing on the router.
func TestNodeGivesItsMappingBack(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{NATPMP: true})
	url := h.rendezvousAt("world")
	a := h.node(t, "a", url, portmap.PCP)
	e := awaitNode(t, a, mapped)
	if got := a.Status().Mapped; !slices.Contains(got, e.Endpoint) {
		t.Errorf("status says %v, the event %v", got, e.Endpoint)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// The port is free for another host.
	b, _ := h.client("b", portmap.PCP)
	if g := h.granted(want(t, b, portmap.Request{Internal: wildcard(6000), External: e.Endpoint.Port()})); g.External != e.Endpoint {
		t.Errorf("granted %v, want %v", g.External, e.Endpoint)
	}
}
