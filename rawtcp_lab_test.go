package bodkin_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"bodkin"
	"bodkin/natlab"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// tcpPair is a plain connection through the NATs of two homes, and its two nodes.
func tcpPair(t *testing.T, h homes) (a, b *bodkin.Node, out, in *bodkin.TCPConn, l net.Listener) {
	t.Helper()
	a, b = h.node(t, "a", tcpOnly), h.node(t, "b", bodkin.Config{})
	l, err := b.ListenTCP("plain")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out, in = dialTCP(t, a, b, l)
	return a, b, out, in, l
}

func dialTCP(t *testing.T, a, b *bodkin.Node, l net.Listener) (out, in *bodkin.TCPConn) {
	t.Helper()
	ctx := testContext(t)
	if err := b.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	out, err := a.DialTCP(ctx, b.ID(), "plain")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in = c.(*bodkin.TCPConn)
	if out.Peer() != b.ID() || in.Peer() != a.ID() || in.Service() != "plain" || out.Route().Transport != "tcp" {
		t.Errorf("%v %v %v %v", out.Peer(), in.Peer(), in.Service(), out.Route())
	}
	return out, in
}

// A hole by TCP becomes TLS over the kernel's own TCP: bytes go both ways, each direction
// has its end, and the session beside it goes on. Another node can have one, too.
func TestPlainConnectionThroughTwoNATs(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{}, rendezvous.Limits{})
	a, b, out, in, l := tcpPair(t, h)
	sent := make([]byte, 8<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = out.Write(sent)
		_ = out.CloseWrite()
	}()
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(sent), err)
	}
	if _, err := io.WriteString(in, "thank you"); err != nil {
		t.Error(err)
	}
	_ = in.Close()
	if got, err := io.ReadAll(out); string(got) != "thank you" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_ = out.Close()
	// Over the session everything else goes on.
	if _, err := a.Ping(testContext(t), b.ID()); err != nil {
		t.Error(err)
	}
	out, in = dialTCP(t, h.node(t, "a", tcpOnly), b, l)
	_ = out.Abort()
	if n, err := in.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection that broke off: %d, %v", n, err)
	}
}

func TestPlainConnectionThatIsNotToBeHad(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{}, rendezvous.Limits{})
	a, b := h.node(t, "a", bodkin.Config{Transports: []string{"udp"}}), h.node(t, "b", bodkin.Config{})
	echo(t, b, "echo")
	ctx := testContext(t)
	if err := b.WaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.DialTCP(ctx, b.ID(), "plain"); !errors.Is(err, bodkin.ErrNoTCP) || !strings.Contains(err.Error(), "reached by udp") {
		t.Errorf("by a node that punches by UDP: %v", err)
	}
	if _, err := a.DialTCP(ctx, b.ID(), ""); err == nil {
		t.Error("to a service without a name")
	}
}

func TestPlainConnectionIsRefused(t *testing.T) {
	t.Parallel()
	h := startHomes(t, natlab.Options{}, rendezvous.Limits{})
	a, b := h.node(t, "a", tcpOnly), h.node(t, "b", bodkin.Config{
		Allow: func(_ peer.ID, service string) bool { return service != "secret" },
	})
	echo(t, b, "echo")
	if err := b.WaitRegistered(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for service, says := range map[string]bool{"nobody": true, "secret": false} {
		_, err := a.DialTCP(testContext(t), b.ID(), service)
		refused := (*bodkin.RefusedError)(nil)
		if !errors.As(err, &refused) || refused.NoService() != says {
			t.Errorf("%s: %v", service, err)
		}
	}
}
