package pake

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gtank/ristretto255"
)

func unhex(text string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The vectors of draft-irtf-cfrg-cpace-21, appendix B.3: ristretto255 and SHA-512.
var (
	vectorInput = Input{
		Password: []byte("Password"),
		Channel:  unhex("0b415f696e69746961746f720b425f726573706f6e646572"),
		Session:  unhex("7e4b4791d6a8ef019b936c79fb7f2c57"),
	}
	scalarA = [Size]byte(unhex("da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4f f0976d08"))
	scalarB = [Size]byte(unhex("d2316b454718c35362d83d69df6320f38578ed5984651435e2949762 d900b80d"))
	shareA  = [Size]byte(unhex("d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec 482b9157"))
	shareB  = [Size]byte(unhex("3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7 433f7258"))
)

func TestGeneratorOfTheDraft(t *testing.T) {
	t.Parallel()
	want := unhex("11435061636552697374726574746f3235350850617373776f726464" + strings.Repeat("00", 100) +
		"180b415f696e69746961746f720b425f726573706f6e646572107e4b4791d6a8ef019b936c79fb7f2c57")
	if got := generatorString(vectorInput); !bytes.Equal(got, want) {
		t.Errorf("generator string\n%x, want\n%x", got, want)
	}
	want = unhex("222b6b195fe84b1652badb6f6a3ae3d24341e7306967f0b8115b40d5 698c7e56")
	if got := generator(vectorInput).Bytes(); !bytes.Equal(got, want) {
		t.Errorf("generator %x, want %x", got, want)
	}
}

func TestExchangeOfTheDraft(t *testing.T) {
	t.Parallel()
	a, b := newParty(vectorInput, scalarA), newParty(vectorInput, scalarB)
	if a.Share() != shareA || b.Share() != shareB {
		t.Errorf("shares\n%x\n%x, want\n%x\n%x", a.Share(), b.Share(), shareA, shareB)
	}
	k := [Size]byte(unhex("80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc98 87c8b40f"))
	for _, got := range [][Size]byte{multiplied(t, a, shareB), multiplied(t, b, shareA)} {
		if got != k {
			t.Errorf("secret point %x, want %x", got, k)
		}
	}
	want := unhex(`b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dc
		ae7b35cd2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c 3fa2068af7900447`)
	initiated, err := a.Initiate([]byte("ADa"), Side{shareB, []byte("ADb")})
	if err != nil || !bytes.Equal(initiated[:], want) {
		t.Errorf("the initiator's key is\n%x, want\n%x, %v", initiated, want, err)
	}
	responded, err := b.Respond([]byte("ADb"), Side{shareA, []byte("ADa")})
	if err != nil || responded != initiated {
		t.Errorf("the responder's key is %x, %v", responded, err)
	}
}

func multiplied(t *testing.T, p *Party, share [Size]byte) [Size]byte {
	t.Helper()
	k, err := multiply(p.scalar, share)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// B.3.10 and B.3.11: a valid point, one that is none, and the neutral element.
func TestPointsOfTheDraft(t *testing.T) {
	t.Parallel()
	s, err := ristretto255.NewScalar().SetCanonicalBytes(unhex("7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88 cf538a05"))
	if err != nil {
		t.Fatal(err)
	}
	x := [Size]byte(unhex("2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d6 54b4a51c"))
	want := [Size]byte(unhex("7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e 7f6b600e"))
	if got, err := multiply(s, x); got != want || err != nil {
		t.Errorf("got %x, want %x, %v", got, want, err)
	}
	for name, y := range map[string][]byte{
		"not a point":     unhex("2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d6 54b4a51c"),
		"neutral element": make([]byte, Size),
	} {
		if got, err := multiply(s, [Size]byte(y)); !errors.Is(err, ErrShare) || got != [Size]byte{} {
			t.Errorf("%s gave %x, %v", name, got, err)
		}
		p := newParty(vectorInput, scalarA)
		if _, err := p.Initiate(nil, Side{Share: [Size]byte(y)}); !errors.Is(err, ErrShare) {
			t.Errorf("%s in the responder's place: %v", name, err)
		}
		if _, err := p.Respond(nil, Side{Share: [Size]byte(y)}); !errors.Is(err, ErrShare) {
			t.Errorf("%s in the initiator's place: %v", name, err)
		}
	}
}

// A.1 of the draft: lengths of one, two and more bytes.
func TestLengthsAreLEB128(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "00", 4: "04", 127: "7f", 128: "8001", 300: "ac02"} {
		if got := appendValue(nil, make([]byte, n)); !bytes.Equal(got, append(unhex(want), make([]byte, n)...)) {
			t.Errorf("%d bytes begin with %x, want %s", n, got[:min(len(got), 4)], want)
		}
	}
}

// random is the same in every run.
type random struct{ *rand.Rand }

func (r random) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return len(b), nil
}

// Each of the inputs, either side's associated data and either share is part of the
// key: whatever the two see differently, their keys differ.
func TestKeysDifferWhereAnythingDiffers(t *testing.T) {
	t.Parallel()
	type view struct {
		Input
		aboutA, aboutB []byte
	}
	same := view{vectorInput, []byte("a"), []byte("b")}
	for name, change := range map[string]func(*view){
		"nothing":           func(*view) {},
		"password":          func(v *view) { v.Password = []byte("password") },
		"channel":           func(v *view) { v.Channel = []byte("another") },
		"session":           func(v *view) { v.Session = nil },
		"initiator's about": func(v *view) { v.aboutA = []byte("c") },
		"responder's about": func(v *view) { v.aboutB = []byte("c") },
		"moved boundary":    func(v *view) { v.Channel, v.Session = append(v.Channel[:24:24], v.Session[0]), v.Session[1:] },
	} {
		r := random{rand.New(rand.NewPCG(1, 1))}
		other := same
		change(&other)
		a, b := New(same.Input, r), New(other.Input, r)
		left, errA := a.Initiate(same.aboutA, Side{b.Share(), same.aboutB})
		right, errB := b.Respond(other.aboutB, Side{a.Share(), other.aboutA})
		if errA != nil || errB != nil || (left == right) != (name == "nothing") {
			t.Errorf("%s: alike is %v, %v, %v", name, left == right, errA, errB)
		}
	}
}

func FuzzShare(f *testing.F) {
	f.Add(shareA[:], []byte("ADa"))
	f.Add(make([]byte, Size), []byte{})
	f.Add(bytes.Repeat([]byte{0xff}, Size), []byte("x"))
	f.Fuzz(func(t *testing.T, share, about []byte) {
		if len(share) != Size {
			return
		}
		p := newParty(vectorInput, scalarB)
		key, err := p.Respond([]byte("ADb"), Side{[Size]byte(share), about})
		if (err != nil) != (key == [KeySize]byte{}) {
			t.Errorf("%x: key %x, %v", share, key, err)
		}
		// Nobody can have the key who has another share.
		if err == nil && !bytes.Equal(share, shareA[:]) {
			if k, _ := newParty(vectorInput, scalarA).Initiate(about, Side{p.Share(), []byte("ADb")}); k == key {
				t.Errorf("%x has the key of another share", share)
			}
		}
	})
}
