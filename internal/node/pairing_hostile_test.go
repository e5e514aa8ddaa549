package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/internal/pair"
	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// spy is a server that has turned against its nodes: it has the server's key, reads
// all letters instead of passing them on, and writes its own, in any name.
type spy struct {
	w     *world
	key   peer.Key // of the node that it pretends to be
	links map[netip.AddrPort]*spyLink
	seen  []wire.TransactionID
}

// spyLink is what a server knows of a node.
type spyLink struct {
	wire.Opened
	handle   wire.Handle
	keys     wire.LinkKeys
	sequence uint64
	letters  [][]byte // that the node wrote
}

// turned is a world whose server is a spy.
func turned(w *world) *spy {
	s := &spy{w: w, key: peer.NewKey([32]byte{99}), links: make(map[netip.AddrPort]*spyLink)}
	w.taken, w.answered = s.take, s.answered
	return s
}

// take reads what a node says to the server, and keeps letters.
func (s *spy) take(p punchPacket) bool {
	m, err := wire.Decode(p.data)
	if err != nil {
		return false
	}
	if o, err := wire.OpenRegister(m, serverKey); m.Type.Method == wire.Register && err == nil {
		s.links[p.from] = &spyLink{Opened: o, sequence: 1 << 32}
	}
	l := s.links[p.from]
	if m.Type.Method != wire.Pair || l == nil {
		return false
	}
	e, err := wire.ParseEnvelope(m)
	if err != nil {
		s.w.Fatal(err)
	}
	content, err := wire.Open(m, e.Sequence, &l.keys.ToServer)
	if err != nil {
		s.w.Fatal(err)
	}
	if m.Type.Class != stun.ClassRequest {
		return true // it has a letter of ours
	}
	s.seal(l, p.from, stun.NewType(wire.Pair, stun.ClassSuccessResponse), m.TransactionID, nil)
	if letter, err := wire.ParseLetter(content); err == nil && !slices.Contains(s.seen, m.TransactionID) {
		s.seen = append(s.seen, m.TransactionID)
		l.letters = append(l.letters, slices.Clone(letter.Body))
	}
	return true
}

// answered learns the handles that the server gives out.
func (s *spy) answered(p punchPacket) {
	m, err := wire.Decode(p.data)
	l := s.links[p.to]
	if err != nil || l == nil || m.Type != stun.NewType(wire.Register, stun.ClassSuccessResponse) {
		return
	}
	if e, err := wire.ParseEnvelope(m); err == nil {
		l.handle = e.Handle
		l.keys = wire.NewLinkKeys(l.Secret, l.Enc, e.Handle, l.From, serverKey.ID(), l.Registration.Instance)
	}
}

func (s *spy) seal(l *spyLink, to netip.AddrPort, t stun.MessageType, id wire.TransactionID, content wire.Attrs) {
	l.sequence++
	data := wire.Envelope{Type: t, ID: id, Handle: l.handle, Sequence: l.sequence}.Seal(nil, &l.keys.ToNode, content)
	for _, h := range s.w.homes {
		if h.public == to {
			s.w.at(s.w.now.Add(h.delay+serverDelay), func() { h.receive(punchPacket{server, to, data}) })
		}
	}
}

// say writes a letter to a node in somebody's name, and returns what the node
// answers, or nil.
func (s *spy) say(h *home, c pair.Code, from peer.ID, body []byte) []byte {
	s.w.Helper()
	l := s.links[h.public]
	var id wire.TransactionID
	_, _ = seeded{s.w.rng}.Read(id[:])
	before := len(l.letters)
	s.seal(l, h.public, stun.NewType(wire.Pair, stun.ClassRequest), id, wire.Letter{Plate: wire.Plate(c.Plate), From: from, Body: body}.Append(nil))
	s.w.run(time.Second)
	if len(l.letters) == before {
		return nil
	}
	return l.letters[before]
}

// heard is the n-th letter that a node wrote.
func (s *spy) heard(h *home, n int) []byte {
	s.w.Helper()
	l := s.links[h.public]
	s.w.until(time.Second, func() bool { return len(l.letters) > n })
	return l.letters[n]
}

// between is a code that waits, a node that joins by it, and a spy between the two.
func between(t *testing.T) (s *spy, a, b *home, code pair.Code) {
	t.Helper()
	w := newWorld(t, 1)
	s = turned(w)
	a, b = w.home("a", delayA), w.home("b", delayB)
	w.run(time.Second)
	code = a.invite(time.Hour)
	b.join(code)
	return s, a, b, code
}

// playInviter pairs with b as if the spy had made the code.
func (s *spy) playInviter(b *home, guess pair.Code) {
	i := pair.NewInviter(s.key, serverKey.ID(), guess, seeded{s.w.rng})
	answer, _, _ := i.Take(b.key.ID(), s.heard(b, 0))
	proof := s.say(b, guess, s.key.ID(), answer)
	answer, _, _ = i.Take(b.key.ID(), proof)
	s.say(b, guess, s.key.ID(), answer)
}

// playJoiner pairs with a as if the spy had been told the code.
func (s *spy) playJoiner(a *home, guess pair.Code) {
	j := pair.NewJoiner(s.key, serverKey.ID(), guess, seeded{s.w.rng})
	answer := s.say(a, guess, s.key.ID(), j.First())
	if proof, _, err := j.Take(a.key.ID(), answer); err == nil {
		s.say(a, guess, s.key.ID(), proof)
	}
}

// A server that plays both sides has one guess against each of them. Both notice, and
// the code is dead.
func TestServerThatPlaysBothSides(t *testing.T) {
	t.Parallel()
	s, a, b, code := between(t)
	s.playJoiner(a, other(code))
	s.playInviter(b, other(code))
	a.fails(pair.ErrTried)
	b.fails(pair.ErrWrong)
	// Now that it may know more: nobody is there to be guessed at.
	if answer := s.say(a, code, s.key.ID(), pair.NewJoiner(s.key, serverKey.ID(), code, seeded{s.w.rng}).First()); answer != nil {
		t.Errorf("a second guess is answered with %x", answer)
	}
	if n := a.core.Ignored()["stray-letter"]; n != 1 {
		t.Errorf("%d letters were ignored: %v", n, a.core.Ignored())
	}
}

// One in a million guesses is right: without that, the test before shows nothing.
func TestServerThatGuessesRight(t *testing.T) {
	t.Parallel()
	s, a, b, code := between(t)
	s.playJoiner(a, code)
	s.playInviter(b, code)
	for _, h := range []*home{a, b} {
		if id, _, err := h.outcome(); id != s.key.ID() || err != nil {
			t.Errorf("%s ended with %v, %v", h.name, id, err)
		}
	}
}

// It passes all letters on, but says that they come from itself; or swaps the tags; or
// sends a node its own letters back.
func TestServerThatTampersWithLetters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fromB, fromA func(s *spy, h *home) peer.ID
		tag          func(own, others []byte) []byte
	}{
		"its own ID for the joiner's":  {fromB: func(s *spy, _ *home) peer.ID { return s.key.ID() }},
		"its own ID for the inviter's": {fromA: func(s *spy, _ *home) peer.ID { return s.key.ID() }},
		"one tag for the other":        {tag: func(own, _ []byte) []byte { return append([]byte{4}, own[1:]...) }},
		"a flipped bit":                {tag: func(_, others []byte) []byte { others[9] ^= 1; return others }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, a, b, code := between(t)
			name := func(f func(*spy, *home) peer.ID, h *home) peer.ID {
				if f != nil {
					return f(s, h)
				}
				return h.key.ID()
			}
			share := s.say(a, code, name(c.fromB, b), s.heard(b, 0))
			proof := s.say(b, code, name(c.fromA, a), share)
			welcome := s.say(a, code, name(c.fromB, b), proof)
			if c.tag != nil {
				welcome = c.tag(slices.Clone(proof), slices.Clone(welcome))
			}
			s.say(b, code, name(c.fromA, a), welcome)
			b.fails(pair.ErrWrong)
			if c.tag == nil {
				a.fails(pair.ErrTried)
			}
		})
	}
}

// It begins in the joiner's name and sees what a answers; it cannot check a guess
// against that, and a says that somebody was there.
func TestServerThatBeginsAndStops(t *testing.T) {
	t.Parallel()
	s, a, b, code := between(t)
	if answer := s.say(a, code, s.key.ID(), pair.NewJoiner(s.key, serverKey.ID(), other(code), seeded{s.w.rng}).First()); len(answer) != 33 {
		t.Fatalf("a answers %x", answer)
	}
	s.w.run(pairTime)
	a.fails(pair.ErrUnfinished)
	b.fails(pair.ErrSilent)
}

// Letters to nameplates where nobody waits, before and after: nothing happens.
func TestServerThatWritesToNobody(t *testing.T) {
	t.Parallel()
	s, a, _, code := between(t)
	done := len(a.done)
	for _, plate := range []uint32{0, code.Plate + 1, 1 << 31} {
		if answer := s.say(a, pair.Code{Plate: plate}, s.key.ID(), []byte{1}); answer != nil {
			t.Errorf("nameplate %d: %x", plate, answer)
		}
	}
	for _, d := range a.done[done:] {
		if d.Op == Paired || d.Op == NotPaired {
			t.Errorf("%+v", d.Action)
		}
	}
}
