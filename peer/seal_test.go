package peer

import (
	"bytes"
	"crypto/hpke"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

// sealed is a box from seed 1 to seed 2.
func sealed(t *testing.T, content string) (from, to Key, box []byte) {
	t.Helper()
	from, to = NewKey(seed(1)), NewKey(seed(2))
	box, err := from.Seal(to.ID(), "test", []byte("context"), []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return from, to, box
}

func refused(t *testing.T, name string, k Key, purpose, context string, box []byte) {
	t.Helper()
	from, content, err := k.Open(purpose, []byte(context), box)
	if !errors.Is(err, ErrSeal) || from != (ID{}) || content != nil {
		t.Errorf("%s: from %v, %q, %v", name, from, content, err)
	}
}

func TestBoxOpens(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "x", "some words", string(make([]byte, 1000))} {
		from, to, box := sealed(t, content)
		if len(box) != len(content)+SealOverhead {
			t.Errorf("%d bytes became %d", len(content), len(box))
		}
		before := slices.Clone(box)
		who, got, err := to.Open("test", []byte("context"), box)
		if err != nil || who != from.ID() || string(got) != content {
			t.Errorf("from %v, %q, %v", who, got, err)
		}
		if !bytes.Equal(box, before) {
			t.Error("Open changed the box")
		}
		id := from.ID()
		if bytes.Contains(box, id[:]) {
			t.Error("the box shows who wrote it")
		}
		if _, _, again := sealed(t, content); bytes.Equal(box, again) {
			t.Error("two boxes are alike")
		}
	}
}

// fixedBox was sealed once, from seed 1 to seed 2: a later version must open it
// too, and other implementations can.
var fixedBox, _ = hex.DecodeString("70e9213e31b9cdff2630750f8c2fa1109924e5da74a381582c99b24dc501bd2a" + // enc
	"f30e62ca432a84bb0f4d0fa2782f93ae2e4e56d777423e90866107d77a7fbdab" + // who
	"b426ba8b25f8c0" + // what
	"ff85cb1d4bfa436abc695c2b12359b99" + // tag
	"5922be5772eb366e14d106e556f976b95fb25009d06fd24bc4a3481058f3e287") // MAC

func TestBoxOfAnEarlierVersionOpens(t *testing.T) {
	t.Parallel()
	from, content, err := NewKey(seed(2)).Open("test", []byte("context"), fixedBox)
	if err != nil || from != NewKey(seed(1)).ID() || string(content) != "content" {
		t.Errorf("from %v, %q, %v", from, content, err)
	}
}

func TestBoxForSomethingElseDoesNotOpen(t *testing.T) {
	t.Parallel()
	from, to, box := sealed(t, "content")
	refused(t, "another reader", NewKey(seed(3)), "test", "context", box)
	refused(t, "its writer", from, "test", "context", box)
	refused(t, "another purpose", to, "tests", "context", box)
	refused(t, "no purpose", to, "", "context", box)
	refused(t, "another context", to, "test", "contexts", box)
	refused(t, "no context", to, "test", "", box)
	refused(t, "something behind it", to, "test", "context", append(slices.Clone(box), 0))
	// The MAC is over box and context: a byte cannot move from one to the other.
	mac := len(box) - macSize
	moved := append(append(slices.Clone(box[:mac]), 'c'), box[mac:]...)
	refused(t, "a byte of the context in the box", to, "test", "ontext", moved)
	for n := range len(box) {
		refused(t, "cut short", to, "test", "context", box[:n])
	}
}

func TestBoxWithOneBitChangedDoesNotOpen(t *testing.T) {
	t.Parallel()
	_, to, box := sealed(t, "content")
	for i := range len(box) * 8 {
		box[i/8] ^= 1 << (i % 8)
		refused(t, "one bit", to, "test", "context", box)
		box[i/8] ^= 1 << (i % 8)
	}
	if _, _, err := to.Open("test", []byte("context"), box); err != nil {
		t.Fatal(err)
	}
}

// forge makes the box that says it is from somebody, with the MAC that by can
// compute: base mode lets anybody encrypt anything.
func forge(t *testing.T, by Key, from, to ID) []byte {
	t.Helper()
	x, err := to.x25519()
	if err != nil {
		t.Fatal(err)
	}
	public, err := hpke.NewDHKEMPublicKey(x)
	if err != nil {
		t.Fatal(err)
	}
	box, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo("test", to), append(from[:], "forged"...))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := by.Shared(to)
	if err != nil {
		t.Fatal(err)
	}
	return append(box, sealMAC(secret, "test", from, to, box, []byte("context"))...)
}

// The server knows both peers and passes their offers on. It cannot make one up.
func TestBoxOfAThirdPartyDoesNotOpen(t *testing.T) {
	t.Parallel()
	a, b, server := NewKey(seed(1)), NewKey(seed(2)), NewKey(seed(9))
	refused(t, "forged by the server", b, "test", "context", forge(t, server, a.ID(), b.ID()))
	refused(t, "from nobody", b, "test", "context", forge(t, server, ID{}, b.ID()))
	minus := server.ID()
	minus[31] ^= 0x80
	if from, _, err := b.Open("test", []byte("context"), forge(t, server, minus, b.ID())); err == nil && from == a.ID() {
		t.Error("forged with the opposite point")
	}
	if from, content, err := b.Open("test", []byte("context"), forge(t, a, a.ID(), b.ID())); err != nil || from != a.ID() || string(content) != "forged" {
		t.Errorf("the real one: %v, %q, %v", from, content, err)
	}
	// The ciphertext of one box with the MAC of another.
	_, _, x := sealed(t, "content")
	_, _, y := sealed(t, "content")
	refused(t, "mixed", b, "test", "context", append(slices.Clone(x[:len(x)-macSize]), y[len(y)-macSize:]...))
}

func FuzzOpen(f *testing.F) {
	from, to := NewKey(seed(1)).ID(), NewKey(seed(2))
	f.Add(fixedBox)
	f.Add(fixedBox[:SealOverhead])
	f.Add([]byte{})
	f.Add(make([]byte, SealOverhead))
	f.Fuzz(func(t *testing.T, b []byte) {
		who, _, err := to.Open("test", []byte("context"), b)
		switch {
		case err == nil && (who != from || !bytes.Equal(b, fixedBox)):
			t.Errorf("a box that nobody sealed opened, from %v", who)
		case err != nil && !errors.Is(err, ErrSeal):
			t.Errorf("%v", err)
		}
	})
}
