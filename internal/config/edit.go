package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"bodkin/peer"
)

// ErrNameTaken is wrapped where a name is another peer's.
var ErrNameTaken = errors.New("the name is taken")

// ErrKnownPeer is wrapped where a peer has another name already.
var ErrKnownPeer = errors.New("the peer has a name already")

// AddPeer writes a peer into the address book of the file at path, which is made if
// there is none. A peer that has this name already is no error.
func AddPeer(path, name string, id peer.ID) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := id.Check(); err != nil {
		return err
	}
	return edit(path, func(c *Config, text string) (string, error) {
		if had, ok := c.Peers[name]; ok && had != id {
			return "", fmt.Errorf("%w: %s is peer %s; choose another, or give this one up with `bodkin peer rm %s`",
				ErrNameTaken, name, had.Short(), name)
		}
		switch other := c.Name(id); other {
		case name:
			return text, nil
		case "":
			return added(text, name, id), nil
		default:
			return "", fmt.Errorf("%w: it is %s; `bodkin peer rename %s %s` changes that", ErrKnownPeer, other, other, name)
		}
	}, func(book map[string]peer.ID) { book[name] = id })
}

// RemovePeer takes a peer out of the address book. What else in the file names it is
// an error.
func RemovePeer(path, name string) error {
	return edit(path, func(c *Config, text string) (string, error) {
		if _, ok := c.Peers[name]; !ok {
			return "", fmt.Errorf("%w: %q; %s", ErrUnknownPeer, name, c.known(name))
		}
		if used := uses(text, name); len(used) > 0 {
			table, _, _ := strings.Cut(used[0].path[0], ".")
			return "", c.Wrong(used[0].at, table+".peer", fmt.Errorf("this still names %s; take it out first", name))
		}
		return removed(text, name), nil
	}, func(book map[string]peer.ID) { delete(book, name) })
}

// RenamePeer gives a peer of the address book another name, there and where else the
// file names it.
func RenamePeer(path, from, to string) error {
	if err := CheckName(to); err != nil {
		return err
	}
	return edit(path, func(c *Config, text string) (string, error) {
		if _, ok := c.Peers[from]; !ok {
			return "", fmt.Errorf("%w: %q; %s", ErrUnknownPeer, from, c.known(from))
		}
		if had, ok := c.Peers[to]; ok && from != to {
			return "", fmt.Errorf("%w: %s is peer %s; choose another", ErrNameTaken, to, had.Short())
		}
		return renamed(text, from, to), nil
	}, func(book map[string]peer.ID) {
		id := book[from]
		delete(book, from)
		book[to] = id
	})
}

// change makes a new text of the one of a file.
type change func(c *Config, text string) (string, error)

// edit changes a file while no other process does. What the new text says is compared
// with what is meant, before it is written: there are ways to write a file, such as
// inline tables, that a change of lines cannot cope with.
func edit(path string, do change, meant func(book map[string]peer.ID)) error {
	return exclusively(path, func(path string) error {
		before, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("configuration: %w", err)
		}
		c, err := parse(path, before)
		if err != nil {
			return err
		}
		after, err := do(c, string(before))
		if err != nil {
			return err
		}
		book := maps.Clone(c.Peers)
		meant(book)
		changed, err := parse(path, []byte(after))
		switch {
		case err != nil || !maps.Equal(changed.Peers, book):
			return c.Wrong(outlineOf(before).at("peers"), "peers",
				errors.New("the file is not written a peer or a key a line, under [peers] and the like; write it so, or change it with an editor"))
		case after == string(before):
			return nil
		}
		return replace(path, []byte(after))
	})
}

// newFile is how a file begins that was not there.
const newFile = "# Settings, peers and forwards of bodkin; `bodkin help config` says what can stand here.\n"

// added is a text with a peer more: below the last one.
func added(text, name string, id peer.ID) string {
	all := outlineOf([]byte(text))
	last := -1
	for i, e := range all {
		if e.path[0] == "peers" && (e.table || len(e.path) > 1) {
			last = i
		}
	}
	line := fmt.Sprintf("%s = %q\n", quoted(name), id.String())
	if last < 0 {
		switch {
		case text == "":
			text = newFile
		case !strings.HasSuffix(text, "\n"):
			text += "\n"
		}
		return text + "\n[peers]\n" + line
	}
	if dotted(all, last) {
		line = "peers." + line
	}
	at := lineEnd(text, all[last].end)
	if !strings.HasSuffix(text[:at], "\n") {
		line = "\n" + line
	}
	return text[:at] + line + text[at:]
}

// dotted reports whether an entry is written as peers.NAME, outside of the table.
func dotted(all outline, i int) bool {
	for _, e := range slices.Backward(all[:i+1]) {
		if e.table {
			return e.path[0] != "peers"
		}
	}
	return true
}

// removed is a text without the line of a peer.
func removed(text, name string) string {
	for _, e := range outlineOf([]byte(text)) {
		if slices.Equal(e.path, []string{"peers", name}) {
			return text[:lineStart(text, e.start)] + text[lineEnd(text, e.end):]
		}
	}
	return text
}

// renamed is a text with another name for a peer.
func renamed(text, from, to string) string {
	for _, e := range slices.Backward(uses(text, from)) {
		text = text[:e.start] + to + text[e.end:]
	}
	for _, e := range outlineOf([]byte(text)) {
		if slices.Equal(e.path, []string{"peers", from}) {
			return text[:e.start] + quoted(to) + text[e.end:]
		}
	}
	return text
}

// uses are the keys that name a peer, with where the name stands in place of the
// key's.
func uses(text, name string) (out []entry) {
	for _, e := range outlineOf([]byte(text)) {
		if len(e.path) != 2 || e.path[1] != "peer" ||
			!strings.HasPrefix(e.path[0], "forward.") && !strings.HasPrefix(e.path[0], "allow.") {
			continue
		}
		value := strings.TrimLeft(text[e.end:], " \t=")
		if len(value) > 0 && strings.HasPrefix(value[1:], name+value[:1]) {
			e.start = len(text) - len(value) + 1
			e.end = e.start + len(name)
			out = append(out, e)
		}
	}
	return out
}

// quoted is a name as a key of TOML, where a dot would part it.
func quoted(name string) string {
	if strings.Contains(name, ".") {
		return `"` + name + `"`
	}
	return name
}

func lineStart(text string, at int) int { return strings.LastIndexByte(text[:at], '\n') + 1 }

// lineEnd is behind the end of a line.
func lineEnd(text string, at int) int {
	if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(text)
}
