package cli

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/config"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

// withBook is an app with an address book and without a file.
func withBook(book map[string]peer.ID) *app {
	var a app
	a.fileRead.Store(&config.Config{Peers: book})
	return &a
}

func configured(t *testing.T, text string) *app {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &app{configFlag: path}
}

// Whatever a flag of a node takes, the file gives it, if nobody else does.
func TestEverySettingIsTakenFromTheFile(t *testing.T) {
	t.Parallel()
	values := map[string]string{"bool": "true", "duration": `"7s"`, "float64": `"0.5"`, "int": "7", "string": `"/some"`, "stringSlice": `["a", "b"]`, "uint16": "7"}
	want := map[string]string{"bool": "true", "duration": "7s", "float64": "0.5", "int": "7", "string": "/some", "stringSlice": "[a,b]", "uint16": "7"}
	names := settings()
	if !slices.Contains(names, "server") || !slices.Contains(names, "key") || slices.Contains(names, "json") {
		t.Fatalf("the settings are %v", names)
	}
	for _, name := range names {
		var c cobra.Command
		(&app{}).addNodeFlags(&c)
		f := c.Flags().Lookup(name)
		if err := configured(t, name+" = "+values[f.Value.Type()]).fromFile(c.Flags()); err != nil || f.Value.String() != want[f.Value.Type()] {
			t.Errorf("--%s is %q, %v", name, f.Value.String(), err)
		}
		given := f.Value.String()
		f.Changed = true
		if err := configured(t, name+" = "+strings.NewReplacer("7", "8", "true", "false", "some", "other", `"a"`, `"c"`).Replace(values[f.Value.Type()])).
			fromFile(c.Flags()); err != nil || f.Value.String() != given {
			t.Errorf("--%s, which was given, is %q, %v", name, f.Value.String(), err)
		}
	}
}

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"port = 70000\n":                   `:1:1: port: "70000": it needs a whole number from 0 to 65535`,
		"port = \"many\"\n":                `:1:1: port: "many": it needs`,
		"\nno-portmap = \"perhaps\"\n":     `:2:1: no-portmap: "perhaps": it needs true or false`,
		"server = [\"a\", \"b\"]\n":        `:1:1: server: it needs one value, not a list`,
		"servre = \"bodkin://x/y\"\n":      `:1:1: servre: unknown key; did you mean "server"?`,
		"[peers]\nx = \"y\"\n":             `:2:1: peers.x: not a peer ID`,
		"json = true\n":                    `:1:1: json: unknown key`,
		"server = \"a\"\nserver = \"b\"\n": `:2:1: `,
	} {
		var c cobra.Command
		a := configured(t, text)
		a.addNodeFlags(&c)
		if err := a.fromFile(c.Flags()); err == nil || !strings.Contains(err.Error(), a.configFlag+want) || codeOf(err) != codeUsage {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	t.Parallel()
	var c cobra.Command
	a := configured(t, "key = \"keys/mine.key\"\nevents = \"/var/log/events\"\n")
	a.addNodeFlags(&c)
	if err := a.fromFile(c.Flags()); err != nil || a.node.key != filepath.Join(filepath.Dir(a.configFlag), "keys/mine.key") || a.node.events != "/var/log/events" {
		t.Errorf("%+v, %v", a.node, err)
	}
}

// A list of one may be written without brackets, and an empty one is one.
func TestListsInTheFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{"transports = \"udp\"": {"udp"}, "transports = []": {}, "": nil} {
		var c cobra.Command
		a := configured(t, text)
		a.addNodeFlags(&c)
		if err := a.fromFile(c.Flags()); err != nil || !slices.Equal(a.node.transports, want) || (a.node.transports == nil) != (want == nil) {
			t.Errorf("%q: %#v, %v", text, a.node.transports, err)
		}
	}
}

func TestAllowedAreThoseOfTheFlagsAndOfTheBook(t *testing.T) {
	t.Parallel()
	one, two, three := peer.NewKey([32]byte{1}).ID(), peer.NewKey([32]byte{2}).ID(), peer.NewKey([32]byte{3}).ID()
	a := withBook(map[string]peer.ID{"one": one, "two": two})
	for _, c := range []struct {
		flags allowFlags
		want  []peer.ID
	}{
		{allowFlags{}, nil},
		{allowFlags{peers: []string{"two", three.String()}}, []peer.ID{two, three}},
		{allowFlags{known: true}, []peer.ID{one, two}},
		{allowFlags{peers: []string{three.String(), "one"}, known: true}, []peer.ID{three, one, two}},
	} {
		if got, err := a.allowed(c.flags); err != nil || !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%+v: %v, %v", c.flags, got, err)
		}
	}
	if _, err := a.allowed(allowFlags{peers: []string{"tow"}}); err == nil || !strings.Contains(err.Error(), `--allow: no such peer: "tow"; did you mean "two"?`) {
		t.Error(err)
	}
	if _, err := withBook(nil).allowed(allowFlags{known: true}); err == nil || codeOf(err) != codeUsage {
		t.Error(err)
	}
}

func TestNamesStandBesideIDs(t *testing.T) {
	t.Parallel()
	id, other := peer.NewKey([32]byte{1}).ID(), peer.NewKey([32]byte{2}).ID()
	a := withBook(map[string]peer.ID{"laptop": id})
	s := bodkin.Status{Peers: []bodkin.PeerStatus{{ID: id}, {ID: other}}}
	if names := a.names(s); !maps.Equal(names, map[string]string{id.String(): "laptop"}) {
		t.Errorf("%v", names)
	}
	for what, text := range map[string]string{
		"status":            a.statusText(s, nil, time.Now()),
		"why":               a.whyText(bodkin.Explanation{Peer: id, Way: "none", Reason: "some"}),
		"why, on the relay": a.whyText(bodkin.Explanation{Peer: id, Way: "relay", Reason: "some"}),
	} {
		if !strings.Contains(text, id.String()+" (laptop)") || strings.Contains(text, other.String()+" (") {
			t.Errorf("%s: %s", what, text)
		}
	}
	e := bodkin.Event{Peer: id, Kind: bodkin.EventSwitched}
	w := a.watchText(watchLine{Status: bodkin.Status{Peers: []bodkin.PeerStatus{{ID: id, Changes: []bodkin.Event{e}}}}})
	if !strings.Contains(w, "\nlaptop  none") || !strings.Contains(w, "  laptop  now takes") {
		t.Error(w)
	}
}
