package cli

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/internal/control"
)

// lookedAt is a node that is only looked at.
type lookedAt struct {
	control.Node
	registered atomic.Bool
	gone       atomic.Bool
}

func (n *lookedAt) Status(context.Context) (bodkin.Status, error) {
	if n.gone.Load() {
		return bodkin.Status{}, errors.New("no answer")
	}
	return bodkin.Status{Registered: n.registered.Load()}, nil
}

// Whoever waits with a code is told once when the server goes, and once when it is back.
func TestWaitingWithACodeTellsOfTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a, n := &app{err: &out}, &lookedAt{}
		says := func(want string) {
			t.Helper()
			time.Sleep(3 * serverLook) // of fake time
			synctest.Wait()
			if out.String() != want {
				t.Errorf("it says %q, want %q", out.String(), want)
			}
			out.Reset()
		}
		n.registered.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.watchServer(ctx, n)
		}()
		says("")
		n.registered.Store(false)
		says("the server does not answer; nobody can join until it is back\n")
		n.gone.Store(true) // that is no news of the server
		says("")
		n.gone.Store(false)
		n.registered.Store(true)
		says("the server is back, and the code is good\n")
		cancel()
		<-done
	})
}

func TestTimesInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Second: "1 second", 10 * time.Minute: "10 minutes", 90 * time.Second: "1 minute 30 seconds",
		24 * time.Hour: "24 hours", 61*time.Minute + 300*time.Millisecond: "1 hour 1 minute",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
