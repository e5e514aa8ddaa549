package pair

import (
	"crypto/subtle"
	"encoding/binary"
	"io"

	"bodkin/internal/pake"
	"bodkin/peer"
)

// Kinds of letters: their first byte. All but a refusal have 32 bytes more.
const (
	letterRefusal byte = iota
	letterJoin         // the joiner's share
	letterAnswer       // the inviter's share
	letterProof        // the joiner's tag
	letterWelcome      // the inviter's tag
)

const letterSize = 1 + pake.Size

// letter builds one.
func letter(kind byte, body [pake.Size]byte) []byte { return append([]byte{kind}, body[:]...) }

// parseLetter reads one of that kind; everything else is false.
func parseLetter(b []byte, kind byte) (body [pake.Size]byte, ok bool) {
	if len(b) != letterSize || b[0] != kind {
		return body, false
	}
	return [pake.Size]byte(b[1:]), true
}

// side is what both sides of a pairing have.
type side struct {
	key    peer.Key
	server peer.ID
	party  *pake.Party
}

func newSide(key peer.Key, server peer.ID, c Code, random io.Reader) side {
	channel := append([]byte("bodkin pair 1\x00"), server[:]...)
	return side{key, server, pake.New(pake.Input{
		Password: c.Secret.password(),
		Channel:  binary.BigEndian.AppendUint32(channel, c.Plate),
	}, random)}
}

// tags are what prove to each other that both know the words, and have the private
// halves of their IDs: the secret of the two keys goes into them, salted with what
// came of the words.
type tags struct{ joiner, inviter [pake.Size]byte }

func (s side) tags(secret peer.Secret, isk [pake.KeySize]byte, joiner, inviter peer.ID) tags {
	return tags{
		joiner:  secret.Key(isk[:], "pair joiner", joiner[:], inviter[:], s.server[:]),
		inviter: secret.Key(isk[:], "pair inviter", joiner[:], inviter[:], s.server[:]),
	}
}

// other is the secret that we share with the one whom the server names, who must not
// be ourselves.
func (s side) other(id peer.ID) (peer.Secret, bool) {
	secret, err := s.key.Shared(id)
	return secret, err == nil && id != s.key.ID()
}

func same(a, b [pake.Size]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// Inviter is the side of the one who made the code. It takes part once.
type Inviter struct {
	side
	joiner peer.ID // zero until somebody joins
	tags   tags
}

// NewInviter begins a pairing.
func NewInviter(key peer.Key, server peer.ID, c Code, random io.Reader) *Inviter {
	return &Inviter{side: newSide(key, server, c, random)}
}

// Joined reports whether somebody has begun to join.
func (i *Inviter) Joined() bool { return !i.joiner.IsZero() }

// Take takes a letter of the one whom the server calls from, and returns what to
// answer. The pairing is done, and from who was invited, if done is set. After an
// error the code is used up; the answer says so to the other side.
func (i *Inviter) Take(from peer.ID, b []byte) (answer []byte, done bool, err error) {
	refuse := func() ([]byte, bool, error) { return []byte{letterRefusal}, false, ErrTried }
	if i.Joined() {
		tag, ok := parseLetter(b, letterProof)
		if !ok || from != i.joiner || !same(tag, i.tags.joiner) {
			return refuse()
		}
		return letter(letterWelcome, i.tags.inviter), true, nil
	}
	i.joiner = from
	share, ok := parseLetter(b, letterJoin)
	secret, fit := i.other(from)
	if !ok || !fit {
		return refuse()
	}
	self := i.key.ID()
	isk, err := i.party.Respond(self[:], pake.Side{Share: share, About: from[:]})
	if err != nil {
		return refuse()
	}
	i.tags = i.side.tags(secret, isk, from, self)
	return letter(letterAnswer, i.party.Share()), false, nil
}

// Joiner is the side of the one who was told the code.
type Joiner struct {
	side
	inviter peer.ID // zero until it has answered
	tags    tags
}

// NewJoiner begins a pairing.
func NewJoiner(key peer.Key, server peer.ID, c Code, random io.Reader) *Joiner {
	return &Joiner{side: newSide(key, server, c, random)}
}

// Answered reports whether the inviter has.
func (j *Joiner) Answered() bool { return !j.inviter.IsZero() }

// First is the letter that begins it.
func (j *Joiner) First() []byte { return letter(letterJoin, j.party.Share()) }

// Take is Inviter.Take for the other side. Nothing is to be answered if done is set.
func (j *Joiner) Take(from peer.ID, b []byte) (answer []byte, done bool, err error) {
	if j.Answered() {
		tag, ok := parseLetter(b, letterWelcome)
		if !ok || from != j.inviter || !same(tag, j.tags.inviter) {
			return nil, false, ErrWrong
		}
		return nil, true, nil
	}
	j.inviter = from
	share, ok := parseLetter(b, letterAnswer)
	secret, fit := j.other(from)
	if !ok || !fit {
		return nil, false, ErrWrong
	}
	self := j.key.ID()
	isk, err := j.party.Initiate(self[:], pake.Side{Share: share, About: from[:]})
	if err != nil {
		return nil, false, ErrWrong
	}
	j.tags = j.side.tags(secret, isk, self, from)
	return letter(letterProof, j.tags.joiner), false, nil
}
