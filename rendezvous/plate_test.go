package rendezvous

import (
	"errors"
	"testing"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

func (n *node) invite(life time.Duration) uint64 {
	token := n.w.rng.Uint64()
	n.step(AgentInput{Op: AgentInvite, Token: token, Lifetime: life})
	return token
}

// invited has a node invite for ten minutes, and returns the nameplate.
func (n *node) invited() wire.Plate {
	n.w.Helper()
	token, before := n.invite(10*time.Minute), len(n.did(AgentInvited))
	n.w.until(5*time.Second, func() bool { return len(n.did(AgentInvited)) > before })
	if d := n.last(AgentInvited); d.Token != token || d.Plate == 0 || d.Lifetime > 10*time.Minute || d.Lifetime < 10*time.Minute-time.Second {
		n.w.Fatalf("%s: %+v", n.name, d)
	}
	return n.last(AgentInvited).Plate
}

// write sends a letter and returns what the server says of it.
func (n *node) write(p wire.Plate, text string) error {
	n.w.Helper()
	token := n.w.rng.Uint64()
	n.step(AgentInput{Op: AgentWrite, Token: token, Plate: p, Data: []byte(text)})
	n.w.until(10*time.Second, func() bool { return len(n.did(AgentWritten)) > 0 && n.last(AgentWritten).Token == token })
	return n.last(AgentWritten).Err
}

// Four letters go by at a nameplate, two each, and then no more.
func TestLettersAtANameplate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b, c := w.register("a", testKey(1)), w.register("b", testKey(2)), w.register("c", testKey(3))
	p := a.invited()
	if p < 1 || p > firstPlates {
		t.Errorf("nameplate %d", p)
	}
	if err := a.write(p, "to myself"); !errors.Is(err, ErrOwnCode) {
		t.Errorf("a joins itself: %v", err)
	}
	for i, letter := range []struct{ from, to *node }{{b, a}, {a, b}, {b, a}, {a, b}} {
		other := map[*node]*node{a: b, b: a}[letter.from]
		text := string(rune('1' + i))
		if i > 0 {
			if err := other.write(p, "out of turn"); !errors.Is(err, ErrCodeUsed) && other != letter.from {
				t.Errorf("letter %d out of turn: %v", i, err)
			}
		}
		if err := letter.from.write(p, text); err != nil {
			t.Fatalf("letter %d: %v", i, err)
		}
		w.run(time.Second)
		got := letter.to.last(AgentLetter)
		if got.Plate != p || got.From != letter.from.key.ID() || string(got.Data) != text {
			t.Errorf("letter %d arrived as %+v", i, got)
		}
		if err := c.write(p, "and I?"); !errors.Is(err, ErrCodeUsed) {
			t.Errorf("a third one after letter %d: %v", i, err)
		}
	}
	for _, n := range []*node{a, b} {
		if err := n.write(p, "one more"); !errors.Is(err, ErrCodeUsed) {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	if len(a.did(AgentLetter)) != 2 || len(b.did(AgentLetter)) != 2 || len(c.did(AgentLetter)) != 0 {
		t.Error("letters went astray")
	}
	if err := c.write(p+1, "?"); !errors.Is(err, ErrNoCode) {
		t.Errorf("a nameplate that is not there: %v", err)
	}
	nothingLeft(t, w, r)
}

// nothingLeft waits until all nameplates have ended and their numbers rested.
func nothingLeft(t *testing.T, w *world, r *Registry) {
	t.Helper()
	w.run(10*time.Minute + plateRest + 2*sweepEvery)
	if n := len(r.plates.byNumber) + len(r.plates.byInviter) + len(r.plates.byPrefix); n != 0 {
		t.Errorf("%d entries are left of nameplates", n)
	}
}

func TestPairingUnderLoss(t *testing.T) {
	t.Parallel()
	failed := 0
	for seed := range uint64(100) {
		w := newWorld(t, seed)
		w.serve(Limits{})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		w.loss = 0.2
		a.invite(time.Minute)
		w.run(20 * time.Second)
		if len(a.did(AgentInvited)) != 1 {
			failed++
			continue
		}
		p := a.last(AgentInvited).Plate
		for i, letter := range []struct{ from, to *node }{{b, a}, {a, b}, {b, a}, {a, b}} {
			letter.from.step(AgentInput{Op: AgentWrite, Token: uint64(i), Plate: p, Data: []byte{byte(i)}})
			w.run(10 * time.Second)
			if n := len(letter.to.did(AgentLetter)); n > i/2+1 {
				t.Fatalf("seed %d: letter %d arrived %d times", seed, i, n-i/2)
			}
		}
		if len(a.did(AgentLetter)) != 2 || len(b.did(AgentLetter)) != 2 {
			failed++
		}
	}
	if failed > 4 {
		t.Errorf("%d of 100 failed", failed)
	}
}

func TestNameplatesEnd(t *testing.T) {
	t.Parallel()
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		w.serve(Limits{})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		p := a.invited()
		w.run(10*time.Minute - time.Second)
		if err := b.write(p+1, ""); !errors.Is(err, ErrNoCode) {
			t.Error(err)
		}
		w.run(2 * time.Second)
		if err := b.write(p, ""); !errors.Is(err, ErrNoCode) {
			t.Errorf("joined after its end: %v", err)
		}
	})
	t.Run("given back", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		r := w.serve(Limits{})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		token := a.invite(time.Hour)
		w.run(time.Second)
		p := a.last(AgentInvited).Plate
		a.step(AgentInput{Op: AgentUninvite, Token: token})
		w.run(time.Second)
		if err := b.write(p, ""); !errors.Is(err, ErrNoCode) {
			t.Errorf("joined what was given back: %v", err)
		}
		nothingLeft(t, w, r)
	})
	t.Run("the inviter has gone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		r := w.serve(Limits{})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		p := a.invited()
		a.step(AgentInput{Op: AgentLeave})
		w.run(time.Second)
		if err := b.write(p, ""); !errors.Is(err, ErrNoCode) {
			t.Errorf("joined who has gone: %v", err)
		}
		nothingLeft(t, w, r)
	})
	t.Run("the joiner has gone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		w.serve(Limits{})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		p := a.invited()
		if err := b.write(p, "1"); err != nil {
			t.Fatal(err)
		}
		b.step(AgentInput{Op: AgentLeave})
		w.run(time.Second)
		if err := a.write(p, "2"); !errors.Is(err, ErrNoCode) {
			t.Errorf("wrote to nobody: %v", err)
		}
	})
	t.Run("longer than a day", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		w.serve(Limits{})
		a := w.register("a", testKey(1))
		a.invite(100 * time.Hour)
		w.run(time.Second)
		if got := a.last(AgentInvited).Lifetime; got != maxInvitation {
			t.Errorf("good for %v", got)
		}
	})
}

// No number is given out twice in a row, however often it is given back.
func TestNumbersRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{Introductions: 1000})
	a := w.register("a", testKey(1))
	seen := make(map[wire.Plate]bool)
	for range firstPlates / 10 {
		token := a.invite(time.Minute)
		w.run(time.Second)
		p := a.last(AgentInvited).Plate
		if seen[p] {
			t.Errorf("number %d again, after %d others", p, len(seen))
		}
		seen[p] = true
		a.step(AgentInput{Op: AgentUninvite, Token: token})
		w.run(time.Second)
	}
	if n := r.Stats().Invitations; n != 0 {
		t.Errorf("%d are said to wait", n)
	}
}

// A server that was started again knows no nameplates: the inviter gets its own back,
// with the time that was left.
func TestNameplateSurvivesTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	p := a.invited()
	w.run(4 * time.Minute)
	r := w.serve(Limits{})
	w.until(time.Minute, func() bool { return r.Stats().Invitations == 1 })
	w.run(time.Second)
	if left := r.at(p).expires.Sub(w.now); left > 6*time.Minute+2*time.Second || left < 5*time.Minute {
		t.Errorf("%v are left", left)
	}
	w.run(time.Minute) // b has registered too
	if err := b.write(p, "hello"); err != nil {
		t.Error(err)
	}
	if n := len(a.did(AgentInvited)); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// Somebody else has the number by then: the code is void, and that is said.
func TestNameplateThatTheServerGaveAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	p := a.invited()
	r := w.serve(Limits{})
	w.tamper = func(q packet) []packet {
		if q.from == a.public[1] {
			return nil
		}
		return []packet{q}
	}
	w.until(time.Minute, func() bool { return r.find(b.key.ID(), 2) != nil })
	r.addPlate(r.find(b.key.ID(), 2), p, time.Hour)
	w.tamper = nil
	w.until(time.Minute, func() bool { return len(a.did(AgentNotInvited)) == 1 })
	if err := a.last(AgentNotInvited).Err; !errors.Is(err, ErrCodeLost) {
		t.Error(err)
	}
	if len(a.agent.plates) != 0 {
		t.Error("it asks on")
	}
}

// An old server ignores what it does not know.
func TestServerWithoutNameplates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a := w.register("a", testKey(1))
	w.tamper = func(p packet) []packet {
		if m, err := wire.Decode(p.data); err == nil && (m.Type.Method == wire.Invite || m.Type.Method == wire.Pair) {
			return nil
		}
		return []packet{p}
	}
	a.invite(time.Minute)
	w.until(time.Minute, func() bool { return len(a.did(AgentNotInvited)) == 1 })
	if err := a.last(AgentNotInvited).Err; !errors.Is(err, ErrNoPairing) {
		t.Error(err)
	}
	a.step(AgentInput{Op: AgentWrite, Token: 1, Plate: 1})
	w.until(time.Minute, func() bool { return len(a.did(AgentWritten)) == 1 })
	if err := a.last(AgentWritten).Err; !errors.Is(err, ErrNoPairing) {
		t.Error(err)
	}
}

func TestInvitationsAreLimited(t *testing.T) {
	t.Parallel()
	t.Run("of a node", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		r := w.serve(Limits{Introductions: 100})
		a := w.register("a", testKey(1))
		for range invitationsOfNode + 3 {
			a.invite(time.Hour)
		}
		w.run(time.Second)
		if ok, no := len(a.did(AgentInvited)), a.did(AgentNotInvited); ok != invitationsOfNode || len(no) != 3 || !errors.Is(no[0].Err, ErrTooManyCodes) {
			t.Errorf("%d invited, refused: %v", ok, no)
		}
		seen := make(map[wire.Plate]bool)
		for _, d := range a.did(AgentInvited) {
			seen[d.Plate] = true
		}
		if len(seen) != invitationsOfNode || r.Stats().Invitations != invitationsOfNode {
			t.Errorf("nameplates %v", seen)
		}
	})
	t.Run("of a server", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		w.serve(Limits{Invitations: 2})
		a := w.register("a", testKey(1))
		for range 3 {
			a.invite(time.Hour)
		}
		w.run(time.Second)
		if len(a.did(AgentInvited)) != 2 || len(a.did(AgentNotInvited)) != 1 {
			t.Errorf("%d invited", len(a.did(AgentInvited)))
		}
	})
	t.Run("of a network", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		r := w.serve(Limits{})
		for i := range invitationsOfPrefix/invitationsOfNode + 1 {
			n := w.register("n", testKey(byte(1+i)))
			for range invitationsOfNode {
				n.invite(time.Hour)
			}
		}
		w.run(time.Second)
		if n := r.Stats().Invitations; n != invitationsOfPrefix {
			t.Errorf("%d nameplates", n)
		}
		// All of them, with ten times as many numbers to choose from.
		for number := range r.plates.byNumber {
			if number < 1 || number > 99999 {
				t.Errorf("nameplate %d", number)
			}
		}
	})
}

// Whoever sweeps numbers is stopped after a few, alone or with many keys.
func TestNameplatesCannotBeSwept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	w.now = w.now.Truncate(time.Minute)
	sweep := func(n *node) (tried int) {
		for i := range 50 {
			n.step(AgentInput{Op: AgentWrite, Token: uint64(i), Plate: wire.Plate(1000 + i)})
		}
		w.run(time.Second)
		for _, d := range n.did(AgentWritten) {
			if errors.Is(d.Err, ErrNoCode) {
				tried++
			} else if !errors.Is(d.Err, ErrTooManyCodes) {
				t.Fatal(d.Err)
			}
		}
		return tried
	}
	var all int
	for i := range 8 {
		tried := sweep(w.register("n", testKey(byte(1+i))))
		if want := r.limits.Joins; tried > want || i < 5 && tried != want {
			t.Errorf("node %d tried %d", i, tried)
		}
		all += tried
	}
	if all != joinsOfPrefix(r.limits.Joins) {
		t.Errorf("a network tried %d", all)
	}
	a := w.register("a", testKey(100))
	p := a.invited()
	w.run(time.Minute)
	if err := w.nodes[0].write(p, "later"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

// Repeats of a request meet what the first one made.
func TestRepeatedInvitesAndLettersCountOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	seen := make(map[stun.MessageType]int)
	w.tamper = func(p packet) []packet {
		m, err := wire.Decode(p.data)
		if err != nil || m.Type.Class != stun.ClassSuccessResponse || m.Type.Method != wire.Invite && m.Type.Method != wire.Pair {
			return []packet{p}
		}
		if seen[m.Type]++; seen[m.Type] <= 2 {
			return nil
		}
		return []packet{p}
	}
	p := a.invited()
	if err := b.write(p, "1"); err != nil {
		t.Error(err)
	}
	w.run(5 * time.Second)
	if n := len(r.plates.byNumber); n != 1 || len(a.did(AgentLetter)) != 1 || r.plates.byNumber[p].letters != 1 {
		t.Errorf("%d nameplates, %d letters", n, len(a.did(AgentLetter)))
	}
}
