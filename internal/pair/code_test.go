package pair

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

type seeded struct{ *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

func newSeeded(seed uint64) seeded { return seeded{rand.New(rand.NewPCG(seed, 0))} }

// Twenty bits, and no word that a slip of the hand makes of another one.
func TestWordsAreDistinct(t *testing.T) {
	t.Parallel()
	if len(words) != 1024 || !slices.IsSorted(words) {
		t.Fatalf("%d words, sorted: %v", len(words), slices.IsSorted(words))
	}
	begins := make(map[string]string)
	for i, w := range words {
		if len(w) < 4 || len(w) > 7 || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("%q is not a word of 4 to 7 letters", w)
		}
		if other := begins[w[:4]]; other != "" {
			t.Errorf("%q begins as %q", w, other)
		}
		begins[w[:4]] = w
		for _, other := range words[:i] {
			if distance(w, other) < 2 {
				t.Errorf("%q is one slip from %q", w, other)
			}
		}
	}
}

func TestSecretsAreDrawnFromAllWords(t *testing.T) {
	t.Parallel()
	r, seen := newSeeded(1), make(map[string]bool)
	for range 20_000 {
		s := NewSecret(r)
		seen[s[0]], seen[s[1]] = true, true
	}
	if len(seen) != len(words) {
		t.Errorf("%d of %d words were drawn", len(seen), len(words))
	}
}

func TestCodesAreReadAsPeopleTypeThem(t *testing.T) {
	t.Parallel()
	want := Code{Plate: 42, Secret: Secret{"lantern", "copper"}}
	if want.String() != "42-lantern-copper" {
		t.Errorf("it is written %q", want)
	}
	for _, text := range []string{
		"42-lantern-copper", "42 lantern copper", " 42-Lantern-COPPER\n", "42 - lantern,copper.", "0042_lantern_copper", "“42–lantern–copper”",
	} {
		if got, err := ParseCode(text); got != want || err != nil {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

func TestMistypedCodesAreFound(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                       "0 parts",
		"42":                     `1 part, a code has a number and two words`,
		"42-lantern":             "2 parts",
		"42-lantern-copper-deer": "4 parts",
		"lantern-copper-42":      `"lantern" is not a number`,
		"0-lantern-copper":       `"0" is not a number`,
		"-1-lantern-copper":      "",
		"4294967296-wagon-deer":  "not a number",
		"42-lantern-coper":       `"coper"; did you mean "copper"?`,
		"42-lanterm-copper":      `"lanterm"; did you mean "lantern"?`,
		"42-lanternnn-copper":    `did you mean "lantern"?`,
		"42-copperfield-lantern": `did you mean "copper"?`,
		"42-xylophone-copper":    `the word "xylophone"; look at it again`,
	} {
		got, err := ParseCode(text)
		if text == "-1-lantern-copper" { // the hyphen stands for nothing
			if err != nil || got.Plate != 1 {
				t.Errorf("%q: %v, %v", text, got, err)
			}
			continue
		}
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string][]string{
		"42-lant":         {"42-lantern-"},
		"42-LANT":         {"42-lantern-"},
		"42-lantern-copp": {"42-lantern-copper"},
		"42-qu":           {"42-quality-", "42-queen-", "42-quick-"},
		"42-xx":           nil, "42": nil, "lan": nil, "42-lantern-copper-": nil, "": nil,
	} {
		if got := Complete(typed); !slices.Equal(got, want) && typed != "42-qu" {
			t.Errorf("%q goes on with %q, want %q", typed, got, want)
		} else if typed == "42-qu" && len(got) < 3 {
			t.Errorf("%q goes on with %q", typed, got)
		}
	}
	if got := Complete("42-"); len(got) != len(words) {
		t.Errorf("%d words to begin with", len(got))
	}
}

// Whatever it is that was read, it is read again as it is written.
func FuzzParseCode(f *testing.F) {
	f.Add("42-lantern-copper")
	f.Add("  7 Wagon   deer ")
	f.Add("42-lantern-coper")
	f.Add("\xff-1-ß")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			return
		}
		if again, err := ParseCode(c.String()); again != c || err != nil {
			t.Errorf("%q is %v, and that %v, %v", text, c, again, err)
		}
		Complete(text)
	})
}
