package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"bodkin/peer"
)

// Whatever else is in the file stays as it is.
func TestEdits(t *testing.T) {
	t.Parallel()
	add := func(name string, n byte) func(string) error {
		return func(path string) error { return AddPeer(path, name, id(n)) }
	}
	remove := func(name string) func(string) error {
		return func(path string) error { return RemovePeer(path, name) }
	}
	rename := func(from, to string) func(string) error {
		return func(path string) error { return RenamePeer(path, from, to) }
	}
	for name, c := range map[string]struct {
		before string
		do     func(path string) error
		after  string
	}{
		"first peer":     {"server = \"x\"\n", add("a", 1), "server = \"x\"\n\n[peers]\na = \"ID1\"\n"},
		"no line end":    {"server = \"x\"", add("a", 1), "server = \"x\"\n\n[peers]\na = \"ID1\"\n"},
		"empty table":    {"[peers] # friends\n\n[[allow]]\npeer = \"ID2\"\nto = \"1\"\n", add("a", 1), "[peers] # friends\na = \"ID1\"\n\n[[allow]]\npeer = \"ID2\"\nto = \"1\"\n"},
		"below the last": {"[peers]\nb = \"ID2\" # two\n# end\n\n[[allow]]\npeer = \"b\"\nto = \"1\"\n", add("a", 1), "[peers]\nb = \"ID2\" # two\na = \"ID1\"\n# end\n\n[[allow]]\npeer = \"b\"\nto = \"1\"\n"},
		"at the end":     {"[peers]\nb = \"ID2\"", add("a", 1), "[peers]\nb = \"ID2\"\na = \"ID1\"\n"},
		"dotted":         {"peers.b = \"ID2\"\nport = 1\n", add("a", 1), "peers.b = \"ID2\"\npeers.a = \"ID1\"\nport = 1\n"},
		"name with dots": {"[peers]\n", add("a.b", 1), "[peers]\n\"a.b\" = \"ID1\"\n"},
		"there already":  {"[peers]\na=\"ID1\"\n", add("a", 1), "[peers]\na=\"ID1\"\n"},
		"Windows":        {"[peers]\r\nb = \"ID2\"\r\n", add("a", 1), "[peers]\r\nb = \"ID2\"\r\na = \"ID1\"\n"},

		"remove":             {"# x\n[peers]\na = \"ID1\" # one\n\"b.c\"='ID2'\n# z\n", remove("a"), "# x\n[peers]\n\"b.c\"='ID2'\n# z\n"},
		"remove quoted":      {"[peers]\na = \"ID1\"\n\"b.c\"='ID2'\n# z\n", remove("b.c"), "[peers]\na = \"ID1\"\n# z\n"},
		"remove dotted":      {"peers.a = \"ID1\"\nport = 1\n", remove("a"), "port = 1\n"},
		"remove the last":    {"[peers]\na = \"ID1\"", remove("a"), "[peers]\n"},
		"rename":             {"[peers]\n  a   = \"ID1\" # a\n", rename("a", "b"), "[peers]\n  b   = \"ID1\" # a\n"},
		"rename to dots":     {"[peers]\na = \"ID1\"\n", rename("a", "b.c"), "[peers]\n\"b.c\" = \"ID1\"\n"},
		"rename from dots":   {"peers.'b.c' = \"ID1\"\n", rename("b.c", "a"), "peers.a = \"ID1\"\n"},
		"rename to the same": {"[peers]\na = \"ID1\"\n", rename("a", "a"), "[peers]\na = \"ID1\"\n"},
		"rename where used": {
			"[[forward]]\npeer = \"a\" # \"a\"\nlisten = \"a\"\nto = \"1\"\n[[allow]]\nto = \"a\"\npeer='a'\n[[allow]]\nto = \"a\"\npeer = \"ab\" # \"a\"\n[peers]\na = \"ID1\"\nab = \"ID2\"\n",
			rename("a", "longer"),
			"[[forward]]\npeer = \"longer\" # \"a\"\nlisten = \"a\"\nto = \"1\"\n[[allow]]\nto = \"a\"\npeer='longer'\n[[allow]]\nto = \"a\"\npeer = \"ab\" # \"a\"\n[peers]\nlonger = \"ID1\"\nab = \"ID2\"\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := written(t, c.before)
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != filled(c.after) {
				t.Errorf("%q, %v; want %q", after, err, filled(c.after))
			}
		})
	}
}

func TestEditsThatCannotBe(t *testing.T) {
	t.Parallel()
	const book = "[peers]\nlaptop = \"ID1\"\ntv = \"ID2\"\n"
	for name, c := range map[string]struct {
		before string
		do     func(path string) error
		is     error
		want   string
	}{
		"name taken":    {book, func(p string) error { return AddPeer(p, "tv", id(3)) }, ErrNameTaken, "bodkin peer rm tv"},
		"known peer":    {book, func(p string) error { return AddPeer(p, "radio", id(2)) }, ErrKnownPeer, "bodkin peer rename tv radio"},
		"bad name":      {book, func(p string) error { return AddPeer(p, "Radio", id(3)) }, ErrBadName, ""},
		"nobody":        {book, func(p string) error { return AddPeer(p, "radio", peer.ID{}) }, peer.ErrBadID, ""},
		"rm unknown":    {book, func(p string) error { return RemovePeer(p, "laptpo") }, ErrUnknownPeer, `did you mean "laptop"?`},
		"rename taken":  {book, func(p string) error { return RenamePeer(p, "tv", "laptop") }, ErrNameTaken, ""},
		"rename nobody": {book, func(p string) error { return RenamePeer(p, "x", "y") }, ErrUnknownPeer, "has laptop, tv"},
		"rename badly":  {book, func(p string) error { return RenamePeer(p, "tv", "T") }, ErrBadName, ""},
		"rm in use": {
			book + "[[allow]]\npeer = \"tv\"\nto = \"1\"\n", func(p string) error { return RemovePeer(p, "tv") },
			nil, ":5:1: allow.peer: this still names tv",
		},
		"inline table": {"peers = { laptop = \"ID1\" }\n", func(p string) error { return AddPeer(p, "tv", id(2)) }, nil, ":1:1: peers: the file is not written a peer or a key a line"},
		"inline table, rename": {
			"peers = { laptop = \"ID1\" }\n", func(p string) error { return RenamePeer(p, "laptop", "tv") },
			nil, ":1:1: peers: the file is not written a peer or a key a line",
		},
		"faulty file": {"[peers]\nlaptop = \"x\"\n", func(p string) error { return AddPeer(p, "tv", id(2)) }, peer.ErrBadID, ":2:1: peers.laptop: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := written(t, c.before)
			err := c.do(path)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q in it", err, c.want)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != filled(c.before) {
				t.Errorf("the file is %q now, %v", after, err)
			}
		})
	}
}

func TestFileIsMade(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "config.toml")
	if err := AddPeer(path, "laptop", id(1)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if want := newFile + filled("\n[peers]\nlaptop = \"ID1\"\n"); err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestModeAndLinkStay(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has neither modes nor links for everybody")
	}
	path := written(t, "[peers]\n")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.toml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := AddPeer(link, "laptop", id(1)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".config-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What many write at once is all there in the end, and a reader never sees a half.
func TestManyEditAtOnce(t *testing.T) {
	t.Parallel()
	path := written(t, "# book\n")
	const many = 24
	var writers, reader sync.WaitGroup
	done := make(chan struct{})
	reader.Go(func() {
		for {
			if _, err := Load(path); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for i := range many {
		writers.Go(func() {
			if err := AddPeer(path, fmt.Sprintf("p%d", i), id(byte(i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	close(done)
	reader.Wait()
	if c, err := Load(path); err != nil || len(c.Peers) != many {
		t.Errorf("%d peers, %v", len(c.Peers), err)
	}
}
