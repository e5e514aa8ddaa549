package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bodkin/peer"
)

// id is a peer's ID that the tests know.
func id(n byte) peer.ID { return peer.NewKey([32]byte{n}).ID() }

// filled is a text with IDs for A, B and C in capitals.
func filled(text string) string {
	return strings.NewReplacer("ID1", id(1).String(), "ID2", id(2).String(), "ID3", id(3).String()).Replace(text)
}

// written is a file with a text.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(filled(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const whole = `# A home.
server = "bodkin://192.0.2.1:3478/x"
transports = ["udp", "tcp"]
port = 4000
no-portmap = true

[peers]
laptop = "ID1" # the grey one
"media.tv" = "ID2"

[[forward]]
listen = "127.0.0.1:2222"
peer = "laptop"
to = "localhost:22"

[[forward]]
listen = "27015"
peer = "ID3"
to = "27015"
protocol = "udp"
reverse = true

[[allow]]
peer = "media.tv"
to = "localhost:80"

[[allow]]
peer = "*"
protocol = "tcp"
to = "8080"
reverse = true
`

func TestWholeFileIsRead(t *testing.T) {
	t.Parallel()
	path := written(t, whole)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Path: path,
		Settings: []Setting{
			{"server", []string{"bodkin://192.0.2.1:3478/x"}, false, Position{2, 1}},
			{"transports", []string{"udp", "tcp"}, true, Position{3, 1}},
			{"port", []string{"4000"}, false, Position{4, 1}},
			{"no-portmap", []string{"true"}, false, Position{5, 1}},
		},
		Peers: map[string]peer.ID{"laptop": id(1), "media.tv": id(2)},
		Forwards: []Forward{
			{"127.0.0.1:2222", id(1), "localhost:22", "", false, Position{11, 3}},
			{"27015", id(3), "27015", "udp", true, Position{16, 3}},
		},
		Allows: []Allow{
			{id(2), "", "localhost:80", false, Position{23, 3}},
			{peer.ID{}, "tcp", "8080", true, Position{27, 3}},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("read\n%+v, want\n%+v", c, want)
	}
	if c.Name(id(2)) != "media.tv" || c.Name(id(3)) != "" {
		t.Errorf("names: %q, %q", c.Name(id(2)), c.Name(id(3)))
	}
}

func TestEmptyFileIsOne(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# nothing yet\n", "[peers]\n"} {
		c, err := Load(written(t, text))
		if err != nil || len(c.Settings)+len(c.Peers)+len(c.Forwards)+len(c.Allows) > 0 {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestMissingFileIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

// What is read says where the fault is, and what to do.
func TestFaultsAreTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no TOML":                 {"server = ", ":1:"},
		"no TOML, later":          {"server = \"x\"\n[peers\n", ":2:"},
		"key twice":               {"port = 1\nport = 2\n", ":2:1: "},
		"table twice":             {"[peers]\n[peers]\n", ":2:2: "},
		"unknown table":           {"[peer]\nx = \"ID1\"\n", `:1:2: peer: unknown key; did you mean "peers"?`},
		"far from all":            {"[nonsense]\n", `:1:2: nonsense: unknown key; there are: allow, forward, peers`},
		"unknown in forward":      {"[[forward]]\nlsten = \"1\"\n", `:2:1: forward.lsten: unknown key; did you mean "listen"?`},
		"unknown in allow":        {"[[allow]]\n\n  host = \"1\"\n", `:3:3: allow.host: unknown key; there are: peer, protocol, reverse, to`},
		"setting in a table":      {"[peers]\nserver = \"bodkin://x/y\"\n", `:2:1: peers.server: not a peer ID`},
		"setting of a wrong kind": {"port = 1.5\n", `:1:1: port: a setting is a string, a whole number, true or false, or a list of strings`},
		"peer without quotes":     {"[peers]\nlaptop = 5\n", `:2:`},
		"peers as text":           {"peers = \"all\"\n", `:1:`},
		"no ID":                   {"[peers]\n\nlaptop = \"x\"\n", `:3:1: peers.laptop: not a peer ID: "x" has 1 characters`},
		"upper-case name":         {"[peers]\nLaptop = \"ID1\"\n", `:2:1: peers.Laptop: not a name for a peer: "Laptop" begins with 'L'`},
		"one peer twice":          {"[peers]\nb = \"ID1\"\na = \"ID1\"\n", `:3:1: peers.a: b is the name of this peer already`},
		"forward without peer":    {"[[forward]]\nlisten = \"1\"\nto = \"1\"\n", `:1:3: forward: it needs the key "peer"`},
		"forward without to":      {"[[forward]]\nlisten = \"1\"\npeer = \"ID1\"\n", `:1:3: forward: it needs the key "to"`},
		"allow without to":        {"[[allow]]\npeer = \"ID1\"\n", `:1:3: allow: it needs the key "to"`},
		"wrong protocol":          {"[[allow]]\npeer = \"ID1\"\nto = \"1\"\nprotocol = \"sctp\"\n", `:4:1: allow.protocol: "sctp" is neither "tcp" nor "udp"`},
		"unknown peer": {
			"[peers]\nlaptop = \"ID1\"\n[[forward]]\nlisten=\"1\"\nto=\"1\"\npeer = \"lapdop\"\n",
			`:6:1: forward.peer: no such peer: "lapdop"; did you mean "laptop"?`,
		},
		"unknown peer, none known": {
			"[[allow]]\nto=\"1\"\npeer = \"tv\"\n",
			`:3:1: allow.peer: no such peer: "tv"; the address book is empty`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := written(t, c.text)
			_, err := Load(path)
			if _, ok := errors.AsType[*Error](err); !ok || !strings.Contains(err.Error(), path+filled(c.want)) {
				t.Errorf("%v; want %s in it", err, c.want)
			}
		})
	}
}

func TestAllFaultsAreToldInOrder(t *testing.T) {
	t.Parallel()
	path := written(t, "[[allow]]\npeer = \"x\"\nto = \"1\"\n[[forward]]\nlisten = \"1\"\nto = \"1\"\npeer = \"y\"\n[peers]\na = \"b\"\n")
	_, err := Load(path)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], path+":2:") || !strings.HasPrefix(lines[1], path+":7:") || !strings.HasPrefix(lines[2], path+":9:") {
		t.Errorf("%v", err)
	}
}

func TestSettingsThatNobodyKnowsAreTold(t *testing.T) {
	t.Parallel()
	path := written(t, "server = \"x\"\ntransport = [\"udp\"]\npeer = \"x\"\n")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	err = c.CheckSettings([]string{"server", "transports"})
	want := path + ":2:1: transport: unknown key; did you mean \"transports\"?\n" +
		path + ":3:1: peer: unknown key; did you mean \"peers\"?"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := c.CheckSettings([]string{"server", "transport", "peer"}); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "laptop", "7", "media.tv", "a-b_c.d", strings.Repeat("x", maxName)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "-a", ".a", "_", "A", "lapTop", "two words", "ü", "a/b", "a:b", "a\n", strings.Repeat("x", maxName+1), id(1).String(),
	} {
		if err := CheckName(bad); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPeersAreFoundByNameAndByID(t *testing.T) {
	t.Parallel()
	c := &Config{Peers: map[string]peer.ID{"laptop": id(1)}}
	for text, want := range map[string]peer.ID{"laptop": id(1), id(1).String(): id(1), id(2).String(): id(2)} {
		if got, err := c.Peer(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"lapto":             `did you mean "laptop"?`,
		"tv":                "the address book has laptop",
		id(1).String()[:51]: "has 51 characters",
		"":                  "not a peer ID",
	} {
		if _, err := c.Peer(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s in it", text, err, want)
		}
	}
	var none *Config
	if _, err := none.Peer("laptop"); !errors.Is(err, ErrUnknownPeer) {
		t.Error(err)
	}
	if got, err := none.Peer(id(1).String()); err != nil || got != id(1) {
		t.Error(got, err)
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"lsten", "listen", 1}, {"hoem", "home", 1}, {"ab", "ba", 1}, {"peers", "peers", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %d", c.a, c.b, got)
		}
	}
}

// Nobody sends us this file, but people write it: nothing in it may be fatal.
func FuzzParse(f *testing.F) {
	f.Add([]byte(filled(whole)))
	f.Add([]byte("peers.a = \"x\"\n[[allow]]\npeer='a'"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parse("file", text)
		if err != nil {
			return
		}
		if err := c.CheckSettings(nil); (err == nil) != (len(c.Settings) == 0) {
			t.Errorf("%v", err)
		}
		for name := range c.Peers {
			after, err := parse("file", []byte(removed(string(text), name)))
			if err == nil && len(after.Peers) < len(c.Peers)-1 {
				t.Errorf("more than %s is gone", name)
			}
		}
	})
}
