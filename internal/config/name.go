package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bodkin/peer"
)

// maxName is how long a petname can be: it stands in tables.
const maxName = 40

// ErrBadName is wrapped by every error about a text that cannot be a petname.
var ErrBadName = errors.New("not a name for a peer")

// CheckName says what is wrong with a petname, if anything. It has 1 to 40 lower-case
// letters, digits, '-', '_' and '.', begins with a letter or a digit, and is never
// what could be a peer ID.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: %q has %d characters; it has 1 to %d", ErrBadName, name, len(name), maxName)
	}
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i == 0:
			return fmt.Errorf("%w: %q begins with %q; a name begins with a lower-case letter or a digit", ErrBadName, name, c)
		case !strings.ContainsRune("-_.", c):
			return fmt.Errorf("%w: %q has %q in it; a name is made of a-z, 0-9, '-', '_' and '.'", ErrBadName, name, c)
		}
	}
	return nil
}

// ErrUnknownPeer is wrapped where a name is not in the address book.
var ErrUnknownPeer = errors.New("no such peer")

// Peer is who a text names: a petname of the address book, or a peer ID. A nil
// Config has an empty one.
func (c *Config) Peer(text string) (peer.ID, error) {
	if c != nil {
		if id, ok := c.Peers[text]; ok {
			return id, nil
		}
	}
	id, err := peer.ParseID(text)
	if err != nil && CheckName(text) == nil {
		return id, fmt.Errorf("%w: %q; %s", ErrUnknownPeer, text, c.known(text))
	}
	return id, err
}

// shownNames is how many names an error lists.
const shownNames = 8

// known says which names there are, the nearest if one is near.
func (c *Config) known(text string) string {
	names := c.Names()
	switch near := nearest(text, names); {
	case len(names) == 0:
		return "the address book is empty: give the peer's ID, or name it with `bodkin peer add NAME ID`"
	case near != "":
		return fmt.Sprintf("did you mean %q? `bodkin peer list` shows all names", near)
	case len(names) <= shownNames:
		return fmt.Sprintf("the address book has %s; `bodkin peer add NAME ID` adds to it", strings.Join(names, ", "))
	default:
		return "`bodkin peer list` shows the names that there are"
	}
}

// Names are the petnames of the address book, sorted.
func (c *Config) Names() []string {
	if c == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.Peers))
}

// Name is the petname of a peer, or "".
func (c *Config) Name(id peer.ID) string {
	if c == nil {
		return ""
	}
	for name, other := range c.Peers {
		if other == id {
			return name
		}
	}
	return ""
}

func unknownKey(key string, known []string) error {
	if near := nearest(key, known); near != "" {
		return fmt.Errorf("unknown key; did you mean %q?", near)
	}
	sorted := slices.Sorted(slices.Values(known))
	return fmt.Errorf("unknown key; there are: %s", strings.Join(sorted, ", "))
}

// nearest is the name that text was meant to be, or "" if none is near: a third of
// its letters may be wrong.
func nearest(text string, names []string) string {
	best, at := "", max(1, len(text)/3)+1
	for _, n := range names {
		if d := distance(text, n); d < at {
			best, at = n, d
		}
	}
	return best
}

// distance is how many letters to insert, delete, change or swap with the next make b
// of a.
func distance(a, b string) int {
	d := make([][]int, len(a)+1) // of beginnings of a and b
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := range len(a) {
		for j := range len(b) {
			change := d[i][j]
			if a[i] != b[j] {
				change++
			}
			d[i+1][j+1] = min(change, d[i][j+1]+1, d[i+1][j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d[i+1][j+1] = min(d[i+1][j+1], d[i-1][j-1]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
