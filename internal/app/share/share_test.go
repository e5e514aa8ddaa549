package share

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bodkin/peer"
)

// tree makes a folder of many kinds of things, and returns its path.
func tree(t *testing.T, large int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "photos")
	r := rand.NewChaCha8([32]byte{7})
	for i := range 100 {
		b := make([]byte, i*37)
		_, _ = r.Read(b)
		put(t, filepath.Join(dir, fmt.Sprintf("%d", i%7), fmt.Sprintf("small-%d", i)), b)
	}
	b := make([]byte, large)
	_, _ = r.Read(b)
	put(t, filepath.Join(dir, "large"), b)
	put(t, filepath.Join(dir, "two pieces"), b[:minPiece+1])
	put(t, filepath.Join(dir, "empty"), nil)
	put(t, filepath.Join(dir, "secret"), []byte("x"))
	must(t, os.Chmod(filepath.Join(dir, "secret"), 0o400))
	must(t, os.Mkdir(filepath.Join(dir, "hollow"), 0o750))
	must(t, os.Symlink("../large", filepath.Join(dir, "hollow", "link")))
	then := time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)
	for _, name := range []string{"large", "hollow", "3", "."} {
		must(t, os.Chtimes(filepath.Join(dir, name), then, then))
	}
	must(t, os.Chmod(filepath.Join(dir, "3"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "3"), 0o755) })
	return dir
}

func put(t *testing.T, name string, b []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, b, 0o644))
}

// same compares two trees: names, kinds, contents, modes and times.
func same(t *testing.T, a, b string) {
	t.Helper()
	x, y := listing(t, a), listing(t, b)
	if x != y {
		t.Errorf("trees differ:\n%s\nand\n%s", x, y)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	must(t, filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		name, _ := filepath.Rel(dir, at)
		what := ""
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(at)
			must(t, err)
			what = fmt.Sprintf("%d %x", len(b), whole(b))
		case info.Mode()&fs.ModeSymlink != 0:
			what, _ = os.Readlink(at)
			_, _ = fmt.Fprintf(&out, "%s -> %s\n", name, what)
			return nil
		}
		_, _ = fmt.Fprintf(&out, "%s %v %v %s\n", name, info.Mode(), info.ModTime().UnixNano(), what)
		return nil
	}))
	return out.String()
}

func sourceOf(t *testing.T, paths ...string) *Source {
	t.Helper()
	s, err := Paths(peer.NewKey([32]byte{1}), paths...)
	must(t, err)
	return s
}

// listen is a listener of a node.
func (n *fakeNode) listen(t *testing.T) Listener {
	t.Helper()
	l, err := n.Listen(t.Context(), Service)
	must(t, err)
	return l
}

// notices are what a side was told.
type notices struct {
	mu  sync.Mutex
	all []Notice
}

func (n *notices) add(x Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

// sent is how many bytes were written in all.
func (n *notices) sent() (bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		if x.Kind == NoticeBegun {
			bytes += x.Progress.Counts().Sent
		}
	}
	return bytes
}

func TestFolderArrivesAsItWas(t *testing.T) {
	t.Parallel()
	for _, dials := range []string{"sender", "receiver"} {
		t.Run(dials+" dials", func(t *testing.T) {
			t.Parallel()
			dir, to := tree(t, 3<<20+5), t.TempDir()
			net := newFakeNet()
			a, b := net.node(1), net.node(2)
			s := &Sender{Node: a, Source: sourceOf(t, dir)}
			r := &Receiver{Node: b, Place: to, Rule: RuleRename}
			var out Result
			var err error
			sent := make(chan error, 1)
			if dials == "sender" {
				l := b.listen(t)
				go func() { sent <- s.To(t.Context(), b.id) }()
				out, err = r.Serve(t.Context(), l, nil)
			} else {
				l := a.listen(t)
				go func() { sent <- s.Serve(t.Context(), l, nil, 1) }()
				out, err = r.From(t.Context(), a.id)
			}
			must(t, err)
			must(t, <-sent)
			same(t, dir, filepath.Join(to, "photos"))
			if left, _ := os.ReadDir(to); len(left) != 1 || len(out.Placed) != 1 || out.Placed[0] != "photos" {
				t.Errorf("left %v, placed %q", left, out.Placed)
			}
			if c := out.Counts; c.Got != s.Source.Bytes() || c.Kept != 0 || c.Total != c.Got || c.Files != int64(s.Source.Files()) {
				t.Errorf("counts %+v", c)
			}
		})
	}
}

func TestTextAndStream(t *testing.T) {
	t.Parallel()
	long := make([]byte, 2*minPiece+17)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(long)
	for name, data := range map[string][]byte{"empty": nil, "short": []byte("hello"), "one piece": long[:minPiece], "long": long} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, form := range []string{"stream", "text", "stream to a file", "file to a stream"} {
				net := newFakeNet()
				a, b := net.node(1), net.node(2)
				if form == "text" && len(data) > maxText {
					continue
				}
				var src *Source
				var err error
				switch form {
				case "text":
					src, err = Text(string(data))
				case "file to a stream":
					at := filepath.Join(t.TempDir(), "x")
					put(t, at, data)
					src = sourceOf(t, at)
				default:
					src, err = Stream(bytes.NewReader(data), "stdin")
				}
				must(t, err)
				var w bytes.Buffer
				r := &Receiver{Node: b, Rule: RuleRename}
				switch form {
				case "stream", "file to a stream":
					r.Out = &w
				case "stream to a file":
					r.Place = filepath.Join(t.TempDir(), "it")
				}
				l := a.listen(t)
				sent := make(chan error, 1)
				go func() { sent <- (&Sender{Node: a, Source: src}).Serve(t.Context(), l, nil, 1) }()
				out, err := r.From(t.Context(), a.id)
				must(t, err)
				must(t, <-sent)
				got := w.Bytes()
				switch form {
				case "text":
					got = out.Text
				case "stream to a file":
					got, err = os.ReadFile(r.Place)
					must(t, err)
				}
				if !bytes.Equal(got, data) {
					t.Errorf("%s: %d bytes arrived of %d", form, len(got), len(data))
				}
			}
		})
	}
}

// Either side is killed again and again, at a random moment, and started anew: in the end
// everything is there, and little was sent twice.
func TestKilledAndResumed(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"sender", "receiver"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			dir, to := tree(t, 40<<20), t.TempDir()
			net := newFakeNet()
			rnd := rand.New(rand.NewPCG(1, 2))
			var told notices
			var kills int
			for {
				a, b := net.node(1), net.node(2)
				src := sourceOf(t, dir)
				ctx, cancel := context.WithCancel(t.Context())
				if kills < 4 {
					a.budget = rnd.Int64N(10<<20) + 1<<20
				}
				a.spent = func() {
					map[string]*fakeNode{"sender": a, "receiver": b}[victim].kill()
					cancel()
				}
				sent := make(chan error, 1)
				l := a.listen(t)
				go func() {
					sent <- (&Sender{Node: a, Source: src, Options: Options{Notice: told.add}}).Serve(ctx, l, nil, 1)
				}()
				_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).From(ctx, a.id)
				cancel()
				sentErr := <-sent
				if err == nil {
					must(t, sentErr)
					break
				}
				kills++
			}
			same(t, dir, filepath.Join(to, "photos"))
			total := sourceOf(t, dir).Bytes()
			again := told.sent() - total
			t.Logf("%d kills, %d bytes in all, %d sent again", kills, total, again)
			if kills != 4 || again < 0 || again > 4*(dataStreams*minPiece+1<<20) {
				t.Errorf("%d kills, %d bytes sent again", kills, again)
			}
		})
	}
}
