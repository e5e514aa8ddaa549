package node

import (
	"errors"
	"testing"
	"time"

	"bodkin/internal/pair"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// invite has a node make a code.
func (h *home) invite(life time.Duration) pair.Code {
	h.w.Helper()
	before := len(h.did(Invited))
	h.step(Input{Op: Invite, Token: h.w.rng.Uint64(), Lifetime: life})
	h.w.until(5*time.Second, func() bool { return len(h.did(Invited)) > before })
	return h.did(Invited)[before].Code
}

func (h *home) join(c pair.Code) { h.step(Input{Op: Join, Token: h.w.rng.Uint64(), Code: c}) }

// outcome is how the latest pairing of a node ended, and when.
func (h *home) outcome() (id peer.ID, at time.Time, err error) {
	for _, d := range h.done {
		if d.Op == Paired || d.Op == NotPaired {
			id, at, err = d.ID, d.at, d.Err
		}
	}
	return id, at, err
}

// ended waits until both have an outcome.
func (w *world) ended(a, b *home) {
	w.Helper()
	w.until(time.Minute, func() bool {
		_, atA, _ := a.outcome()
		_, atB, _ := b.outcome()
		return !atA.IsZero() && !atB.IsZero()
	})
}

// other is a code of the same number with other words.
func other(c pair.Code) pair.Code {
	c.Secret[0], c.Secret[1] = c.Secret[1], c.Secret[0]
	return c
}

// fails compares how the latest pairing of a node ended.
func (h *home) fails(want error) {
	h.w.Helper()
	if id, at, err := h.outcome(); !errors.Is(err, want) || !id.IsZero() || at.IsZero() {
		h.w.Errorf("%s ended with %v, %v; want %v", h.name, id, err, want)
	}
}

// Three round trips by way of the server, and both know each other. Nobody need accept
// connections, and nothing is left of it.
func TestPairing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA), w.home("b", delayB)
	w.run(time.Second)
	code := a.invite(time.Minute)
	begin := w.now
	b.join(code)
	w.ended(a, b)
	idA, atA, errA := a.outcome()
	idB, atB, errB := b.outcome()
	if idA != b.key.ID() || errA != nil || idB != a.key.ID() || errB != nil {
		t.Fatalf("a: %v, %v; b: %v, %v", idA, errA, idB, errB)
	}
	across := delayA + delayB + 2*serverDelay // one way, from home to home
	if atA.Sub(begin) != 3*across || atB.Sub(begin) != 4*across {
		t.Errorf("a knew after %v, b after %v; want 3 and 4 times %v", atA.Sub(begin), atB.Sub(begin), across)
	}
	w.run(time.Second)
	if len(a.did(PairingOver)) != 1 || len(b.did(PairingOver)) != 1 || len(a.core.pairings)+len(b.core.pairings) != 0 {
		t.Error("a pairing is left")
	}
	c := w.home("c", delayA)
	w.run(time.Second)
	c.join(code)
	w.run(time.Second)
	c.fails(rendezvous.ErrCodeUsed)
}

func TestPairingUnderLoss(t *testing.T) {
	t.Parallel()
	failed := 0
	for seed := range uint64(100) {
		w := newWorld(t, seed)
		a, b := w.home("a", delayA).listen(), w.home("b", delayB).listen()
		w.loss = 0.1
		code := a.invite(time.Minute)
		b.join(code)
		w.ended(a, b)
		idA, _, errA := a.outcome()
		idB, _, errB := b.outcome()
		if errA != nil || errB != nil {
			failed++
		} else if idA != b.key.ID() || idB != a.key.ID() {
			t.Fatalf("seed %d: %v and %v", seed, idA, idB)
		}
	}
	if failed > 2 {
		t.Errorf("%d of 100 failed", failed)
	}
}

func TestPairingWithWrongWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA), w.home("b", delayB)
	w.run(time.Second)
	code := a.invite(time.Minute)
	b.join(other(code))
	w.ended(a, b)
	a.fails(pair.ErrTried)
	b.fails(pair.ErrWrong)
	b.join(code) // too late
	w.run(time.Second)
	b.fails(rendezvous.ErrCodeUsed)
	if len(a.did(Paired))+len(b.did(Paired)) != 0 {
		t.Error("paired after all")
	}
}

// Two who were told the same code join at once: the first letter to arrive counts.
func TestTwoJoinAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, near, far := w.home("a", delayA), w.home("near", delayA), w.home("far", delayB)
	w.run(time.Second)
	code := a.invite(time.Minute)
	far.join(code)
	near.join(code)
	w.ended(a, near)
	w.run(time.Second)
	if id, _, err := a.outcome(); id != near.key.ID() || err != nil {
		t.Errorf("a: %v, %v", id, err)
	}
	if id, _, err := near.outcome(); id != a.key.ID() || err != nil {
		t.Errorf("near: %v, %v", id, err)
	}
	far.fails(rendezvous.ErrCodeUsed)
}

func TestPairingThatNobodyJoins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA), w.home("b", delayB)
	w.run(time.Second)
	begin := w.now
	code := a.invite(time.Minute)
	w.run(2 * time.Minute)
	a.fails(ErrCodeExpired)
	if _, at, _ := a.outcome(); at.Sub(begin) > time.Minute+time.Second || at.Sub(begin) < time.Minute {
		t.Errorf("after %v", at.Sub(begin))
	}
	b.join(code)
	w.run(time.Second)
	b.fails(rendezvous.ErrNoCode)
}

// Either side's process dies in the middle.
func TestPairingThatIsBrokenOff(t *testing.T) {
	t.Parallel()
	t.Run("by the joiner", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		a, b := w.home("a", delayA), w.home("b", delayB)
		w.run(time.Second)
		b.join(a.invite(time.Hour))
		b.cut = true // it hears nothing
		w.run(pairTime + time.Second)
		a.fails(pair.ErrUnfinished)
		b.fails(rendezvous.ErrNoPairing)
	})
	t.Run("by the inviter", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		a, b := w.home("a", delayA), w.home("b", delayB)
		w.run(time.Second)
		code := a.invite(time.Hour)
		a.cut = true
		b.join(code)
		w.run(pairTime + time.Second)
		b.fails(pair.ErrSilent)
	})
	t.Run("by the caller", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		a, b := w.home("a", delayA), w.home("b", delayB)
		w.run(time.Second)
		code := a.invite(time.Hour)
		a.step(Input{Op: Unpair, Token: a.did(Invited)[0].Token})
		w.run(time.Second)
		b.join(code)
		w.run(time.Second)
		b.fails(rendezvous.ErrNoCode)
	})
}

// The server is started again while a code waits: the code stays good.
func TestCodeSurvivesTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	a, b := w.home("a", delayA), w.home("b", delayB)
	w.run(time.Second)
	code := a.invite(time.Hour)
	w.run(time.Minute)
	w.serve()
	w.run(time.Minute)
	b.join(code)
	w.ended(a, b)
	if id, _, err := b.outcome(); id != a.key.ID() || err != nil {
		t.Errorf("b: %v, %v", id, err)
	}
}
