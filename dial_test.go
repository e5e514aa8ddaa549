package bodkin_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/peer"
)

// answers dials a service that echoes, and says how long it took until it answered.
func (x *lane) answers(ctx context.Context, id peer.ID) (time.Duration, error) {
	begin := time.Now()
	c, err := x.a.Dial(ctx, id, "echo")
	if err != nil {
		return time.Since(begin), err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("x")); err != nil {
		return time.Since(begin), err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return time.Since(begin), err
}

// The peer's process is killed, and another one listens with its key: whoever dials
// over the session that was silent since then is not kept waiting.
func TestDialOverASessionWhosePeerWasKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newLane(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		echo(t, x.b, "echo")
		must(t, x.a.WaitRegistered(ctx))
		if _, err := x.answers(ctx, x.b.ID()); err != nil {
			t.Fatal(err)
		}
		x.until("a hole", 5*time.Second, x.direct)
		time.Sleep(40 * time.Second) // of fake time
		x.at[1].move(nowhere)
		m := &machine{names: x.names, hosts: []*natlab.LiveHost{x.net.Host("d")}}
		again := startNode(t, bodkin.Config{Key: x.keyB, Server: x.url, Network: m})
		echo(t, again, "echo")
		must(t, again.WaitRegistered(ctx))
		begin := time.Now()
		for {
			took, err := x.answers(ctx, again.ID())
			if err == nil {
				break
			}
			t.Logf("after %v: %v", took, err)
			if ctx.Err() != nil {
				t.Fatal("never")
			}
		}
		if d := time.Since(begin); d > 1500*time.Millisecond {
			t.Errorf("answered after %v", d)
		} else {
			t.Logf("answered after %v", d)
		}
	})
}

// The peer is gone for good: once the server knows it, a dial says so at once.
func TestDialOfAPeerThatStaysAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newLane(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		echo(t, x.b, "echo")
		must(t, x.a.WaitRegistered(ctx))
		if _, err := x.answers(ctx, x.b.ID()); err != nil {
			t.Fatal(err)
		}
		x.until("a hole", 5*time.Second, x.direct)
		x.at[1].move(nowhere)
		time.Sleep(3 * time.Minute) // of fake time
		took, err := x.answers(ctx, x.b.ID())
		var dial *bodkin.DialError
		if !errors.As(err, &dial) || took > time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
