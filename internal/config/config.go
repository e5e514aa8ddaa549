// Package config is the configuration file of a node: its settings, its address
// book, what `bodkin up` forwards and what peers may reach through it. It is TOML:
//
//	server = "bodkin://…"    # settings are named as the flags of commands are
//
//	[peers]                  # the address book: petname = "peer ID"
//	laptop = "ajo3…"
//
//	[[forward]]              # what `bodkin up` forwards
//	listen = "127.0.0.1:2222"
//	peer = "laptop"
//	to = "localhost:22"
//
//	[[allow]]                # what a peer may reach through this node
//	peer = "laptop"
//	to = "localhost:22"
//
// Files of the package:
//
//	config.go   what is in a file, and reading it
//	name.go     petnames, and names that are nearly right
//	outline.go  where in the file things are
//	edit.go     the address book changed line by line
//	file.go     a file replaced as a whole, by one process at a time
package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"bodkin/peer"

	"github.com/pelletier/go-toml/v2"
)

// Config is what is in a file. The zero Config is that of an empty one.
type Config struct {
	Path     string    // of the file
	Settings []Setting // in the order of the file
	Peers    map[string]peer.ID
	Forwards []Forward
	Allows   []Allow
}

// Setting is a key outside of all tables: a flag's value.
type Setting struct {
	Name   string
	Values []string // one, or those of a list
	List   bool
	At     Position
}

// Forward is a [[forward]]: what arrives at Listen goes to To, which the peer
// reaches; or, with Reverse, what arrives there comes to To here.
type Forward struct {
	Listen   string
	Peer     peer.ID
	To       string
	Protocol string // "tcp", "udp", or "" for what Listen and To say
	Reverse  bool
	At       Position
}

// Allow is an [[allow]]: what a peer may reach through this node, or with Reverse,
// where it may have this node listen.
type Allow struct {
	Peer     peer.ID // the zero ID stands for everybody who may connect
	Protocol string  // "tcp", "udp", or "" for what To says
	To       string
	Reverse  bool
	At       Position
}

// Error is what is wrong with a file, and where.
type Error struct {
	Path string
	At   Position
	Key  string // "" where the file is no TOML
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Path
	if e.At.Line > 0 {
		text += fmt.Sprintf(":%d:%d", e.At.Line, e.At.Column)
	}
	if e.Key != "" {
		text += ": " + e.Key
	}
	return text + ": " + e.Err.Error()
}

// Unwrap is what is wrong, without where.
func (e *Error) Unwrap() error { return e.Err }

// Load reads a file. A file that does not exist is an error that wraps
// [io/fs.ErrNotExist]; every other one wraps *[Error]s, as many as there are faults.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return parse(path, text)
}

// tables are the parts of a file that are the same for every version of the flags.
type tables struct {
	Peers   map[string]string `toml:"peers"`
	Forward []forwardTable    `toml:"forward"`
	Allow   []allowTable      `toml:"allow"`
}

type forwardTable struct {
	Listen   string `toml:"listen"`
	Peer     string `toml:"peer"`
	To       string `toml:"to"`
	Protocol string `toml:"protocol"`
	Reverse  bool   `toml:"reverse"`
}

type allowTable struct {
	Peer     string `toml:"peer"`
	Protocol string `toml:"protocol"`
	To       string `toml:"to"`
	Reverse  bool   `toml:"reverse"`
}

// everybody is the peer of an allowance for all who may connect.
const everybody = "*"

// keysOf are the keys of each table.
var keysOf = map[string][]string{
	"":        {"peers", "forward", "allow"},
	"forward": {"listen", "peer", "to", "protocol", "reverse"},
	"allow":   {"peer", "to", "protocol", "reverse"},
}

// reader collects what is in a text, and what is wrong with it.
type reader struct {
	config  *Config
	outline outline
	errs    []*Error
}

func (r *reader) fail(at Position, key string, err error) {
	r.errs = append(r.errs, &Error{r.config.Path, at, key, err})
}

func parse(path string, text []byte) (*Config, error) {
	r := &reader{config: &Config{Path: path, Peers: make(map[string]peer.ID)}}
	var t tables
	var all map[string]any
	decoder := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := errors.Join(decoder.Decode(&t), toml.Unmarshal(text, &all))
	unknown, strict := errors.AsType[*toml.StrictMissingError](err)
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok && !strict {
		line, column := wrong.Position()
		r.fail(Position{line, column}, strings.Join(wrong.Key(), "."), errors.New(strings.TrimPrefix(wrong.Error(), "toml: ")))
		return nil, r.errs[0]
	} else if err != nil && !strict {
		return nil, &Error{Path: path, Err: err}
	}
	r.outline = outlineOf(text)
	if strict {
		for _, e := range unknown.Errors {
			r.rest(e, all)
		}
	}
	r.peers(t.Peers)
	for i, f := range t.Forward {
		r.forward(i, f)
	}
	for i, a := range t.Allow {
		r.allow(i, a)
	}
	return r.config, r.result()
}

// result is all that is wrong, in the order of the file.
func (r *reader) result() error {
	slices.SortStableFunc(r.errs, func(a, b *Error) int { return a.At.compare(b.At) })
	var all []error
	for _, e := range r.errs {
		all = append(all, e)
	}
	return errors.Join(all...)
}

// rest takes a key that is in no table: a setting, or a mistake.
func (r *reader) rest(e toml.DecodeError, all map[string]any) {
	line, column := e.Position()
	at, key := Position{line, column}, e.Key()
	value, ok := all[key[0]]
	if _, isTable := value.(map[string]any); len(key) > 1 || !ok || isTable {
		table := strings.Join(key[:len(key)-1], ".")
		if keysOf[table] == nil {
			table = ""
		}
		r.fail(at, strings.Join(key, "."), unknownKey(key[len(key)-1], keysOf[table]))
		return
	}
	s := Setting{Name: key[0], At: at}
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	for _, v := range list {
		text, ok := scalar(v)
		if !ok {
			r.fail(at, s.Name, errors.New("a setting is a string, a whole number, true or false, or a list of strings"))
			return
		}
		s.Values = append(s.Values, text)
	}
	s.List = isList
	r.config.Settings = append(r.config.Settings, s)
}

// scalar is a value as a flag would be given it.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	default:
		return "", false
	}
}

// peers takes the address book, in which each peer has one name.
func (r *reader) peers(book map[string]string) {
	names := slices.SortedFunc(maps.Keys(book), func(a, b string) int {
		return r.outline.at("peers", a).compare(r.outline.at("peers", b))
	})
	for _, name := range names {
		at, key := r.outline.at("peers", name), "peers."+name
		if err := CheckName(name); err != nil {
			r.fail(at, key, err)
			continue
		}
		id, err := peer.ParseID(book[name])
		if err != nil {
			r.fail(at, key, err)
			continue
		}
		if other := r.config.Name(id); other != "" {
			r.fail(at, key, fmt.Errorf("%s is the name of this peer already; leave one of them out", other))
			continue
		}
		r.config.Peers[name] = id
	}
}

func (r *reader) forward(i int, t forwardTable) {
	f := Forward{Listen: t.Listen, To: t.To, Protocol: t.Protocol, Reverse: t.Reverse}
	name := "forward." + strconv.Itoa(i)
	f.At = r.outline.at(name)
	f.Peer = r.peer(name, "forward", t.Peer)
	r.protocol(name, "forward", t.Protocol)
	r.needed(name, "forward", map[string]string{"listen": t.Listen, "to": t.To})
	r.config.Forwards = append(r.config.Forwards, f)
}

func (r *reader) allow(i int, t allowTable) {
	a := Allow{To: t.To, Protocol: t.Protocol, Reverse: t.Reverse}
	name := "allow." + strconv.Itoa(i)
	a.At = r.outline.at(name)
	if t.Peer != everybody {
		a.Peer = r.peer(name, "allow", t.Peer)
	}
	r.protocol(name, "allow", t.Protocol)
	r.needed(name, "allow", map[string]string{"to": t.To})
	r.config.Allows = append(r.config.Allows, a)
}

// peer is who a table's key peer names.
func (r *reader) peer(table, shown, text string) peer.ID {
	if text == "" {
		r.needed(table, shown, map[string]string{"peer": ""})
		return peer.ID{}
	}
	id, err := r.config.Peer(text)
	if err != nil {
		r.fail(r.outline.at(table, "peer"), shown+".peer", err)
	}
	return id
}

func (r *reader) protocol(table, shown, p string) {
	if p != "" && p != "tcp" && p != "udp" {
		r.fail(r.outline.at(table, "protocol"), shown+".protocol", fmt.Errorf(`%q is neither "tcp" nor "udp"`, p))
	}
}

// needed complains of keys that a table must have.
func (r *reader) needed(table, shown string, values map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if values[key] == "" {
			r.fail(r.outline.at(table), shown, fmt.Errorf("it needs the key %q", key))
		}
	}
}

// CheckSettings finds settings that are none of those known, in what was read.
func (c *Config) CheckSettings(known []string) error {
	var errs []error
	for _, s := range c.Settings {
		if !slices.Contains(known, s.Name) {
			errs = append(errs, c.Wrong(s.At, s.Name, unknownKey(s.Name, slices.Concat(known, keysOf[""]))))
		}
	}
	return errors.Join(errs...)
}

// Wrong is an error about something in the file.
func (c *Config) Wrong(at Position, key string, err error) error { return &Error{c.Path, at, key, err} }
