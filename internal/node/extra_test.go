package node

import (
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/punch"
)

// open are the sockets that a home was asked for, and not to close again.
func (h *home) open() (locals map[punch.Local]bool, most int) {
	locals = map[punch.Local]bool{}
	for _, d := range h.done {
		switch d.Op {
		case Bind:
			locals[d.By.Local] = true
			most = max(most, len(locals))
		case Unbind:
			if !locals[d.By.Local] {
				h.w.Errorf("%s: socket %d is closed twice", h.name, d.By.Local)
			}
			delete(locals, d.By.Local)
		default:
		}
	}
	return locals, most
}

// A birthday's sockets go with the attempt, with the peer, and when two that are the
// same peer become one: whoever asks, and whether the driver opens them or cannot.
func TestExtraSocketsAreClosed(t *testing.T) {
	t.Parallel()
	random := nat.Profile{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No, Ports: nat.Ports{Allocation: nat.Random}}
	closed := nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No}
	for name, c := range map[string]struct {
		asks  func(a, b *home)
		opens bool
	}{
		"the easy side asks":    {func(a, b *home) { a.dial(b) }, true},
		"the hard side asks":    {func(a, b *home) { b.dial(a) }, true},
		"both ask":              {func(a, b *home) { a.dial(b); b.dial(a) }, true},
		"without sockets":       {func(a, b *home) { a.dial(b); b.dial(a) }, false},
		"and is gone at once":   {func(a, b *home) { b.dial(a); b.w.run(300 * time.Millisecond); b.release(a) }, true},
		"and asks once again":   {func(a, b *home) { b.dial(a); b.w.run(time.Second); b.release(a); b.dial(a) }, true},
		"and the peer, in vain": {func(a, b *home) { a.dial(b); a.w.run(200 * time.Millisecond); a.start(); a.listen() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			a, b := w.home("a", 20*time.Millisecond), w.home("b", 30*time.Millisecond)
			a.profile, b.profile = &closed, &random
			a.start()
			b.start()
			a.listen()
			b.listen()
			w.blocked, b.opens = true, c.opens
			c.asks(a, b)
			w.run(9 * time.Second)
			if _, most := b.open(); most == 0 || most > 256 {
				t.Errorf("%d sockets at a time", most)
			}
			a.release(b)
			b.release(a)
			w.run(5 * time.Minute)
			for _, h := range []*home{a, b} {
				if left, _ := h.open(); len(left) != 0 {
					t.Errorf("%s has %d sockets open after the end", h.name, len(left))
				}
				if n := len(h.core.extra); n != 0 {
					t.Errorf("%s remembers %d sockets", h.name, n)
				}
			}
		})
	}
}
