package peer

import (
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"filippo.io/edwards25519/field"
)

func id(t *testing.T, text string) (out ID) {
	t.Helper()
	if n, err := hex.Decode(out[:], []byte(text)); err != nil || n != IDSize {
		t.Fatalf("test ID %q: %d bytes, %v", text, n, err)
	}
	return out
}

func seed(b byte) (s [32]byte) {
	for i := range s {
		s[i] = b
	}
	return s
}

func TestTextOfAnIDRoundTrips(t *testing.T) {
	t.Parallel()
	for i := range 100 {
		want := NewKey(seed(byte(i))).ID()
		for _, form := range []string{want.String(), strings.ToUpper(want.String()), "\t" + want.String() + " \n"} {
			if got, err := ParseID(form); err != nil || got != want {
				t.Fatalf("ParseID(%q) = %v, %v", form, got, err)
			}
		}
		if len(want.String()) != IDTextSize || !strings.HasPrefix(want.String(), want.Short()) {
			t.Fatalf("text %q, short %q", want, want.Short())
		}
	}
	type config struct{ Peer ID }
	in := config{NewKey(seed(1)).ID()}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `{"Peer":"`+in.Peer.String()+`"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var out config
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Fatalf("%v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"Peer":"nobody"}`), &out); !errors.Is(err, ErrBadID) || out != in {
		t.Fatalf("%v, %v", out, err)
	}
}

func TestBadTextOfAnIDSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := NewKey(seed(1)).ID().String()
	last := strings.IndexByte(alphabet, good[IDTextSize-1])
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "has 0 characters, an ID has 52"},
		{"short", good[:51], "has 51 characters"},
		{"long", good + "a", "has 53 characters"},
		{"huge", strings.Repeat("a", 1<<20), `..." has 1048576 characters`},
		{"digit one", good[:10] + "1" + good[11:], `has '1' at position 11; an ID is made of a-z and 2-7`},
		{"padding", good[:51] + "=", `has '=' at position 52`},
		{"space inside", good[:4] + " " + good[5:], `has ' ' at position 5`},
		{"umlaut", good[:20] + "ä" + good[21:], `has 'ä' at position 21`},
		{"Kelvin sign, whose lower case is k", good[:20] + "\u212a" + good[21:], `at position 21`},
		{"bytes that are no text", good[:20] + "\xff" + good[21:], `at position 21`},
		{"left-over bits", good[:51] + alphabet[last|1:last|1+1], "wrong last character"},
		{"not on the curve", encoding.EncodeToString(append([]byte{2}, make([]byte, 31)...)), "not a point of the curve"},
		{"small order", ID{}.String(), "small order"},
	} {
		_, err := ParseID(c.text)
		if !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
		if len(err.Error()) > 300 {
			t.Errorf("%s: an error of %d bytes", c.name, len(err.Error()))
		}
	}
}

func TestBytesOfAnIDMustBeOne(t *testing.T) {
	t.Parallel()
	good := NewKey(seed(1)).ID()
	if got, err := IDFromBytes(good[:]); err != nil || got != good {
		t.Errorf("%v, %v", got, err)
	}
	for _, n := range []int{0, 1, 31, 33, 64} {
		if _, err := IDFromBytes(make([]byte, n)); !errors.Is(err, ErrBadID) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// All eight points of small order, in their canonical encodings:
// with one of them anybody would share a secret with anybody.
func TestSmallOrderPointsAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", // order 1
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 2
		"0000000000000000000000000000000000000000000000000000000000000000", // 4
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // 8
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	} {
		p := id(t, text)
		if err := p.Check(); !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), "small order") {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := ParseID(p.String()); !errors.Is(err, ErrBadID) {
			t.Errorf("parsing %s: %v", text, err)
		}
		if s, err := NewKey(seed(1)).Shared(p); !errors.Is(err, ErrBadID) || s != (Secret{}) {
			t.Errorf("a secret with %s: %v", text, err)
		}
		if _, err := NewKey(seed(1)).Seal(p, "test", nil, nil); !errors.Is(err, ErrBadID) {
			t.Errorf("a box for %s: %v", text, err)
		}
	}
}

// RFC 8032 §5.1.3 lets a decoder refuse y >= p and -0: with them a point would
// have two names.
func TestNonCanonicalPointsAreRefused(t *testing.T) {
	t.Parallel()
	refused := 0
	for k := range 19 { // y = p + k
		for _, sign := range []byte{0, 0x80} {
			var p ID
			for i := range p {
				p[i] = 0xff
			}
			p[0], p[31] = 0xed+byte(k), 0x7f|sign
			err := p.Check()
			if !errors.Is(err, ErrBadID) {
				t.Errorf("y = p+%d, sign %#x: %v", k, sign, err)
			} else if strings.Contains(err.Error(), "canonical") {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("none of them is a point, the test shows nothing")
	}
	for _, minusZero := range []string{
		"0100000000000000000000000000000000000000000000000000000000000080",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		if err := id(t, minusZero).Check(); !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), "canonical") {
			t.Errorf("%s: %v", minusZero, err)
		}
	}
}

// RFC 7748 §4.1: the base points of both forms belong together.
func TestBasePointIsNine(t *testing.T) {
	t.Parallel()
	u, err := id(t, "5866666666666666666666666666666666666666666666666666666666666666").x25519()
	if err != nil || hex.EncodeToString(u.Bytes()) != "09"+strings.Repeat("00", 31) {
		t.Errorf("%v, %v", u, err)
	}
}

// RFC 7748 §6.1, with Bob's public key brought to the form that an ID has.
func TestSharedSecretOfRFC7748(t *testing.T) {
	t.Parallel()
	const (
		alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
		bob   = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
		want  = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
	)
	private := id(t, alice)
	scalar, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	u := id(t, bob)
	x, err := new(field.Element).SetBytes(u[:])
	if err != nil {
		t.Fatal(err)
	}
	one := new(field.Element).One()
	y := new(field.Element).Multiply(
		new(field.Element).Subtract(x, one),
		new(field.Element).Invert(new(field.Element).Add(x, one)))
	other := ID(y.Bytes())
	back, err := other.x25519()
	if err != nil || hex.EncodeToString(back.Bytes()) != bob {
		t.Fatalf("the point came back as %v, %v", back, err)
	}
	s, err := Key{scalar: scalar}.Shared(other)
	if err != nil || hex.EncodeToString(s[:]) != want {
		t.Errorf("%x, %v", s, err)
	}
}

// Nothing tells P from -P in their X25519 form: what does is that every derived
// key binds the full IDs.
func TestOppositePointsShareASecretButNoKey(t *testing.T) {
	t.Parallel()
	us, p := NewKey(seed(1)), NewKey(seed(2)).ID()
	minus := p
	minus[31] ^= 0x80
	if err := minus.Check(); err != nil {
		t.Fatal(err)
	}
	a, err := us.Shared(p)
	if err != nil {
		t.Fatal(err)
	}
	b, err := us.Shared(minus)
	if err != nil || a != b {
		t.Fatalf("secrets %x and %x, %v", a, b, err)
	}
	if a.Key(nil, "test", p[:]) == b.Key(nil, "test", minus[:]) {
		t.Error("two peers have one key")
	}
	box, err := NewKey(seed(2)).Seal(us.ID(), "test", nil, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if from, _, err := us.Open("test", nil, box); err != nil || from != p {
		t.Errorf("the box is from %v, %v", from, err)
	}
}

func TestOverlayAddressNamesPeerAndInstance(t *testing.T) {
	t.Parallel()
	ula := netip.MustParsePrefix("fd00::/8")
	seen := make(map[netip.Addr]string)
	for i := range 50 {
		p := NewKey(seed(byte(i))).ID()
		for _, instance := range []uint64{0, 1, 2, 1 << 63} {
			a, name := Overlay(p, instance), fmt.Sprint(p.Short(), " ", instance)
			if !ula.Contains(a) || a != Overlay(p, instance) {
				t.Errorf("%s is at %v", name, a)
			}
			if seen[a] != "" {
				t.Errorf("%s and %s are both at %v", name, seen[a], a)
			}
			seen[a] = name
		}
	}
	// Other implementations count on these.
	p := NewKey(seed(1)).ID()
	for instance, want := range map[uint64]string{
		0:                  "fd79:321b:a5c8:be5e:74db:87ad:7bfb:f3ff",
		0x0123456789abcdef: "fd16:dda6:12e1:722b:b679:beda:2ad3:ba9d",
	} {
		if got := Overlay(p, instance); got != netip.MustParseAddr(want) {
			t.Errorf("instance %x is at %v, want %s", instance, got, want)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(NewKey(seed(1)).ID().String())
	f.Add(strings.ToUpper(NewKey(seed(2)).ID().String()))
	f.Add(ID{}.String())
	f.Add("")
	f.Add(strings.Repeat("\xff", IDTextSize))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseID(text)
		if err != nil {
			if !errors.Is(err, ErrBadID) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if p.String() != strings.ToLower(strings.TrimSpace(text)) || p.Check() != nil {
			t.Errorf("%q became %v", text, p)
		}
	})
}
