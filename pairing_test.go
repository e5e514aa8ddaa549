package bodkin_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"bodkin"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// paired is what came of a pairing on one side.
type paired struct {
	id  peer.ID
	err error
}

func waitFor(ctx context.Context, i *bodkin.Invitation) <-chan paired {
	out := make(chan paired, 1)
	go func() {
		id, err := i.Wait(ctx)
		out <- paired{id, err}
	}()
	return out
}

func invite(t *testing.T, n *bodkin.Node) *bodkin.Invitation {
	t.Helper()
	i, err := n.Invite(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

// Two nodes that let nobody in meet by a code, let each other in, and connect.
func TestPairingMakesTwoNodesKnownToEachOther(t *testing.T) {
	t.Parallel()
	s, _ := startServer(t, rendezvous.ServerConfig{})
	url, ctx := localURL(s), testContext(t)
	a := startNode(t, bodkin.Config{Server: url, Peers: []peer.ID{}})
	b := startNode(t, bodkin.Config{Server: url, Peers: []peer.ID{}})
	echo(t, a, "echo")
	i := invite(t, a)
	if err := bodkin.CheckCode(i.Code()); err != nil || time.Until(i.Until()) > bodkin.DefaultCodeLife {
		t.Errorf("code %q until %v, %v", i.Code(), i.Until(), err)
	}
	wait := waitFor(ctx, i)
	id, err := b.Join(ctx, i.Code())
	if id != a.ID() || err != nil {
		t.Fatalf("joined %v, %v", id, err)
	}
	joined := <-wait
	if joined.id != b.ID() || joined.err != nil {
		t.Fatalf("invited %v, %v", joined.id, joined.err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Dial(ctx, id, "echo"); !errors.Is(err, bodkin.ErrNotReachable) {
		t.Errorf("before it was let in: %v", err)
	}
	if err := a.SetPeers([]peer.ID{joined.id}); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := b.Dial(ctx, id, "echo")
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, c)
	// And out again: nothing new, also on the session that is there.
	if err := a.SetPeers([]peer.ID{newKey(t).ID()}); err != nil {
		t.Fatal(err)
	}
	c, err = b.Dial(ctx, id, "echo")
	if err != nil {
		t.Fatal(err)
	}
	var refused *bodkin.RefusedError
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &refused) {
		t.Errorf("after it was put out again: %v", err)
	}
}

// A guest is let in to one service, until the end, whatever else the policy says.
func TestGuestsMayUseOneService(t *testing.T) {
	t.Parallel()
	s, _ := startServer(t, rendezvous.ServerConfig{})
	url, ctx := localURL(s), testContext(t)
	a := startNode(t, bodkin.Config{
		Server: url, Peers: []peer.ID{newKey(t).ID()}, Allow: func(peer.ID, string) bool { return false },
	})
	b := startNode(t, bodkin.Config{Server: url})
	echo(t, a, "echo")
	echo(t, a, "other")
	if _, err := a.Admit(b.ID(), ""); err == nil {
		t.Error("admitted to a service without a name")
	}
	end, err := a.Admit(b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.Admit(b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	refused := func(service string) bool {
		t.Helper()
		c, err := b.Dial(ctx, a.ID(), service)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Abort() }()
		var refused *bodkin.RefusedError
		if _, err := c.Write([]byte("x")); err != nil {
			return errors.As(err, &refused)
		}
		_, err = c.Read(make([]byte, 1))
		return errors.As(err, &refused)
	}
	if refused("echo") || !refused("other") {
		t.Error("a guest may use the wrong service")
	}
	again()
	again()
	if refused("echo") {
		t.Error("of two admissions one is left, and it is refused")
	}
	end()
	if !refused("echo") {
		t.Error("still let in after the end")
	}
	var ends []func()
	for {
		end, err := a.Admit(newKey(t).ID(), "echo")
		if err != nil {
			break
		}
		ends = append(ends, end)
	}
	if len(ends) != rendezvous.MaxPeers-1 {
		t.Errorf("%d guests", len(ends))
	}
}

func TestCodesAreGoodForOneTry(t *testing.T) {
	t.Parallel()
	s, _ := startServer(t, rendezvous.ServerConfig{})
	url, ctx := localURL(s), testContext(t)
	a, b := startNode(t, bodkin.Config{Server: url}), startNode(t, bodkin.Config{Server: url})
	c := startNode(t, bodkin.Config{Server: url})
	fails := func(n *bodkin.Node, code string, want error) {
		t.Helper()
		if id, err := n.Join(ctx, code); !errors.Is(err, want) || !id.IsZero() {
			t.Errorf("joined %v by %s, %v; want %v", id, code, err, want)
		}
	}
	i := invite(t, a)
	fails(a, i.Code(), bodkin.ErrOwnCode)
	fails(b, i.Code()+"x", bodkin.ErrBadCode)
	wait := waitFor(ctx, i)
	fails(b, wrongWords(i.Code()), bodkin.ErrWrongCode)
	if got := <-wait; !errors.Is(got.err, bodkin.ErrCodeTried) {
		t.Errorf("the inviter got %v, %v", got.id, got.err)
	}
	fails(b, i.Code(), bodkin.ErrCodeUsed)
	fails(c, i.Code(), bodkin.ErrCodeUsed)
	fails(c, "4000000000-lantern-copper", bodkin.ErrNoCode)

	i = invite(t, a)
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	ended := invite(t, a) // the server has heard by now
	fails(c, i.Code(), bodkin.ErrNoCode)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := ended.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waited until %v", err)
	}
	if _, err := a.InviteFor(ctx, 0); err == nil {
		t.Error("a code that is good for no time")
	}
}

// wrongWords is a code of the same number.
func wrongWords(code string) string {
	for _, other := range bodkin.CompleteCode(code[:len(code)-len(lastWord(code))]) {
		if other != code {
			return other
		}
	}
	return ""
}

func lastWord(code string) string {
	for i := len(code) - 1; ; i-- {
		if code[i] == '-' {
			return code[i+1:]
		}
	}
}
