package pair

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Code is what one person tells another: where to meet, and a secret of 20 bits.
type Code struct {
	Plate  uint32 // the nameplate, from the server
	Secret Secret
}

// Secret is the words of a code. They never leave the machine.
type Secret [2]string

// NewSecret draws words.
func NewSecret(random io.Reader) (s Secret) {
	var b [2]byte
	for i := range s {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			panic("pair: no randomness: " + err.Error())
		}
		s[i] = words[int(binary.BigEndian.Uint16(b[:]))%len(words)]
	}
	return s
}

// String is the code as it is read to others.
func (c Code) String() string { return fmt.Sprintf("%d-%s-%s", c.Plate, c.Secret[0], c.Secret[1]) }

// password is what the key exchange is told.
func (s Secret) password() []byte { return []byte(s[0] + "-" + s[1]) }

// ParseCode reads a code, in upper or lower case, with hyphens, spaces or other marks
// between its parts. What it cannot be is found here, before anybody is asked.
func ParseCode(text string) (Code, error) {
	parts := split(text)
	if len(parts) != 3 {
		return Code{}, fmt.Errorf("%w: %q has %s, a code has a number and two words, as 42-lantern-copper", ErrMalformed, text, parted(len(parts)))
	}
	n, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil || n == 0 {
		return Code{}, fmt.Errorf("%w: %q is not a number, and a code begins with one, as 42-lantern-copper", ErrMalformed, parts[0])
	}
	c := Code{Plate: uint32(n), Secret: Secret(parts[1:])}
	for _, w := range c.Secret {
		if _, ok := slices.BinarySearch(words, w); !ok {
			return Code{}, unknownWord(w)
		}
	}
	return c, nil
}

func split(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

func parted(n int) string {
	if n == 1 {
		return "1 part"
	}
	return fmt.Sprintf("%d parts", n)
}

func unknownWord(w string) error {
	if near := nearest(w); near != "" {
		return fmt.Errorf("%w: no code has the word %q; did you mean %q?", ErrMalformed, w, near)
	}
	return fmt.Errorf("%w: no code has the word %q; look at it again", ErrMalformed, w)
}

// nearest is the word that somebody who typed w most probably meant, or "".
func nearest(w string) string {
	best, at := "", 3
	for _, word := range words {
		if d := distance(w, word); d < at {
			best, at = word, d
		}
	}
	if best == "" && len(w) >= 4 {
		if i, _ := slices.BinarySearch(words, w[:4]); i < len(words) && words[i][:4] == w[:4] {
			best = words[i]
		}
	}
	return best
}

// distance is how many letters are wrong, missing, too many or exchanged with the
// next one: 3 stands for more than 2.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return min(last[len(b)], 3)
}

// Complete is what a code may go on with that somebody has begun to type, for shells:
// whole codes, or beginnings that end in a hyphen.
func Complete(typed string) (out []string) {
	parts := strings.Split(strings.ToLower(typed), "-")
	if _, err := strconv.ParseUint(parts[0], 10, 32); err != nil || len(parts) < 2 || len(parts) > 3 {
		return nil
	}
	last := len(parts) - 1
	done, after := strings.Join(parts[:last], "-"), ""
	if last == 1 {
		after = "-"
	}
	for _, w := range words {
		if strings.HasPrefix(w, parts[last]) {
			out = append(out, done+"-"+w+after)
		}
	}
	return out
}
