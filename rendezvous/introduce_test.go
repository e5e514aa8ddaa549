package rendezvous

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// The server answers the asker and tells the target in the same instant, so each
// knows of the other half a round trip later.
func TestBothAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	begin := w.now
	token := a.ask(b, "the offer")
	asking := a.last(AgentAsking)
	if asking.at != begin || !asking.Channel.Asked() || asking.To.Addr != server4 {
		t.Errorf("asking: %+v", asking)
	}
	w.run(time.Second)
	answer, told := a.answer(token), b.last(AgentAsked)
	if answer == nil || answer.Err != nil {
		t.Fatalf("answer: %+v", answer)
	}
	if want := begin.Add(2 * w.delay); answer.at != want || told.at != want {
		t.Errorf("the asker knew at %v, the target at %v, want %v", answer.at, told.at, want)
	}
	p, q := answer.Party, told.Party
	if p.ID != b.key.ID() || p.Instance != 2 || string(p.Description) != "b" ||
		!slices.Equal(p.Observed, []netip.AddrPort{b.public[1]}) || len(p.Offer) > 0 {
		t.Errorf("the asker was told %+v", p)
	}
	if q.ID != a.key.ID() || q.Instance != 1 || string(q.Offer) != "the offer" ||
		!slices.Equal(q.Observed, []netip.AddrPort{a.public[1]}) || len(q.Description) > 0 {
		t.Errorf("the target was told %+v", q)
	}
	if p.Revision != q.Revision || p.Revision != b.last(AgentRegistered).Registered.Revision {
		t.Errorf("revisions %d, %d", p.Revision, q.Revision)
	}
	if !told.Channel.Served() || p.Channel != asking.Channel {
		t.Errorf("channels %x, %x", p.Channel, told.Channel)
	}
	if len(r.waiting) > 0 || r.Stats().Introductions != 1 {
		t.Errorf("the target's acknowledgement did not arrive: %+v", r.Stats())
	}
	w.run(time.Minute)
	if len(r.introductions)+len(r.recent) > 0 || len(b.did(AgentAsked)) != 1 {
		t.Error("the introduction was kept, or told again")
	}
}

func TestIntroductionsUnderLoss(t *testing.T) {
	t.Parallel()
	failed := 0
	for seed := range uint64(300) {
		w := newWorld(t, seed)
		r := w.serve(Limits{})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		w.loss = 0.2
		token := a.ask(b, "offer")
		w.run(20 * time.Second)
		d, told := a.answer(token), b.did(AgentAsked)
		if d == nil || len(told) > 1 {
			t.Fatalf("seed %d: answer %v, told %d times", seed, d, len(told))
		}
		if d.Err != nil || len(told) != 1 {
			failed++
		}
		if s := r.Stats(); s.Introductions > 1 {
			t.Fatalf("seed %d: repeats made %d introductions of one", seed, s.Introductions)
		}
	}
	// A round trip is lost once in three times: of 300, one or none should fail.
	if failed > 5 {
		t.Errorf("%d of 300 introductions failed", failed)
	}
}

// The asker's repeats meet the same introduction.
func TestAskerRepeats(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	lost := 0
	w.tamper = func(p packet) []packet {
		m, err := wire.Decode(p.data)
		if err == nil && m.Type == stun.NewType(wire.Introduce, stun.ClassSuccessResponse) && lost < 3 {
			lost++
			return nil
		}
		return []packet{p}
	}
	token := a.ask(b, "offer")
	w.run(10 * time.Second)
	if d := a.answer(token); d == nil || d.Err != nil || lost != 3 {
		t.Fatalf("answer: %+v after %d losses", d, lost)
	}
	if n := len(b.did(AgentAsked)); n != 1 || r.Stats().Introductions != 1 {
		t.Errorf("b was told %d times, of %d introductions", n, r.Stats().Introductions)
	}
}

// A target that acknowledges nothing is told ten times in some seconds.
func TestUnacknowledgedIntroductionEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	told := 0
	w.tamper = func(p packet) []packet {
		m, err := wire.Decode(p.data)
		if err == nil && m.Type == stun.NewType(wire.Introduced, stun.ClassRequest) {
			told++
			return nil
		}
		return []packet{p}
	}
	a.ask(b, "offer")
	w.run(14 * time.Second)
	if told != tellTries || len(r.waiting) > 0 {
		t.Errorf("told %d times, %d waiting", told, len(r.waiting))
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	friend, stranger := w.register("friend", testKey(1)), w.register("stranger", testKey(2))
	b := w.register("b", testKey(3), testKey(9).ID(), friend.key.ID())
	w.introduce(friend, b)
	token := stranger.ask(b, "")
	w.run(time.Second)
	if d := stranger.answer(token); d == nil || !errors.Is(d.Err, ErrNotReachable) {
		t.Errorf("the stranger: %+v", d)
	}
	if len(b.did(AgentAsked)) != 1 || r.Stats().Refused != 1 {
		t.Errorf("b was told %d times, %d refused", len(b.did(AgentAsked)), r.Stats().Refused)
	}
	b.step(AgentInput{Op: AgentUpdate, Accepting: true, Peers: []peer.ID{}})
	w.until(time.Second, b.registered)
	token = friend.ask(b, "")
	w.run(time.Second)
	if d := friend.answer(token); d == nil || !errors.Is(d.Err, ErrNotReachable) {
		t.Errorf("nobody is allowed now: %+v", d)
	}
}

// Days pass: tags that are named after the day keep matching, also while the
// clocks of the two differ by some hours.
func TestPolicyOverMidnight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.now = time.Unix(1_800_000_000/86400*86400, 0).Add(23*time.Hour + 58*time.Minute)
	w.serve(Limits{})
	a := w.register("a", testKey(1))
	b := w.register("b", testKey(2), a.key.ID())
	about := string(b.agent.registration().Append(nil))
	for range 10 {
		w.introduce(a, b)
		w.run(30 * time.Second)
	}
	if string(b.agent.registration().Append(nil)) == about {
		t.Error("the tags of two days are the same")
	}
}

// Not allowed, offline, unknown, not accepting: the same code, size and time, so
// that the answer does not tell who exists.
func TestRefusalsLookAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	asker := w.register("asker", testKey(1))
	w.register("closed", testKey(2), testKey(9).ID())
	w.register("offline", testKey(3)).step(AgentInput{Op: AgentLeave})
	silent := w.node("not accepting", testKey(4), false)
	silent.find(server4)
	w.run(5 * time.Second)
	var looks []string
	for i := byte(2); i <= 5; i++ { // 5 is nobody
		w.run(time.Second)
		begin, from := w.now, len(w.seen)
		asker.askID(testKey(i).ID(), "offer")
		w.run(2 * w.delay)
		for _, p := range w.seen[from:] {
			if m, err := wire.Decode(p.data); err == nil && p.to == asker.public[1] {
				e, err := wire.ParseEnvelope(m)
				looks = append(looks, fmt.Sprintf("%v %d bytes, code %d, after %v, %v", m.Type, len(p.data), e.Code, p.at.Sub(begin), err))
			}
		}
	}
	if len(looks) != 4 || len(slices.Compact(looks)) != 1 {
		t.Errorf("refusals differ:\n%q", looks)
	}
}

// The two sides' keys would be one, and one's own echo would count.
func TestNobodyIsIntroducedToTheirOwnID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("a again", testKey(1))
	token := a.ask(b, "")
	w.run(time.Second)
	if d := a.answer(token); d == nil || !errors.Is(d.Err, ErrNotReachable) {
		t.Errorf("introduced to its own ID: %+v", d)
	}
}

func TestIntroductionsAreLimited(t *testing.T) {
	t.Parallel()
	// count has somebody ask n times in one instant.
	count := func(t *testing.T, l Limits, n int, targets ...byte) (introduced, limited int) {
		t.Helper()
		w := newWorld(t, 1)
		w.serve(l)
		a := w.register("a", testKey(1))
		var all []*node
		for _, k := range targets {
			all = append(all, w.register("target", testKey(k)))
		}
		var tokens []uint64
		for i := range n {
			tokens = append(tokens, a.ask(all[i%len(all)], ""))
		}
		w.run(time.Second / 2)
		for _, token := range tokens {
			d := a.answer(token)
			switch {
			case d == nil:
				t.Fatal("no answer")
			case d.Err == nil:
				introduced++
			case errors.Is(d.Err, ErrTooMany):
				limited++
			default:
				t.Fatal(d.Err)
			}
		}
		return introduced, limited
	}
	t.Run("asker", func(t *testing.T) {
		t.Parallel()
		if ok, no := count(t, Limits{Introductions: 5, Introduced: 1000}, 30, 2, 3, 4); ok != 10 || no != 20 {
			t.Errorf("%d introduced, %d limited; want twice the rate at once: 10", ok, no)
		}
	})
	t.Run("target", func(t *testing.T) {
		t.Parallel()
		if ok, no := count(t, Limits{Introductions: 1000, Introduced: 2}, 30, 2, 3); ok != 12 || no != 18 {
			t.Errorf("%d introduced, %d limited; want thrice the rate of each target at once: 12", ok, no)
		}
	})
	t.Run("refilled", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 1)
		w.serve(Limits{Introductions: 1})
		a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
		for range 20 {
			w.introduce(a, b)
			w.run(time.Second)
		}
	})
}

// `ping` beside `listen`: the process that does not accept is nobody's target, and
// takes nothing from the one that does.
func TestSecondInstanceBesideTheListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	listener := w.register("listener", testKey(1))
	other := w.register("other", testKey(2))
	ping := w.node("ping", testKey(1), false)
	ping.step(AgentInput{Op: AgentUpdate, Description: []byte("ping")})
	ping.find(server4)
	w.until(time.Second, ping.registered)
	w.introduce(ping, other)
	w.introduce(other, listener)
	if p := other.last(AgentIntroduced).Party; p.Instance != 1 {
		t.Errorf("introduced to instance %d", p.Instance)
	}
	if p := other.last(AgentAsked).Party; p.ID != listener.key.ID() || p.Instance != 3 {
		t.Errorf("asked by %v/%d", p.ID.Short(), p.Instance)
	}
	if len(ping.did(AgentAsked))+len(listener.did(AgentDisplaced)) > 0 {
		t.Error("ping got what was the listener's")
	}
}

// A second process that accepts takes over at once, and the first one is told,
// even if the first notice is lost.
func TestNewcomerTakesOver(t *testing.T) {
	t.Parallel()
	for _, lossy := range []bool{false, true} {
		w := newWorld(t, 1)
		w.serve(Limits{})
		old, other := w.register("old", testKey(1)), w.register("other", testKey(2))
		if lossy {
			w.tamper = func(p packet) []packet {
				if m, err := wire.Decode(p.data); err == nil && m.Type.Method == wire.Notice {
					return nil
				}
				return []packet{p}
			}
		}
		w.register("new", testKey(1))
		w.introduce(other, w.nodes[2])
		w.until(16*time.Second, func() bool { return len(old.did(AgentDisplaced)) == 1 })
		w.run(time.Minute)
		if n := len(old.did(AgentDisplaced)) + len(w.nodes[2].did(AgentDisplaced)); n != 1 {
			t.Errorf("lossy %v: %d processes were displaced", lossy, n)
		}
		// The old one may want its place back.
		old.step(AgentInput{Op: AgentUpdate, Accepting: true})
		w.until(time.Second, func() bool { return len(w.nodes[2].did(AgentDisplaced)) == 1 || lossy })
		w.introduce(other, old)
	}
}

// A process that has not heard yet that it was displaced goes on saying that it
// accepts: that does not take the place back.
func TestDisplacedProcessDoesNotComeBackByAccident(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	old := w.register("old", testKey(1))
	deaf := true
	w.tamper = func(p packet) []packet {
		if deaf && p.to == old.public[1] {
			return nil
		}
		return []packet{p}
	}
	niu := w.register("new", testKey(1))
	for i := range 5 {
		old.step(AgentInput{Op: AgentUpdate, Description: []byte{byte(i)}, Accepting: true})
		w.run(100 * time.Millisecond)
	}
	deaf = false
	w.until(20*time.Second, func() bool { return len(old.did(AgentDisplaced)) == 1 })
	if len(niu.did(AgentDisplaced)) > 0 {
		t.Error("the newcomer was displaced by the one it had displaced")
	}
}

// A listener that crashed and came back is reachable at once, though its former
// process is still registered.
func TestRestartedListenerIsReachableAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, old := w.register("a", testKey(1)), w.register("b", testKey(2))
	w.introduce(a, old)
	old.public[1] = ap("0.0.0.1:1") // no packet comes or goes any more
	niu := w.register("b again", testKey(2))
	ca, cb := w.introduce(a, niu)
	if p := a.last(AgentIntroduced).Party; p.Instance != 3 {
		t.Errorf("introduced to instance %d", p.Instance)
	}
	a.say(ca, "x")
	niu.say(cb, "y")
	w.run(time.Second)
	if len(niu.received) != 1 || len(a.received) != 1 {
		t.Error("the relay leads elsewhere")
	}
	if s := r.Stats(); s.Registrations != 3 || s.Channels != 1 {
		t.Errorf("stats: %+v", s)
	}
}
