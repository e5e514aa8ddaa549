package peer

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
)

// Key is a node key: the private half of an [ID]. The zero Key is not valid;
// make one with [GenerateKey] or read one with [LoadKey].
type Key struct {
	signing ed25519.PrivateKey
	id      ID
	scalar  *ecdh.PrivateKey
}

// GenerateKey draws a new node key.
func GenerateKey() (Key, error) {
	var seed [ed25519.SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return Key{}, fmt.Errorf("generate node key: %w", err)
	}
	return NewKey(seed), nil
}

// NewKey is the node key of a 32-byte Ed25519 seed (RFC 8032 §5.1.5). Whoever
// has the seed is the node.
func NewKey(seed [ed25519.SeedSize]byte) Key {
	private := ed25519.NewKeyFromSeed(seed[:])
	// The Ed25519 scalar is the clamped first half of SHA-512(seed), and X25519
	// clamps alike: one scalar serves both curves' forms.
	h := sha512.Sum512(seed[:])
	scalar, err := ecdh.X25519().NewPrivateKey(h[:32])
	if err != nil {
		panic("peer: X25519 refused 32 bytes: " + err.Error())
	}
	return Key{signing: private, id: ID(private.Public().(ed25519.PublicKey)), scalar: scalar}
}

// ID is the public half.
func (k Key) ID() ID { return k.id }

// IsZero reports whether k is no key at all.
func (k Key) IsZero() bool { return k.signing == nil }

// Format writes whose key it is, whatever the verb: a Key that gets into a log or
// an error gives nothing away.
func (k Key) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "key of %s", k.id) }

// Private is the signing key, as TLS certificates need it.
func (k Key) Private() ed25519.PrivateKey { return k.signing }

// Derive is a secret of this node alone, for the purpose that label names.
func (k Key) Derive(label string) [32]byte {
	return expand(k.signing.Seed(), nil, label)
}

// Secret is what two peers know and nobody else: X25519 of one's key and the
// other's ID. Everything used comes out of [Secret.Key], which binds the full
// IDs that the caller names.
type Secret [32]byte

// Shared agrees on the secret with another peer. It fails only if other is not
// a valid ID.
func (k Key) Shared(other ID) (Secret, error) {
	public, err := other.x25519()
	if err != nil {
		return Secret{}, err
	}
	s, err := k.scalar.ECDH(public)
	if err != nil {
		return Secret{}, fmt.Errorf("%w: %w", ErrBadID, err)
	}
	return Secret(s), nil
}

// Key derives a 32-byte key by HKDF-SHA256 (RFC 5869). salt separates uses in
// time (a session nonce, say); label separates uses in kind; the parts are
// bound in order and each should have a fixed length.
func (s Secret) Key(salt []byte, label string, parts ...[]byte) [32]byte {
	return expand(s[:], salt, label, parts...)
}

func expand(secret, salt []byte, label string, parts ...[]byte) [32]byte {
	info := []byte("bodkin 1 " + label + "\x00")
	for _, p := range parts {
		info = append(info, p...)
	}
	out, err := hkdf.Key(sha256.New, secret, salt, string(info), 32)
	if err != nil {
		panic("peer: HKDF refused 32 bytes: " + err.Error())
	}
	return [32]byte(out)
}
