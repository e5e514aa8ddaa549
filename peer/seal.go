package peer

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
)

// A box is what [Key.Seal] makes: enc ‖ ciphertext ‖ MAC.
const (
	encSize = 32 // the KEM's ephemeral public key
	tagSize = 16 // the AEAD's tag over the ciphertext
	macSize = sha256.Size

	// SealOverhead is how many bytes a box is longer than its content.
	SealOverhead = encSize + IDSize + tagSize + macSize
)

// ErrSeal is returned for a box that is not for us, not from whom it says, or
// not whole: nothing more is said about it, to anybody.
var ErrSeal = errors.New("sealed box does not open")

// Seal encrypts content to another peer so that only it can read it, nobody
// else learns who wrote it, and the reader knows both who wrote it and for what
// (purpose and context, which both sides must name alike).
//
// It is HPKE (RFC 9180, DHKEM(X25519), HKDF-SHA256, ChaCha20-Poly1305) in base
// mode, which authenticates nobody, around the sender's ID and the content,
// followed by HMAC-SHA256 over enc ‖ ciphertext ‖ context under a key from
// X25519 of the two peers, which does.
func (k Key) Seal(to ID, purpose string, context, content []byte) ([]byte, error) {
	x, err := to.x25519()
	if err != nil {
		return nil, err
	}
	public, err := hpke.NewDHKEMPublicKey(x)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	plain := append(append(make([]byte, 0, IDSize+len(content)), k.id[:]...), content...)
	box, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo(purpose, to), plain)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	secret, err := k.Shared(to)
	if err != nil {
		return nil, err
	}
	return append(box, sealMAC(secret, purpose, k.id, to, box, context)...), nil
}

// Open reads a box that was sealed to us, and says by whom. Every failure is
// [ErrSeal].
func (k Key) Open(purpose string, context, box []byte) (from ID, content []byte, err error) {
	from, _, content, err = k.OpenShared(purpose, context, box)
	return from, content, err
}

// OpenShared is Open for those who go on talking with the sender: it returns the
// secret too, which opening has to agree on anyway.
func (k Key) OpenShared(purpose string, context, box []byte) (from ID, secret Secret, content []byte, err error) {
	if len(box) < SealOverhead {
		return ID{}, Secret{}, nil, ErrSeal
	}
	sealed, mac := box[:len(box)-macSize], box[len(box)-macSize:]
	private, err := hpke.NewDHKEMPrivateKey(ecdh.KeyExchanger(k.scalar))
	if err != nil {
		return ID{}, Secret{}, nil, ErrSeal
	}
	plain, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo(purpose, k.id), sealed)
	if err != nil || len(plain) < IDSize {
		return ID{}, Secret{}, nil, ErrSeal
	}
	from = ID(plain[:IDSize])
	secret, err = k.Shared(from)
	if err != nil {
		return ID{}, Secret{}, nil, ErrSeal
	}
	if !hmac.Equal(mac, sealMAC(secret, purpose, from, k.id, sealed, context)) {
		return ID{}, Secret{}, nil, ErrSeal
	}
	return from, secret, plain[IDSize:], nil
}

func sealInfo(purpose string, to ID) []byte {
	return append([]byte("bodkin 1 seal "+purpose+"\x00"), to[:]...)
}

func sealMAC(secret Secret, purpose string, from, to ID, sealed, context []byte) []byte {
	key := secret.Key(nil, "seal "+purpose, from[:], to[:])
	h := hmac.New(sha256.New, key[:])
	h.Write(sealed)
	h.Write(context)
	return h.Sum(nil)
}
