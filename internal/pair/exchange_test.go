package pair

import (
	"bytes"
	"errors"
	"testing"

	"bodkin/internal/pake"
	"bodkin/peer"
)

var (
	keyA, keyB, keyC = peer.NewKey([32]byte{1}), peer.NewKey([32]byte{2}), peer.NewKey([32]byte{3})
	server           = peer.NewKey([32]byte{9}).ID()
	theCode          = Code{42, Secret{"lantern", "copper"}}
	otherCode        = Code{42, Secret{"lantern", "wagon"}}
)

// meet carries letters between a joiner and an inviter, as the server names them to
// each other, and returns how it ended for both.
func meet(i *Inviter, j *Joiner, joiner, inviter peer.ID) (atInviter, atJoiner error) {
	atInviter = errors.New("not over")
	for b := j.First(); ; {
		answer, done, err := i.Take(joiner, b)
		if done || err != nil {
			atInviter = err
		}
		reply, done, err := j.Take(inviter, answer)
		if done || err != nil {
			return atInviter, err
		}
		b = reply
	}
}

func TestBothKnowEachOther(t *testing.T) {
	t.Parallel()
	i, j := NewInviter(keyA, server, theCode, newSeeded(1)), NewJoiner(keyB, server, theCode, newSeeded(2))
	if a, b := meet(i, j, keyB.ID(), keyA.ID()); a != nil || b != nil {
		t.Errorf("inviter: %v, joiner: %v", a, b)
	}
}

func TestPairingFails(t *testing.T) {
	t.Parallel()
	anotherServer := peer.NewKey([32]byte{8}).ID()
	for name, c := range map[string]struct {
		joiner          *Joiner
		asJoiner, asHim peer.ID // as the server names the two to each other
	}{
		"wrong words":                  {NewJoiner(keyB, server, otherCode, newSeeded(2)), keyB.ID(), keyA.ID()},
		"words in the wrong order":     {NewJoiner(keyB, server, Code{42, Secret{"copper", "lantern"}}, newSeeded(2)), keyB.ID(), keyA.ID()},
		"another nameplate":            {NewJoiner(keyB, server, Code{43, theCode.Secret}, newSeeded(2)), keyB.ID(), keyA.ID()},
		"another server":               {NewJoiner(keyB, anotherServer, theCode, newSeeded(2)), keyB.ID(), keyA.ID()},
		"joiner under another's name":  {NewJoiner(keyB, server, theCode, newSeeded(2)), keyC.ID(), keyA.ID()},
		"inviter under another's name": {NewJoiner(keyB, server, theCode, newSeeded(2)), keyB.ID(), keyC.ID()},
		"joiner is ourselves":          {NewJoiner(keyA, server, theCode, newSeeded(2)), keyA.ID(), keyA.ID()},
		"inviter is the joiner":        {NewJoiner(keyB, server, theCode, newSeeded(2)), keyB.ID(), keyB.ID()},
	} {
		i := NewInviter(keyA, server, theCode, newSeeded(1))
		a, b := meet(i, c.joiner, c.asJoiner, c.asHim)
		if !errors.Is(b, ErrWrong) || a == nil {
			t.Errorf("%s: inviter: %v, joiner: %v", name, a, b)
		}
	}
}

// Whoever knows the words, but claims an ID whose key is somebody else's, gets
// nowhere: the tags need both private keys.
func TestIDOfAnotherIsNoUse(t *testing.T) {
	t.Parallel()
	i := NewInviter(keyA, server, theCode, newSeeded(1))
	thief := NewJoiner(keyB, server, theCode, newSeeded(2))
	// It says of itself what the server says of it: that it is C.
	answer, _, err := i.Take(keyC.ID(), thief.First())
	if err != nil {
		t.Fatal(err)
	}
	share, _ := parseLetter(answer, letterAnswer)
	id, self := keyC.ID(), keyA.ID()
	isk, err := thief.party.Initiate(id[:], sideOf(share, self))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := keyB.Shared(self) // the only one that it has
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := i.Take(id, letter(letterProof, thief.side.tags(secret, isk, id, self).joiner)); done || !errors.Is(err, ErrTried) {
		t.Errorf("done %v, %v", done, err)
	}
}

// The first that joins uses the code up: a second one, a second try of the same one
// and a letter that makes no sense all end it.
func TestOneGuess(t *testing.T) {
	t.Parallel()
	first := NewJoiner(keyB, server, otherCode, newSeeded(2))
	second := NewJoiner(keyB, server, theCode, newSeeded(3))
	for name, c := range map[string]struct {
		from   peer.ID
		letter []byte
	}{
		"second try":     {keyB.ID(), second.First()},
		"second joiner":  {keyC.ID(), second.First()},
		"nonsense":       {keyB.ID(), []byte("hello")},
		"nothing":        {keyB.ID(), nil},
		"refusal":        {keyB.ID(), []byte{letterRefusal}},
		"our own answer": {keyB.ID(), nil},
	} {
		i := NewInviter(keyA, server, theCode, newSeeded(1))
		answer, done, err := i.Take(keyB.ID(), first.First())
		if done || err != nil || !i.Joined() {
			t.Fatal(done, err)
		}
		if name == "our own answer" {
			c.letter = answer
		}
		if answer, done, err := i.Take(c.from, c.letter); done || !errors.Is(err, ErrTried) || !bytes.Equal(answer, []byte{letterRefusal}) {
			t.Errorf("%s: %x, done %v, %v", name, answer, done, err)
		}
	}
}

func FuzzInviter(f *testing.F) {
	j := NewJoiner(keyB, server, theCode, newSeeded(2))
	f.Add(j.First(), []byte{letterRefusal})
	f.Add(make([]byte, letterSize), make([]byte, letterSize))
	f.Add(j.First(), append([]byte{letterProof}, make([]byte, letterSize-1)...))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		i := NewInviter(keyA, server, theCode, newSeeded(1))
		answer, done, err := i.Take(keyB.ID(), one)
		if done || len(answer) > letterSize {
			t.Fatalf("done by %x, answer %x", one, answer)
		}
		if err != nil {
			return
		}
		if _, done, err := i.Take(keyB.ID(), two); done || err == nil {
			t.Errorf("%x and %x: done %v, %v", one, two, done, err)
		}
	})
}

func FuzzJoiner(f *testing.F) {
	i := NewInviter(keyA, server, theCode, newSeeded(1))
	answer, _, _ := i.Take(keyB.ID(), NewJoiner(keyB, server, theCode, newSeeded(2)).First())
	f.Add(answer, []byte{letterRefusal})
	f.Add(make([]byte, letterSize), make([]byte, letterSize))
	f.Add(answer, append([]byte{letterWelcome}, make([]byte, letterSize-1)...))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		j := NewJoiner(keyB, server, theCode, newSeeded(2))
		answer, done, err := j.Take(keyA.ID(), one)
		if done || (err == nil) != (len(answer) == letterSize) {
			t.Fatalf("done %v by %x, answer %x, %v", done, one, answer, err)
		}
		if err != nil {
			return
		}
		if _, done, err := j.Take(keyA.ID(), two); done || err == nil {
			t.Errorf("%x and %x: done %v, %v", one, two, done, err)
		}
	})
}

func sideOf(share [pake.Size]byte, id peer.ID) pake.Side {
	return pake.Side{Share: share, About: id[:]}
}
