package wire

import (
	"crypto/cipher"
	"encoding/binary"

	"bodkin/peer"

	"github.com/pion/stun/v3"
	"golang.org/x/crypto/chacha20poly1305"
)

// Handle names a registration at its server. Drawn at random by the server, it
// tells who looks on nothing about the node.
type Handle [8]byte

// LinkKeys seal what one node and its server say to each other after a
// Register: each direction has its own key, fresh with every registration.
type LinkKeys struct {
	ToServer [32]byte
	ToNode   [32]byte
}

// NewLinkKeys derives the keys of a registration. enc is the first 32 bytes of
// the BOX, which the node drew; the handle is what the server drew: with both in
// the salt, neither a repeated request nor a restarted server repeats a key.
func NewLinkKeys(s peer.Secret, enc [32]byte, h Handle, node, server peer.ID, instance uint64) LinkKeys {
	salt := append(append([]byte(nil), enc[:]...), h[:]...)
	i := binary.BigEndian.AppendUint64(nil, instance)
	return LinkKeys{
		ToServer: s.Key(salt, "link to server", node[:], server[:], i),
		ToNode:   s.Key(salt, "link to node", node[:], server[:], i),
	}
}

// Envelope is the outside of a sealed message: all that an onlooker sees.
type Envelope struct {
	Type     stun.MessageType
	ID       TransactionID
	Handle   Handle
	Sequence uint64 // the AEAD's nonce: never twice under one key
	Nonce    []byte // NONCE, proving the source address; often absent
	Code     int    // ERROR-CODE of an error response
}

// Seal builds a message: HANDLE, SEQUENCE, ERROR-CODE, NONCE and, last, SEALED.
func (e Envelope) Seal(b []byte, key *[32]byte, content Attrs) []byte {
	m := newMessage(e.Type, e.ID)
	m.Add(AttrHandle, e.Handle[:])
	m.Add(AttrSequence, binary.BigEndian.AppendUint64(nil, e.Sequence))
	if e.Code != 0 {
		_ = stun.ErrorCodeAttribute{Code: stun.ErrorCode(e.Code)}.AddTo(m)
	}
	if len(e.Nonce) != 0 {
		m.Add(stun.AttrNonce, e.Nonce)
	}
	m.Add(AttrSealed, make([]byte, len(content)+chacha20poly1305.Overhead))
	at := len(m.Raw) - len(content) - chacha20poly1305.Overhead
	aeadOf(key).Seal(m.Raw[at:at], aeadNonce(e.Sequence), content, m.Raw[:at])
	return append(b, m.Raw...)
}

// ParseEnvelope reads the outside of a sealed message; nothing in it is to be
// believed before [Open].
func ParseEnvelope(m *stun.Message) (Envelope, error) {
	e := Envelope{Type: m.Type, ID: m.TransactionID}
	h, err := m.Get(AttrHandle)
	if err != nil || len(h) != len(e.Handle) {
		return e, ErrMalformed
	}
	s, err := m.Get(AttrSequence)
	if err != nil || len(s) != 8 {
		return e, ErrMalformed
	}
	e.Handle, e.Sequence = Handle(h), binary.BigEndian.Uint64(s)
	if n, err := m.Get(stun.AttrNonce); err == nil {
		e.Nonce = n
	}
	var code stun.ErrorCodeAttribute
	if code.GetFrom(m) == nil {
		e.Code = int(code.Code)
	}
	return e, nil
}

// Open authenticates a whole message and decrypts its SEALED, which must be its
// last attribute: not one bit of the message can have changed.
func Open(m *stun.Message, sequence uint64, key *[32]byte) (Attrs, error) {
	if len(m.Attributes) == 0 {
		return nil, ErrMalformed
	}
	last := m.Attributes[len(m.Attributes)-1]
	at := len(m.Raw) - len(last.Value)
	if last.Type != AttrSealed || len(last.Value)%4 != 0 ||
		stun.AttrType(binary.BigEndian.Uint16(m.Raw[at-4:])) != AttrSealed {
		return nil, ErrMalformed
	}
	plain, err := aeadOf(key).Open(nil, aeadNonce(sequence), m.Raw[at:], m.Raw[:at])
	if err != nil {
		return nil, peer.ErrSeal
	}
	content := Attrs(plain)
	if err := content.Check(); err != nil {
		return nil, err
	}
	return content, nil
}

func aeadOf(key *[32]byte) cipher.AEAD {
	a, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic("wire: chacha20poly1305 refused 32 bytes: " + err.Error())
	}
	return a
}

func aeadNonce(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, chacha20poly1305.NonceSize), sequence)
}

// Window is a sliding window against replays (RFC 4303 §3.4.3): it takes each
// sequence number once, and none that is 64 or more behind the highest.
type Window struct {
	highest uint64
	seen    uint64 // bit i: highest-i was seen
}

// Take reports whether sequence is new, and remembers it. Call it only for what
// has been authenticated. Sequence 0 is never new.
func (w *Window) Take(sequence uint64) bool {
	switch {
	case sequence == 0:
		return false
	case sequence > w.highest:
		if d := sequence - w.highest; d < 64 {
			w.seen = w.seen<<d | 1
		} else {
			w.seen = 1
		}
		w.highest = sequence
		return true
	case w.highest-sequence >= 64 || w.seen>>(w.highest-sequence)&1 == 1:
		return false
	default:
		w.seen |= 1 << (w.highest - sequence)
		return true
	}
}
