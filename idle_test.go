package bodkin_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
)

// Two nodes that say nothing to each other keep their hole with one small packet each
// way in each interval, which is as long as their NATs allow, and at the most a minute.
func TestIdlePairKeepsItsHole(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		preset natlab.Preset
		every  time.Duration // at the least
	}{
		"Linux":     {natlab.Linux, 50 * time.Second},        // 120 s
		"forgetful": {natlab.ShortTimeout, 12 * time.Second}, // 20 s
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, url := inMemory(t, natlab.Options{PresetA: c.preset, PresetB: c.preset})
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				a := startNode(t, bodkin.Config{Server: url, Network: l.Host("a")})
				b := startNode(t, bodkin.Config{Server: url, Network: l.Host("b")})
				echo(t, b, "echo")
				must(t, a.WaitRegistered(ctx))
				events := a.Events(ctx)
				conn, err := a.Dial(ctx, b.ID(), "echo")
				must(t, err)
				defer func() { _ = conn.Close() }()
				untilDirect(t, ctx, events)
				time.Sleep(20 * time.Minute) // of fake time: how long mappings live is known by then
				var mu sync.Mutex
				sent, bytes := map[string]int{}, 0
				homeA, homeB := public(t, l, "home-a"), public(t, l, "home-b")
				stop := l.Observe(func(e natlab.Event) {
					if e.What == natlab.Entered && e.Up && natlab.Between(homeA, homeB)(e.Packet) && e.Packet.From.Addr() != e.Packet.To.Addr() {
						if e.Where == "home-a" || e.Where == "home-b" {
							mu.Lock()
							sent[e.Where]++
							bytes = max(bytes, len(e.Packet.Data))
							mu.Unlock()
						}
					}
				})
				time.Sleep(time.Hour)
				stop()
				mu.Lock()
				defer mu.Unlock()
				most := int(time.Hour / c.every)
				for _, home := range []string{"home-a", "home-b"} {
					// QUIC's PING every five minutes brings a probe with it.
					if n := sent[home]; n > most+2*12 || n < most/4 {
						t.Errorf("%d packets in an hour from %s, %d at the most", n, home, most)
					}
				}
				if bytes > 120 {
					t.Errorf("a packet of %d bytes", bytes)
				}
				var one [1]byte
				_, err = conn.Write(one[:])
				must(t, err)
				_, err = conn.Read(one[:])
				must(t, err)
				if !goesDirect(a) || !goesDirect(b) {
					t.Error("the hole closed")
				}
				t.Logf("%v packets in an hour, of %d bytes at the most", sent, bytes)
			})
		})
	}
}
