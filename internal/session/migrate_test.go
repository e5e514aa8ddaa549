package session

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/punch"
)

// counts is by which class how many packets pass while f runs.
func (h *hub) counts(f func()) (relay, udp int) {
	relay, udp = h.count(punch.Relay), h.count(punch.UDP)
	f()
	return h.count(punch.Relay) - relay, h.count(punch.UDP) - udp
}

func TestSessionMovesToTheBetterClass(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		transfer := func() {
			t.Helper()
			go func() { _, _ = at.Write(make([]byte, 1<<20)) }()
			if _, err := io.ReadFull(bt, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if relay, udp := a.hub.counts(transfer); relay < 900 || udp != 0 {
			t.Errorf("%d packets by the relay, %d by the hole", relay, udp)
		}
		for _, class := range []Class{punch.UDP, punch.Relay, punch.UDP} {
			a.Prefer(b.overlay, class)
			time.Sleep(time.Second)
			relay, udp := a.hub.counts(transfer)
			if class == punch.Relay {
				relay, udp = udp, relay
			}
			if udp < 900 || relay != 0 {
				t.Errorf("to %v: %d packets by it, %d by the other", class, udp, relay)
			}
		}
	})
}

// The hole is there for one side only, or not yet: the session stays where it is,
// and moves when it can.
func TestMoveIsTriedUntilItWorks(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		a.hub.block(punch.UDP, true)
		a.Prefer(b.overlay, punch.UDP)
		time.Sleep(20 * time.Second)
		mustWrite(t, at, "meanwhile")
		mustRead(t, bt, "meanwhile")
		a.hub.block(punch.UDP, false)
		time.Sleep(2 * (probeTime + probeAgain))
		_, udp := a.hub.counts(func() {
			mustWrite(t, at, "hello")
			mustRead(t, bt, "hello")
		})
		if udp == 0 {
			t.Error("it never moved")
		}
		// A wish that is taken back is no longer tried.
		a.hub.block(punch.TCP, true)
		a.Prefer(b.overlay, punch.TCP)
		time.Sleep(time.Second)
		a.Prefer(b.overlay, punch.UDP)
		time.Sleep(10 * time.Second)
		mustWrite(t, at, "hello")
		mustRead(t, bt, "hello")
	})
}

// QUIC keeps count of every packet since the oldest one that nobody acknowledged, and
// stops sending when there are 20,000. Probes of a path that got lost must not be among
// them for ever, also where packets overtake each other so much that only time tells
// what was lost.
func TestLostProbesOfPathsAreGivenUp(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		transfer := func(n int) {
			t.Helper()
			go func() { _, _ = at.Write(make([]byte, n)) }()
			_ = bt.SetReadDeadline(time.Now().Add(5 * time.Minute))
			if _, err := io.ReadFull(bt, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		a.hub.reorder(4 * time.Millisecond)
		transfer(1 << 20)
		a.hub.reorder(0)
		a.hub.block(punch.UDP, true)
		a.Prefer(b.overlay, punch.UDP)
		time.Sleep(2 * (probeTime + probeAgain))
		a.Prefer(b.overlay, punch.Relay)
		transfer(25_000 * packetSize)
	})
}

// After an outage QUIC waits for its timers, which have backed off to a minute, or
// creeps, since the answer to an old repeat says that a round trip takes so long.
func TestStartsAfreshAfterAnOutage(t *testing.T) {
	for _, moved := range []bool{true, false} {
		t.Run(fmt.Sprintf("moved %v", moved), func(t *testing.T) {
			scenario(t, func(t *testing.T, a, b *node) {
				at, bt := pair(t, a, b, b.listen(t, "echo"))
				class := punch.Relay
				if moved {
					class = punch.UDP
					a.Prefer(b.overlay, class)
				}
				time.Sleep(time.Second)
				a.hub.block(class, true)
				const size = 20_000 // less than what may be under way at once
				mustWrite(t, at, string(make([]byte, size)))
				time.Sleep(time.Minute)
				a.hub.block(class, false)
				begin := time.Now()
				a.Afresh(b.overlay)
				mustRead(t, bt, string(make([]byte, size)))
				if d := time.Since(begin); d > time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// Very many moves: each takes connection IDs, which have to come back.
func TestSessionMovesAnyNumberOfTimes(t *testing.T) {
	scenario(t, func(t *testing.T, a, b *node) {
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		for i := range 60 {
			class := punch.UDP
			if i%2 == 1 {
				class = punch.Relay
			}
			a.Prefer(b.overlay, class)
			time.Sleep(time.Second)
			word := bytes.Repeat([]byte{byte(i)}, 100)
			mustWrite(t, at, string(word))
			mustRead(t, bt, string(word))
		}
		_, udp := a.hub.counts(func() {
			a.Prefer(b.overlay, punch.UDP)
			time.Sleep(time.Second)
			mustWrite(t, at, "hello")
			mustRead(t, bt, "hello")
		})
		if udp == 0 {
			t.Error("it moves no more")
		}
	})
}

// A session that is dialled when a hole is there already moves at once.
func TestNewSessionAsksForTheBestClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a := h.node(t, 1, func(c *Config) { c.Best = func(netip.Addr) Class { return punch.UDP } })
		b := h.node(t, 2)
		at, bt := pair(t, a, b, b.listen(t, "echo"))
		time.Sleep(time.Second)
		_, udp := h.counts(func() {
			mustWrite(t, at, "hello")
			mustRead(t, bt, "hello")
		})
		if udp == 0 {
			t.Error("it stays on the relay")
		}
		_ = a.Close()
		_ = b.Close()
	})
}
