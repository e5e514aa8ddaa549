package wire_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// sampleRequest is RFC 8489's appendix B.1 as erratum 6268 corrects it: its length
// was wrong, and the PASSWORD-ALGORITHM that its key needs was missing.
var sampleRequest = unhex("000100902112a44278ad3433c6ad72c029da412e" +
	"001e0020" + "4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704" + // USERHASH
	"00150029" + "6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341000000" + // NONCE
	"0014000b" + "6578616d706c652e6f726700" + // REALM
	"001d0004" + "00020000" + // PASSWORD-ALGORITHM
	"001c0020" + "b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65")

func TestMessageIntegrityOfRFC8489(t *testing.T) {
	t.Parallel()
	key := wire.Integrity(sha256.Sum256([]byte("マトリックス:example.org:TheMatrIX")))
	m, err := wire.Decode(sampleRequest)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Check(m); err != nil {
		t.Error(err)
	}
	again := &stun.Message{Type: m.Type, TransactionID: m.TransactionID}
	again.WriteHeader()
	for _, a := range m.Attributes[:len(m.Attributes)-1] {
		again.Add(a.Type, a.Value)
	}
	if err := key.AddTo(again); err != nil || !bytes.Equal(again.Raw, sampleRequest) {
		t.Errorf("built as %x, %v", again.Raw, err)
	}
}

func TestIntegrityMustBeThereWholeAndLast(t *testing.T) {
	t.Parallel()
	key := wire.Integrity{1, 2, 3}
	build := func(change func(*stun.Message)) *stun.Message {
		m := &stun.Message{Type: stun.BindingRequest, TransactionID: transaction(1)}
		m.WriteHeader()
		change(m)
		got, err := wire.Decode(m.Raw)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	add := func(m *stun.Message) {
		if err := key.AddTo(m); err != nil {
			t.Error(err)
		}
	}
	if err := key.Check(build(add)); err != nil {
		t.Errorf("alone: %v", err)
	}
	for _, c := range []struct {
		name   string
		change func(*stun.Message)
		want   error
	}{
		{"absent", func(*stun.Message) {}, wire.ErrMalformed},
		{"of another kind", func(m *stun.Message) { m.Add(stun.AttrMessageIntegrity, make([]byte, 20)) }, wire.ErrMalformed},
		{"cut short", func(m *stun.Message) { m.Add(wire.AttrIntegrity, make([]byte, 16)) }, wire.ErrMalformed},
		{"not last", func(m *stun.Message) { add(m); m.Add(wire.AttrSession, make([]byte, 8)) }, wire.ErrMalformed},
		{"zero", func(m *stun.Message) { m.Add(wire.AttrIntegrity, make([]byte, 32)) }, stun.ErrIntegrityMismatch},
		{"twice", func(m *stun.Message) { add(m); add(m) }, nil},
	} {
		if err := key.Check(build(c.change)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	other := wire.Integrity{1, 2, 4}
	if err := other.Check(build(add)); !errors.Is(err, stun.ErrIntegrityMismatch) {
		t.Errorf("another key: %v", err)
	}
}

func TestDecodeRefusesWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	good := golden("probe")
	change := func(i int, to ...byte) []byte {
		b := slices.Clone(good)
		copy(b[i:], to)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":               {},
		"half a header":         good[:10],
		"first bit set":         change(0, 0x80),
		"second bit set":        change(0, 0x40),
		"another class of ours": change(0, 0x04),
		"no cookie":             change(4, 0),
		"too long a length":     change(2, 0, 64),
		"too short a length":    change(2, 0, 56),
		"attribute cut short":   change(22, 0xff, 0xff),
		"cut short":             good[:len(good)-4],
		"something behind it":   append(slices.Clone(good), 0, 0, 0, 0),
		"too large":             wire.AppendRegister(nil, transaction(1), []byte("nonce"), make([]byte, wire.MaxMessage)),
	} {
		if m, err := wire.Decode(b); !errors.Is(err, wire.ErrMalformed) || m != nil {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	b := slices.Clone(good)
	m, err := wire.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !bytes.Equal(m.Raw, good) {
		t.Error("the message shares memory with the packet")
	}
}
