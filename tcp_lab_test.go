package bodkin_test

import (
	"testing"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/rendezvous"
)

var tcpOnly = bodkin.Config{Transports: []string{"tcp"}}

// A hole by TCP alone, between real kernels behind real NATs: the SYNs cross.
func TestHoleByTCPBetweenTwoHomes(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{}, rendezvous.Limits{})
	a, b := h.node(t, "a", tcpOnly), h.node(t, "b", tcpOnly)
	echo(t, b, "echo")
	ctx := testContext(t)
	if err := a.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	events := a.Events(ctx)
	begin := time.Now()
	if _, err := a.Dial(ctx, b.ID(), "echo"); err != nil {
		t.Fatal(err)
	}
	if d := untilDirect(t, ctx, events).Sub(begin); d < 160*time.Millisecond {
		t.Errorf("direct after %v, which is sooner than light", d)
	} else {
		t.Logf("direct after %v; light takes 160ms", d)
	}
	pong, err := a.Ping(ctx, b.ID())
	if err != nil || pong.Route.Transport != "tcp" {
		t.Errorf("pinged by %v: %v", pong.Route, err)
	}
	transfer(t, a, b, 4<<20, func() {})
}

// Where both homes block UDP the nodes know each other by the server's TCP, and punch by
// it.
func TestHoleByTCPWhereUDPIsBlocked(t *testing.T) {
	t.Parallel()
	h := startStreams(t, natlab.Options{PresetA: natlab.UDPBlocked, PresetB: natlab.UDPBlocked}, true, false)
	a, b := h.node(t, "a", bodkin.Config{}), h.node(t, "b", bodkin.Config{})
	echo(t, b, "echo")
	direct(t, a, b)
	if r, err := a.Ping(testContext(t), b.ID()); err != nil || r.Route.Transport != "tcp" {
		t.Errorf("%v, %v", r.Route, err)
	}
}
