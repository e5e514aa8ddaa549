package bodkin_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
)

// serverlessLab is two homes, and nothing that listens at the server's place.
func serverlessLab(t *testing.T, a natlab.Preset) homes {
	t.Helper()
	netbed.Need(t)
	l, err := netbed.Kernel.Start(t.Context(), natlab.TwoHomes(natlab.Options{PresetA: a, PresetB: natlab.Linux}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return homes{Lab: l}
}

// pair is a node at a that knows where the one at b is, which listens.
func (h homes) pair(t *testing.T) (a, b *bodkin.Node) {
	t.Helper()
	key := newKey(t)
	b = startNode(t, bodkin.Config{Network: h.Host("b"), Serverless: &bodkin.Serverless{}, Peers: []peer.ID{key.ID()}})
	echo(t, b, "echo")
	a = startNode(t, bodkin.Config{Key: key, Network: h.Host("a"), Serverless: &bodkin.Serverless{
		Peers: map[peer.ID]netip.AddrPort{b.ID(): netip.AddrPortFrom(h.Box("home-b").Addr(), 0)},
	}})
	return a, b
}

// A public client reaches a listener behind an ordinary NAT, and nobody else is there.
func TestServerless(t *testing.T) {
	t.Parallel()
	a, b := serverlessLab(t, natlab.Open).pair(t)
	begin := time.Now()
	if _, err := a.Dial(testContext(t), b.ID(), "echo"); err != nil {
		t.Fatal(err)
	}
	t.Logf("connected after %v", time.Since(begin))
	transfer(t, a, b, 256<<10, func() {})
}

// A NAT in front of the client keeps its message in, and the error says so.
func TestServerlessFromBehindNAT(t *testing.T) {
	t.Parallel()
	a, b := serverlessLab(t, natlab.Linux).pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := a.Dial(ctx, b.ID(), "echo")
	if err == nil {
		t.Fatal("connected")
	}
	if !strings.Contains(err.Error(), "it is this side") {
		t.Error(err)
	}
	t.Log(err)
}
