// Package pake is CPace, a balanced password-authenticated key exchange: two that
// share a few words end with a strong key, and whoever does not know the words can
// try one guess for each run that an honest side takes part in, and nothing
// afterwards.
//
// It is draft-irtf-cfrg-cpace-21 with the suite CPACE-RISTR255-SHA512, initiator and
// responder, and the group of RFC 9496 from a library. It has no messages of its
// own: a share is 32 bytes, and whoever uses it confirms the key.
package pake

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"io"

	"github.com/gtank/ristretto255"
)

// Size is that of a share in bytes, KeySize that of the key.
const (
	Size    = 32
	KeySize = sha512.Size
)

// dsi is G.DSI of §8.3, the group's name where it must not be confused with others.
const dsi = "CPaceRistretto255"

// ErrShare refuses what is not a share: nobody who follows the protocol sends it,
// and going on would give the words away (§7.2: "MUST abort").
var ErrShare = errors.New("not a share of the key exchange")

// Input is what both sides have to give alike, or else their keys differ.
type Input struct {
	Password []byte // PRS
	Channel  []byte // CI: what the exchange is for
	Session  []byte // sid: what no other exchange has; may be empty
}

// Party is one side of one exchange.
type Party struct {
	session []byte
	scalar  *ristretto255.Scalar
	share   [Size]byte
}

// Side is a share with the associated data that it was sent with: who sent it, say.
type Side struct {
	Share [Size]byte
	About []byte
}

// New begins an exchange, with randomness from random.
func New(in Input, random io.Reader) *Party {
	// §8.3: random bytes without the bits above those of the group's size, 252.
	var b [Size]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		panic("pake: no randomness: " + err.Error())
	}
	b[Size-1] &= 0x0f
	return newParty(in, b)
}

// newParty begins an exchange with a scalar below 2^252.
func newParty(in Input, scalar [Size]byte) *Party {
	s, err := ristretto255.NewScalar().SetCanonicalBytes(scalar[:])
	if err != nil {
		panic("pake: " + err.Error())
	}
	p := &Party{session: in.Session, scalar: s}
	copy(p.share[:], ristretto255.NewIdentityElement().ScalarMult(s, generator(in)).Bytes())
	return p
}

// Share is what the other side has to be sent.
func (p *Party) Share() [Size]byte { return p.share }

// Initiate is the key for the side that sent its share first, with its own
// associated data and what it was answered.
func (p *Party) Initiate(about []byte, theirs Side) ([KeySize]byte, error) {
	return p.key(theirs.Share, Side{p.share, about}, theirs)
}

// Respond is the key for the side that answered.
func (p *Party) Respond(about []byte, theirs Side) ([KeySize]byte, error) {
	return p.key(theirs.Share, theirs, Side{p.share, about})
}

// key is ISK of §7.2, with transcript_ir of §6.3.
func (p *Party) key(theirs [Size]byte, first, second Side) (key [KeySize]byte, err error) {
	k, err := multiply(p.scalar, theirs)
	if err != nil {
		return key, err
	}
	var b []byte
	for _, s := range [][]byte{
		[]byte(dsi + "_ISK"), p.session, k[:],
		first.Share[:], first.About, second.Share[:], second.About,
	} {
		b = appendValue(b, s)
	}
	return sha512.Sum512(b), nil
}

// multiply is G.scalar_mult_vfy of §8.3, with an error for G.I.
func multiply(s *ristretto255.Scalar, share [Size]byte) (k [Size]byte, err error) {
	e, err := ristretto255.NewIdentityElement().SetCanonicalBytes(share[:])
	if err != nil {
		return k, ErrShare
	}
	e.ScalarMult(s, e)
	if e.Equal(ristretto255.NewIdentityElement()) == 1 {
		return k, ErrShare
	}
	return [Size]byte(e.Bytes()), nil
}

// generator is G.calculate_generator of §8.3.
func generator(in Input) *ristretto255.Element {
	h := sha512.Sum512(generatorString(in))
	e, err := ristretto255.NewIdentityElement().SetUniformBytes(h[:])
	if err != nil {
		panic("pake: " + err.Error()) // of 64 bytes
	}
	return e
}

// generatorString is generator_string of §8.1. The zeros fill the hash's first
// block, so that the time it takes does not depend on the password.
func generatorString(in Input) []byte {
	b := appendValue(appendValue(nil, []byte(dsi)), in.Password)
	b = appendValue(b, make([]byte, max(0, sha512.BlockSize-1-len(b))))
	return appendValue(appendValue(b, in.Channel), in.Session)
}

// appendValue is prepend_len of §6.3: the length in LEB128, then the value.
func appendValue(b, value []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}
