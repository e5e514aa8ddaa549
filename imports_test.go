package bodkin_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms is the house, from the ground up: each package with those that it may
// import. "a/..." stands for every package under a, "..." for all of them.
// docs/architecture.md draws it.
var rooms = map[string][]string{
	"peer":          {},
	"internal/wire": {"peer"},
	"nat":           {"peer", "internal/wire", "internal/sock"},
	"punch":         {"peer", "internal/wire", "nat"},
	"internal/pake": {},
	"internal/pair": {"peer", "internal/pake"},
	"internal/icmp": {},
	"internal/sock": {"internal/icmp"},

	"internal/igd":        {},
	"internal/pcp":        {},
	"portmap":             {"internal/pcp", "internal/igd"},
	"portmap/portmaptest": {"internal/pcp", "portmap"},

	"rendezvous": {"peer", "internal/wire", "nat", "internal/sock"},

	"internal/tunnel":            {},
	"internal/tunnel/tunneltest": {"internal/tunnel"},
	"internal/testmain":          {},

	"internal/path":    {"peer", "internal/wire", "nat", "punch", "internal/sock"},
	"internal/session": {"peer", "internal/wire", "nat", "punch", "internal/path"},
	"internal/node":    {"peer", "internal/wire", "nat", "punch", "rendezvous", "internal/path", "internal/pair"},

	"internal/why": {"nat", "punch", "rendezvous"},

	"": {
		"peer", "internal/wire", "nat", "punch", "rendezvous",
		"internal/sock", "internal/tunnel", "internal/path", "internal/session", "internal/node", "internal/pair", "internal/why", "portmap",
	},

	"natlab":        {"nat"},
	"natlab/netbed": {"nat", "natlab", "internal/sock"},

	"internal/config":      {"peer"},
	"internal/app/...":     {"", "peer"},
	"internal/app/forward": {"", "peer", "internal/app/pipe"},
	"internal/app/share":   {"", "peer"},
	"internal/daemon":      {"", "peer", "rendezvous", "internal/config", "internal/app/forward"},
	"internal/control":     {"", "peer", "internal/app/..."},
	"internal/labrun":      {"", "peer", "natlab", "natlab/netbed"},
	"internal/matrix":      {"peer", "internal/wire", "nat", "punch", "rendezvous", "internal/path", "internal/node", "natlab"},

	"internal/conform": {"nat", "natlab", "natlab/netbed"},

	"internal/matrix/trace": {"internal/wire", "natlab"},
	"internal/matrix/page":  {"internal/matrix/trace"},
	"internal/matrix/bed":   {"", "peer", "internal/wire", "rendezvous", "natlab", "natlab/netbed", "internal/matrix"},

	"internal/cli": {
		"", "peer", "nat", "punch", "rendezvous", "portmap", "natlab", "natlab/netbed",
		"internal/sock", "internal/tunnel", "internal/config", "internal/daemon", "internal/app/...", "internal/control", "internal/labrun", "internal/matrix", "internal/matrix/...",
	},
	"cmd/...":   {"internal/cli"},
	"bench/...": {"..."},
}

// guests are modules of others that stay in the rooms named here; the rest are
// welcome everywhere.
var guests = map[string][]string{
	"github.com/google/nftables":     {"natlab/netbed"},
	"github.com/gtank/ristretto255":  {"internal/pake"},
	"github.com/huin/goupnp":         {"internal/igd"},
	"github.com/pelletier/go-toml":   {"internal/config"},
	"github.com/pion/stun":           {"internal/wire", "rendezvous"},
	"github.com/quic-go/quic-go":     {"internal/session", "bench/throughput"},
	"github.com/spf13":               {"internal/cli"},
	"github.com/vishvananda/netlink": {"natlab/netbed"},
	"github.com/vishvananda/netns":   {"natlab/netbed"},
	"rsc.io/qr":                      {"internal/cli"},
}

// The imports are read with go/parser, from all files whatever system they are
// for. What `go list` would say comes from the cache of test results, and misses
// a change.
func TestNoRoomImportsAHigherOne(t *testing.T) {
	t.Parallel()
	packages, err := importsUnder(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 10 {
		t.Fatalf("found only %d packages; is this the root of the module?", len(packages))
	}
	for _, complaint := range misplaced(packages) {
		t.Error(complaint)
	}
}

func TestArchitecturePageShowsEveryRoom(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for folder := range rooms {
		name := "| `" + strings.Replace(shown(folder), "...", "…", 1) + "` |"
		if !strings.Contains(string(page), name) {
			t.Errorf("docs/architecture.md has no row %s", name)
		}
	}
}

func TestMisplacedImportIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, imports, want string }{
		"upwards":            {"punch/a.go", "bodkin/internal/path", "punch imports internal/path"},
		"upwards to root":    {"rendezvous/a.go", "bodkin", "rendezvous imports bodkin"},
		"on another system":  {"peer/a_windows.go", "bodkin/nat", "peer imports nat"},
		"app past the root":  {"internal/app/chat/a.go", "bodkin/internal/session", "internal/app/chat imports internal/session"},
		"namespace outside":  {"natlab/a.go", "github.com/vishvananda/netns", "natlab imports github.com/vishvananda/netns"},
		"major version":      {"peer/a.go", "github.com/pion/stun/v3", "peer imports github.com/pion/stun/v3"},
		"package not known":  {"internal/attic/a.go", "fmt", "internal/attic is not in the table"},
		"downwards":          {"punch/a.go", "bodkin/peer", ""},
		"bench":              {"bench/registry/a.go", "bodkin/internal/session", ""},
		"test":               {"peer/a_test.go", "bodkin/natlab/netbed", ""},
		"another module":     {"tools/x/a.go", "bodkin/internal/session", ""},
		"name alike":         {"peer/a.go", "github.com/spf130/x", ""},
		"standard library":   {"peer/a.go", "net/netip", ""},
		"hidden and ignored": {".cache/a.go", "bodkin/internal/session", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, text string) {
				name = filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("tools/go.mod", "module bodkin/tools\n")
			write(c.file, "package p\n\nimport _ "+strconv.Quote(c.imports)+"\n")
			packages, err := importsUnder(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := misplaced(packages)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("complaints: %q, want one with %q", got, c.want)
			}
		})
	}
}

// importsUnder maps the packages of the module in a directory, named by their
// folders, to what their files import, tests aside.
func importsUnder(root string) (map[string][]string, error) {
	packages := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != root && notOurs(name) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		folder = strings.TrimPrefix(filepath.ToSlash(folder), ".")
		imports := packages[folder]
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imported)
		}
		packages[folder] = imports
		return nil
	})
	return packages, err
}

// notOurs reports whether the go command leaves a folder out of the module.
func notOurs(folder string) bool {
	base := filepath.Base(folder)
	if base[0] == '.' || base[0] == '_' || base == "testdata" {
		return true
	}
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}

// misplaced compares packages and their imports with the house.
func misplaced(packages map[string][]string) (complaints []string) {
	for _, folder := range slices.Sorted(maps.Keys(packages)) {
		may, known := allowed(folder)
		if !known {
			complaints = append(complaints, fmt.Sprintf(
				"%s is not in the table of imports_test.go: add it there, with what it may import, and to docs/architecture.md", shown(folder)))
			continue
		}
		slices.Sort(packages[folder])
		for _, imported := range slices.Compact(packages[folder]) {
			if inner, ours := strings.CutPrefix(imported+"/", "bodkin/"); ours {
				imported = strings.TrimSuffix(inner, "/")
				if !within(imported, may) {
					complaints = append(complaints, fmt.Sprintf("%s imports %s; it may import only %q", shown(folder), shown(imported), may))
				}
				continue
			}
			for guest, hosts := range guests {
				if within(imported, []string{guest, guest + "/..."}) && !within(folder, hosts) {
					complaints = append(complaints, fmt.Sprintf("%s imports %s, which belongs in %q only", shown(folder), imported, hosts))
				}
			}
		}
	}
	return complaints
}

// allowed is what a package may import.
func allowed(folder string) (may []string, known bool) {
	if may, known = rooms[folder]; known {
		return may, true
	}
	for pattern, may := range rooms {
		if within(folder, []string{pattern}) {
			return may, true
		}
	}
	return nil, false
}

// within reports whether a path is one of the patterns, or under one of them.
func within(p string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		above, wild := strings.CutSuffix(pattern, "...")
		return p == pattern || wild && strings.HasPrefix(p, above)
	})
}

func shown(folder string) string {
	if folder == "" {
		return "bodkin"
	}
	return path.Clean(folder)
}
