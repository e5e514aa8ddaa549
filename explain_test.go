package bodkin_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/rendezvous"
)

// explained is what a says of b, whole nodes between two NATs in fake time, after a
// change to the network.
func explained(t *testing.T, o natlab.Options, change func(*natlab.Live)) (e bodkin.Explanation, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, err := natlab.NewLive(natlab.TwoHomes(o))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		h := l.Host("server")
		s, _ := startServer(t, rendezvous.ServerConfig{
			Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478), netip.AddrPortFrom(h.Addr(), 3479)},
		})
		url := s.URL(h.Addr().String()).String()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		b := startNode(t, bodkin.Config{Server: url, Network: l.Host("b")})
		echo(t, b, "echo")
		if err := b.WaitRegistered(ctx); err != nil {
			t.Fatal(err)
		}
		a := startNode(t, bodkin.Config{Server: url, Network: l.Host("a")})
		if change != nil {
			change(l)
		}
		events := a.Events(ctx)
		begin := time.Now()
		if e, err = a.Explain(ctx, b.ID()); err != nil {
			t.Fatal(err)
		}
		took = time.Since(begin)
		// What was found out is in the status, too.
		if p := a.Status().Peers; e.Attempt != nil && (len(p) != 1 || p[0].Attempt == nil || !slices.Equal(p[0].Attempt.Tactics, e.Attempt.Tactics)) {
			t.Errorf("status: %+v", p)
		}
		if e.Way != "relay" {
			return
		}
		for ended := range events {
			// One is interrupted when a NAT has been measured.
			if ended.Kind == bodkin.EventAttemptEnded && ended.Tactics[0].Result == "no hole" && ended.Tactics[0].Probes > 0 {
				return
			}
		}
		t.Error("no event tells how the attempt ended")
	})
	return e, took
}

func blockHomes(l *natlab.Live) {
	a, _ := l.Place("home-a")
	b, _ := l.Place("home-b")
	l.Block(natlab.Between(a.Addr[0].Addr(), b.Addr[0].Addr()))
}

func TestExplain(t *testing.T) {
	t.Parallel()
	random := natlab.SymmetricRandom
	for name, c := range map[string]struct {
		o      natlab.Options
		change func(*natlab.Live)
		way    string
		blame  []bodkin.Blame
	}{
		"direct":          {natlab.Options{}, nil, "direct", nil},
		"both random":     {natlab.Options{PresetA: random, PresetB: random}, nil, "relay", []bodkin.Blame{{Side: "both", Layer: "mapping"}}},
		"blocked between": {natlab.Options{}, blockHomes, "relay", []bodkin.Blame{{Side: "between", Layer: "filtering"}}},
		"no UDP here": {
			natlab.Options{PresetA: natlab.UDPBlocked},
			nil, "none",
			[]bodkin.Blame{{Side: "ours", Layer: "udp"}, {Side: "server", Layer: "offline"}},
		},
		"the peer has gone": {
			natlab.Options{},
			func(l *natlab.Live) { _ = l.SetLink("b", natlab.Link{Loss: 1}) }, "none",
			[]bodkin.Blame{{Side: "theirs", Layer: "offline"}, {Side: "theirs", Layer: "udp"}, {Side: "server", Layer: "policy"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, took := explained(t, c.o, c.change)
			if e.Version != 1 || e.Way != c.way || !slices.Equal(e.Blame, c.blame) || e.Pending || e.Reason == "" ||
				(c.way == "direct") != e.Route.Direct() || (len(c.blame) > 0) != (len(e.Help) > 0) {
				t.Errorf("%+v", e)
			}
			if c.way == "direct" && (e.Attempt.Won != "plain" || e.Attempt.First == 0) {
				t.Errorf("%+v", e.Attempt)
			}
			if c.way == "relay" && e.Attempt.Tactics[0].Result != "no hole" {
				t.Errorf("%+v", e.Attempt)
			}
			t.Logf("after %v: %s", took, e.Reason)
		})
	}
}

func TestExplainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	n := startNode(t, bodkin.Config{Server: "bodkin://192.0.2.1/" + newKey(t).ID().String()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Explain(ctx, newKey(t).ID()); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	_ = n.Close()
	if _, err := n.Explain(t.Context(), newKey(t).ID()); !errors.Is(err, bodkin.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
