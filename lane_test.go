package bodkin_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// lane is two nodes whose machines can move, in fake time, and a server that can.
type lane struct {
	*testing.T
	net    *natlab.Live
	names  *names
	server func() // ends it
	cfg    rendezvous.ServerConfig
	a, b   *bodkin.Node
	at     [2]*machine
	url    string
	keyB   peer.Key
	events []bodkin.Event // of a
	mu     sync.Mutex     // of events
}

const serverName = "rendezvous.test"

// began is when the process did, but for a moment.
var began = time.Now()

// toThePresent moves fake time, which begins with the year 2000, on to when the
// process began. QUIC's clock counts from there, and what has no time has its zero:
// with fake time before that, a lost probe of a path is never given up, and the
// 20,000th packet after it is the last that QUIC sends.
func toThePresent() { time.Sleep(time.Until(began)) } // of fake time

func newLane(t *testing.T) *lane {
	t.Helper()
	toThePresent()
	top := natlab.TwoHomes(natlab.Options{})
	for _, x := range []string{"c", "d"} {
		top.Boxes = append(top.Boxes, natlab.Box{Name: "home-" + x, Link: natlab.Link{Delay: 25 * time.Millisecond}})
		top.Hosts = append(top.Hosts, natlab.Host{Name: x, Behind: "home-" + x})
	}
	top.Hosts = append(top.Hosts, natlab.Host{Name: "server2", Link: natlab.Link{Delay: 10 * time.Millisecond}})
	l, err := natlab.NewLive(top)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	x := &lane{T: t, net: l, names: &names{}, cfg: rendezvous.ServerConfig{Key: newKey(t)}}
	x.serve("server")
	x.url, x.keyB = rendezvous.URL{Host: serverName, Port: 3478, ID: x.cfg.Key.ID()}.String(), newKey(t)
	for i, hosts := range [][]string{{"a", "c"}, {"b", "d"}} {
		m := &machine{names: x.names, woken: make(chan struct{})}
		for _, h := range hosts {
			m.hosts = append(m.hosts, l.Host(h))
		}
		x.at[i] = m
	}
	x.a = startNode(t, bodkin.Config{Server: x.url, Network: x.at[0]})
	x.b = startNode(t, bodkin.Config{Key: x.keyB, Server: x.url, Network: x.at[1]})
	return x
}

// serve starts the server on a host, in place of one that runs.
func (x *lane) serve(host string) {
	x.Helper()
	h := x.net.Host(host)
	x.cfg.Network, x.cfg.Listen = h, []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 3478)}
	_, x.server = startServer(x.T, x.cfg)
	x.names.set(h.Addr())
}

func (x *lane) home(box string) netip.Addr {
	x.Helper()
	return public(x.T, x.net, box)
}

// follow keeps a's events.
func (x *lane) follow(ctx context.Context) {
	events := x.a.Events(ctx)
	go func() {
		for e := range events {
			x.mu.Lock()
			x.events = append(x.events, e)
			x.mu.Unlock()
		}
	}()
}

// direct reports whether traffic of both takes a direct route.
func (x *lane) direct() bool { return goesDirect(x.a) && goesDirect(x.b) }

func goesDirect(n *bodkin.Node) bool {
	p := n.Status().Peers
	return len(p) == 1 && len(p[0].Routes) > 0 && p[0].Routes[0].Direct()
}

// until waits for something in fake time, and says how long it took.
func (x *lane) until(what string, limit time.Duration, ok func() bool) time.Duration {
	x.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			x.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(10 * time.Millisecond) // of fake time
	}
	return time.Since(begin)
}
