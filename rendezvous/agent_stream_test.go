package rendezvous

import (
	"slices"
	"testing"
	"time"
)

// via is by what the node is registered: "udp", "tcp", "tls" or nothing.
func (n *node) via() string {
	switch p := n.agent.primary; {
	case p == nil:
		return ""
	case p.stream == nil:
		return "udp"
	case p.stream.TLS:
		return "tls"
	}
	return "tcp"
}

func (n *node) openStreams() (count int) {
	for _, c := range n.w.conns {
		if c.node == n && c.open {
			count++
		}
	}
	return count
}

// race has a node of a network find its server, and says what it was registered by
// and after how long.
func race(t *testing.T, seed uint64, blocked ...string) (n *node, took time.Duration) {
	t.Helper()
	w := newWorld(t, seed)
	w.serve(Limits{})
	n = w.node("a", testKey(1), false)
	for _, b := range blocked {
		n.blocked[b] = true
	}
	n.step(AgentInput{Op: AgentUpdate, Description: []byte("a"), Accepting: true})
	begin := w.now
	n.findAll()
	w.until(30*time.Second, n.registered)
	return n, w.now.Sub(begin)
}

// UDP comes first, and where it works there is never a connection.
func TestUDPWinsTheRace(t *testing.T) {
	t.Parallel()
	n, took := race(t, 1)
	if n.via() != "udp" || took != 80*time.Millisecond || len(n.dialled) != 0 {
		t.Errorf("by %s after %v, dialled %v", n.via(), took, n.dialled)
	}
	n.w.run(10 * time.Minute)
	if n.via() != "udp" || len(n.dialled) != 0 {
		t.Errorf("later: by %s, dialled %v", n.via(), n.dialled)
	}
}

// A round trip to connect and two to register, after the head start of those before.
func TestRaceByWhatIsBlocked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		blocked []string
		via     string
		took    time.Duration
		dialled []string
	}{
		{[]string{"udp"}, "tcp", headStart + 120*time.Millisecond, []string{"tcp"}},
		{[]string{"udp", "tcp"}, "tls", 2*headStart + 120*time.Millisecond, []string{"tcp", "tls"}},
		{[]string{"tcp", "tls"}, "udp", 80 * time.Millisecond, nil},
	} {
		n, took := race(t, 2, c.blocked...)
		if n.via() != c.via || took != c.took || !slices.Equal(n.dialled, c.dialled) {
			t.Errorf("%v blocked: by %s after %v, dialled %v; want %s after %v, %v",
				c.blocked, n.via(), took, n.dialled, c.via, c.took, c.dialled)
		}
		n.w.run(5 * time.Minute) // and so it stays, with one connection at the most
		if n.via() != c.via || n.openStreams() > 1 || len(n.did(AgentLost)) != 0 {
			t.Errorf("%v blocked, later: by %s with %d connections, lost %d times",
				c.blocked, n.via(), n.openStreams(), len(n.did(AgentLost)))
		}
	}
}

// Where UDP loses packets a connection may be opened early; it ends UDP up.
func TestRaceOverLossyUDP(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		w := newWorld(t, seed)
		w.loss = 0.3
		w.serve(Limits{})
		n := w.node("a", testKey(1), false)
		n.step(AgentInput{Op: AgentUpdate, Description: []byte("a"), Accepting: true})
		n.findAll()
		w.until(10*time.Second, n.registered)
		w.loss = 0
		w.run(3 * time.Minute)
		if n.via() != "udp" || n.openStreams() != 0 {
			t.Errorf("seed %d: by %s with %d connections", seed, n.via(), n.openStreams())
		}
	}
}

// Nothing gets through for a while: the node says so, and is there when it does again.
func TestEverythingIsBlockedForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.serve(Limits{})
	n := w.node("a", testKey(1), false)
	n.blocked = map[string]bool{"udp": true, "tcp": true, "tls": true}
	n.findAll()
	w.run(time.Minute)
	if len(n.did(AgentFailed)) != 1 {
		t.Errorf("told %d times that there is no server", len(n.did(AgentFailed)))
	}
	if c := len(n.dialled); c < 6 || c > 24 {
		t.Errorf("%d connections in a minute", c)
	}
	n.blocked = map[string]bool{"udp": true, "tcp": true}
	w.until(redialMax*5/4+time.Second, n.registered)
	if n.via() != "tls" {
		t.Errorf("by %s", n.via())
	}
}

// Relayed data goes on when UDP is blocked under way, and when it is not any more: the
// channel is the same all along.
func TestRelayMovesWithTheServerLeg(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.serve(Limits{})
	b := w.register("b", testKey(2))
	a := w.node("a", testKey(1), false)
	a.step(AgentInput{Op: AgentUpdate, Description: []byte("a"), Accepting: true})
	a.findAll()
	w.until(time.Second, a.registered)
	ca, cb := w.introduce(a, b)
	passes := func(what string) {
		t.Helper()
		a.received, b.received = nil, nil
		a.say(ca, "over "+what)
		b.say(cb, "back by "+what)
		w.run(100 * time.Millisecond)
		if len(b.received) != 1 || b.received[0].data != "over "+what || len(a.received) != 1 || a.received[0].data != "back by "+what {
			t.Errorf("%s: a got %v, b got %v", what, a.received, b.received)
		}
		if d := a.last(AgentRegistered); d.Stream != (what != "udp") || d.TLS != (what == "tls") || d.To != a.agent.primary.ServerEndpoint {
			t.Errorf("%s: told %+v", what, d.AgentAction)
		}
	}
	passes("udp")
	a.blocked["udp"] = true
	w.until(20*time.Second, func() bool { return a.via() == "tcp" && a.registered() })
	passes("tcp")
	a.blocked["tcp"] = true
	a.cut()
	w.until(2*time.Second, func() bool { return a.via() == "tls" && a.registered() })
	passes("tls")
	a.blocked = map[string]bool{}
	w.until(secondLegPause+2*time.Second, func() bool { return a.via() == "udp" && a.registered() })
	passes("udp")
	w.run(streamLinger + time.Second)
	if a.openStreams() != 0 {
		t.Errorf("%d connections are left", a.openStreams())
	}
	for _, d := range append(a.did(AgentRegistered), b.did(AgentRegistered)...) {
		if d.Again {
			t.Error("the server had forgotten a node")
		}
	}
	if len(a.did(AgentChannelLost))+len(b.did(AgentChannelLost)) != 0 {
		t.Error("the channel did not live on")
	}
}

// With UDP blocked under way, a node is at its server again within seconds of missing it.
func TestDoubtFindsThatUDPIsBlocked(t *testing.T) {
	t.Parallel()
	n, _ := race(t, 5)
	n.blocked["udp"] = true
	n.step(AgentInput{Op: AgentDoubt})
	n.w.until(time.Second, func() bool { return n.via() == "tcp" && n.registered() })
	if len(n.did(AgentLost)) != 0 {
		t.Error("the registration was given up")
	}
}

// A node that wants it has a connection beside UDP, which the server tells of.
func TestConnectionBesideUDP(t *testing.T) {
	t.Parallel()
	n, _ := race(t, 6)
	n.step(AgentInput{Op: AgentKeepStream, Keep: true})
	n.w.run(time.Second)
	d := n.last(AgentRegistered)
	if n.via() != "udp" || n.openStreams() != 1 || len(d.Registered.ObservedTCP) != 1 || d.Registered.ObservedTCP[0] != n.w.conns[0].from {
		t.Fatalf("by %s, %d connections, %+v", n.via(), n.openStreams(), d.Registered)
	}
	n.w.run(10 * time.Minute)
	if n.via() != "udp" || len(n.dialled) != 1 {
		t.Errorf("by %s, dialled %v", n.via(), n.dialled)
	}
	n.cut()
	n.w.run(time.Second)
	if n.openStreams() != 1 || len(n.did(AgentLost)) != 0 {
		t.Errorf("%d connections after one was cut", n.openStreams())
	}
	n.step(AgentInput{Op: AgentKeepStream})
	n.w.run(streamLinger + time.Second)
	if n.openStreams() != 0 {
		t.Error("it is still there")
	}
}

// A server that was restarted gets its nodes back, not all in one moment.
func TestNodesComeBackOverTCP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7)
	w.serve(Limits{})
	var nodes []*node
	for i := range byte(20) {
		n := w.node("a", testKey(i), false)
		n.blocked["udp"] = true
		n.findAll()
		nodes = append(nodes, n)
	}
	w.run(2 * time.Second)
	w.stop(server4, server6)
	for _, n := range nodes {
		n.cut()
	}
	w.run(10 * time.Second)
	w.serve(Limits{})
	w.run(15 * time.Second)
	at := make(map[time.Time]bool)
	for _, n := range nodes {
		if n.via() == "" {
			t.Fatal("a node is not back")
		}
		at[n.last(AgentRegistered).at] = true
	}
	if len(at) < 10 {
		t.Errorf("20 nodes came back at %d moments", len(at))
	}
}

// A connection on which nothing is answered is given up.
func TestDeadConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	n, _ := race(t, 8, "udp")
	n.blocked["tcp"] = true // from now on it takes, and delivers nothing
	n.w.until(time.Minute, func() bool { return n.via() == "tls" })
}
