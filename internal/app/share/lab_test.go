package share_test

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/app/share"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
	"bodkin/rendezvous"
)

func TestMain(m *testing.M) { netbed.Main(m) }

// labNode is a node as package share knows it.
type labNode struct{ *bodkin.Node }

func (n labNode) Dial(ctx context.Context, id peer.ID, service string) (share.Conn, error) {
	c, err := n.Node.Dial(ctx, id, service)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (n labNode) Listen(ctx context.Context, service string) (share.Listener, error) {
	l, err := n.Node.Listen(service)
	if err != nil {
		return nil, err
	}
	return labListener{l}, n.WaitRegistered(ctx)
}

func (n labNode) Route(_ context.Context, id peer.ID) (r bodkin.Route) {
	for _, p := range n.Status().Peers {
		if p.ID == id && len(p.Routes) > 0 && !r.Direct() {
			r = p.Routes[0]
		}
	}
	return r
}

type labListener struct{ net.Listener }

func (l labListener) Accept() (share.Conn, peer.ID, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, peer.ID{}, err
	}
	conn := c.(*bodkin.Conn)
	return conn, conn.Peer(), nil
}

// Between two homes with 5% loss the receiver's node ends in the middle, without a word to
// package share, and another one with the same key goes on over a direct route.
func TestResumedBetweenTwoHomes(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	lab, err := netbed.Start(ctx, natlab.TwoHomes(natlab.Options{
		DelayA: time.Millisecond, DelayB: time.Millisecond, DelayS: time.Millisecond, Loss: 0.025,
	}))
	must(t, err)
	t.Cleanup(lab.Close)
	url := serve(t, lab.Host("server"))
	keyB, err := peer.GenerateKey()
	must(t, err)
	a, b := start(t, url, lab.Host("a"), peer.Key{}), start(t, url, lab.Host("b"), keyB)

	dir, to := t.TempDir(), t.TempDir()
	data := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(data)
	must(t, os.WriteFile(filepath.Join(dir, "large"), data, 0o640))
	src, err := share.Paths(keyB, filepath.Join(dir, "large"))
	must(t, err)
	begun := make(chan *share.Progress, 8)
	s := &share.Sender{Node: labNode{a}, Source: src, Options: share.Options{
		DirectOnly: true, Rate: 2 << 20, Notice: func(n share.Notice) {
			if n.Kind == share.NoticeBegun {
				begun <- n.Progress
			}
		},
	}}
	sent := make(chan error, 1)
	go func() { sent <- s.To(ctx, b.ID()) }()

	first, stop := context.WithCancel(ctx)
	received := make(chan error, 1)
	l, err := labNode{b}.Listen(ctx, share.Service)
	must(t, err)
	go func() {
		_, err := (&share.Receiver{Node: labNode{b}, Place: to, Rule: share.RuleRename}).Serve(first, l, nil)
		received <- err
	}()
	progress := <-begun
	for progress.Counts().Got < 1<<20 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("it does not get on")
		}
	}
	_ = b.Close()
	stop()
	if err := <-received; err == nil {
		t.Fatal("it was there before the end")
	}
	b = start(t, url, lab.Host("b"), keyB)
	l, err = labNode{b}.Listen(ctx, share.Service)
	must(t, err)
	out, err := (&share.Receiver{Node: labNode{b}, Place: to, Rule: share.RuleRename}).Serve(ctx, l, nil)
	must(t, err)
	must(t, <-sent)
	got, err := os.ReadFile(filepath.Join(to, "large"))
	must(t, err)
	if sha256.Sum256(got) != sha256.Sum256(data) {
		t.Error("another file arrived")
	}
	if out.Counts.Kept == 0 {
		t.Error("all of it was sent again")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a rendezvous server.
func serve(t *testing.T, h *netbed.Host) (url string) {
	t.Helper()
	key, err := peer.GenerateKey()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), rendezvous.DefaultPort)},
	})
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s.URL(h.Addr().String()).String()
}

// start starts a node, with a key of its own if none is given.
func start(t *testing.T, url string, h *netbed.Host, key peer.Key) *bodkin.Node {
	t.Helper()
	if key.IsZero() {
		var err error
		key, err = peer.GenerateKey()
		must(t, err)
	}
	n, err := bodkin.Start(t.Context(), bodkin.Config{Key: key, Server: url, Network: h, NoPortMap: true})
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}
