// Package peer is identity: who a machine is, and what two machines can say to
// each other because of who they are.
//
// A node key is an Ed25519 key. The peer ID is its public key, written in
// lower-case base32 without padding: 52 characters that name the machine
// everywhere. X25519 keys derive from the same key, so that knowing a peer's ID
// is enough to agree on a secret with it.
package peer

import (
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"filippo.io/edwards25519"
)

// IDSize is the size of an ID in bytes, and of its text in characters.
const (
	IDSize     = 32
	IDTextSize = 52
)

// ID names a peer: its Ed25519 public key. IDs are comparable; the zero ID
// names nobody.
type ID [IDSize]byte

// ErrBadID is wrapped by every error about an ID that cannot be one.
var ErrBadID = errors.New("not a peer ID")

const (
	alphabet      = "abcdefghijklmnopqrstuvwxyz234567"
	upperAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// ParseID reads the text of an ID. It takes upper case too, and refuses what
// [ID.Check] refuses.
func ParseID(text string) (ID, error) {
	trimmed := strings.TrimSpace(text)
	if n := utf8.RuneCountInString(trimmed); n != IDTextSize {
		return ID{}, fmt.Errorf("%w: %q has %d characters, an ID has %d (see `bodkin id` on the other machine)",
			ErrBadID, shorten(text), n, IDTextSize)
	}
	for i, c := range trimmed {
		if !strings.ContainsRune(alphabet, c) && !strings.ContainsRune(upperAlphabet, c) {
			return ID{}, fmt.Errorf("%w: %q has %q at position %d; an ID is made of a-z and 2-7",
				ErrBadID, shorten(text), c, i+1)
		}
	}
	lower := strings.ToLower(trimmed)
	raw, err := encoding.DecodeString(lower)
	if err != nil {
		return ID{}, fmt.Errorf("%w: %q: %w", ErrBadID, shorten(text), err)
	}
	id := ID(raw)
	// Base32 leaves four bits over: without this check sixteen texts would name one peer.
	if id.String() != lower {
		return ID{}, fmt.Errorf("%w: %q has a wrong last character; copy it again", ErrBadID, shorten(text))
	}
	return id, id.Check()
}

func shorten(text string) string {
	if len(text) > 64 {
		return text[:61] + "..."
	}
	return text
}

// IDFromBytes reads an ID as it stands on the wire, with the checks of [ID.Check].
func IDFromBytes(b []byte) (ID, error) {
	if len(b) != IDSize {
		return ID{}, fmt.Errorf("%w: %d bytes instead of %d", ErrBadID, len(b), IDSize)
	}
	id := ID(b)
	return id, id.Check()
}

// Check reports whether the ID can be somebody's public key: the canonical
// encoding (RFC 8032 §5.1.3) of a curve point that is not of small order. A
// small-order point would agree on the same "secret" with everybody.
func (id ID) Check() error {
	_, err := id.point()
	return err
}

func (id ID) point() (*edwards25519.Point, error) {
	p, err := new(edwards25519.Point).SetBytes(id[:])
	if err != nil {
		return nil, fmt.Errorf("%w: not a point of the curve; a character may be wrong, copy it again", ErrBadID)
	}
	if ID(p.Bytes()) != id {
		return nil, fmt.Errorf("%w: not the canonical encoding of its point", ErrBadID)
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, fmt.Errorf("%w: a point of small order, which nobody can own", ErrBadID)
	}
	return p, nil
}

// x25519 is the Montgomery form of the ID (RFC 7748 §4.1), the public key that
// secrets are agreed with. ±P share one: whoever derives keys binds full IDs.
func (id ID) x25519() (*ecdh.PublicKey, error) {
	p, err := id.point()
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPublicKey(p.BytesMontgomery())
}

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// String is the text of the ID: 52 characters of lower-case base32.
func (id ID) String() string { return encoding.EncodeToString(id[:]) }

// Short is the first 10 characters, for logs and tables read by people.
func (id ID) Short() string { return id.String()[:10] }

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// Overlay is the IPv6 address that names a peer wherever an IP address is
// needed: a unique local address (RFC 4193, fd00::/8) from a hash of the ID and
// of the instance, the number that a process draws when it starts. Instance 0
// stands for whichever instance accepts.
func Overlay(id ID, instance uint64) netip.Addr {
	h := sha256.New()
	h.Write([]byte("bodkin overlay address"))
	h.Write(id[:])
	_ = binary.Write(h, binary.BigEndian, instance)
	var a [16]byte
	copy(a[:], h.Sum(nil))
	a[0] = 0xfd
	return netip.AddrFrom16(a)
}
