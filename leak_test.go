package bodkin_test

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"bodkin"
	"bodkin/rendezvous"
)

// After Close nothing of a node runs any more, nor of QUIC beneath. Tests in fake time
// find that out by themselves; this one has the system's sockets. It is not parallel:
// no other test runs beside it.
//
//nolint:paralleltest // see above
func TestNothingRunsAfterClose(t *testing.T) {
	ctx := testContext(t)
	s, stop := startServer(t, rendezvous.ServerConfig{})
	a, b := startNode(t, bodkin.Config{Server: localURL(s)}), startNode(t, bodkin.Config{Server: localURL(s)})
	echo(t, b, "echo")
	must(t, b.WaitRegistered(ctx))
	events := a.Events(ctx)
	c, err := a.Dial(ctx, b.ID(), "echo")
	must(t, err)
	untilDirect(t, ctx, events)
	_, err = c.Write([]byte("x"))
	must(t, err)
	_, err = io.ReadFull(c, make([]byte, 1))
	must(t, err)
	must(t, a.Close())
	must(t, b.Close())
	stop()
	for left := running(); left != ""; left = running() {
		if ctx.Err() != nil {
			t.Fatalf("still running:\n%s", left)
		}
		time.Sleep(time.Millisecond) // what was told to end has to get its turn
	}
}

// running is the goroutines of this module and of QUIC, but for tests.
func running() string {
	b := make([]byte, 1<<20)
	var left []string
	for g := range strings.SplitSeq(string(b[:runtime.Stack(b, true)]), "\n\n") {
		if (strings.Contains(g, "bodkin/internal/") || strings.Contains(g, "bodkin/rendezvous.") ||
			strings.Contains(g, "bodkin.(*") || strings.Contains(g, "quic-go")) && !strings.Contains(g, "testing.tRunner") {
			left = append(left, g)
		}
	}
	return strings.Join(left, "\n\n")
}
