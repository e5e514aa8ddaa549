package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
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
	b := make([]byte, max(large, minPiece+1))
	_, _ = r.Read(b)
	put(t, filepath.Join(dir, "large"), b[:large])
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
	x, y := strings.Split(listing(t, a), "\n"), strings.Split(listing(t, b), "\n")
	for _, line := range x {
		if !slices.Contains(y, line) {
			t.Errorf("did not arrive: %s", line)
		}
	}
	for _, line := range y {
		if !slices.Contains(x, line) {
			t.Errorf("arrived: %s", line)
		}
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

// await waits for a notice.
func (n *notices) await(k NoticeKind) {
	for {
		n.mu.Lock()
		seen := slices.ContainsFunc(n.all, func(x Notice) bool { return x.Kind == k })
		n.mu.Unlock()
		if seen {
			return
		}
		time.Sleep(time.Millisecond) // of fake time
	}
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

// transfer sends a source from one node to another, which dials.
func transfer(t *testing.T, s *Sender, r *Receiver) (out Result, sent, received error) {
	t.Helper()
	a := s.Node.(*fakeNode)
	l := a.listen(t)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), l, nil, 1, nil) }()
	out, received = r.From(t.Context(), a.id)
	return out, <-ended, received
}

// two are two nodes of a new network.
func two() (a, b *fakeNode) {
	net := newFakeNet()
	return net.node(1), net.node(2)
}

func TestFolderArrivesAsItWas(t *testing.T) {
	t.Parallel()
	for _, dials := range []string{"sender", "receiver"} {
		t.Run(dials+" dials", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, to := tree(t, 3<<20+5), t.TempDir()
				a, b := two()
				s := &Sender{Node: a, Source: sourceOf(t, dir)}
				r := &Receiver{Node: b, Place: to, Rule: RuleRename}
				var out Result
				var sent, err error
				if dials == "receiver" {
					out, sent, err = transfer(t, s, r)
				} else {
					l := b.listen(t)
					ended := make(chan error, 1)
					go func() { ended <- s.To(t.Context(), b.id) }()
					out, err = r.Serve(t.Context(), l, nil)
					sent = <-ended
				}
				must(t, err)
				must(t, sent)
				same(t, dir, filepath.Join(to, "photos"))
				if left, _ := os.ReadDir(to); len(left) != 1 || len(out.Placed) != 1 || out.Placed[0] != "photos" {
					t.Errorf("left %v, placed %q", left, out.Placed)
				}
				if c := out.Counts; c.Got != s.Source.Bytes() || c.Kept != 0 || c.Total != c.Got || c.Files != int64(s.Source.Files()) {
					t.Errorf("counts %+v", c)
				}
			})
		})
	}
}

func TestTextAndStream(t *testing.T) {
	t.Parallel()
	long := make([]byte, 2*minPiece+17)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(long)
	for name, data := range map[string][]byte{"empty": nil, "short": []byte("hello"), "one piece": long[:minPiece], "long": long} {
		for _, form := range []string{"text", "stream", "stream to a file", "file to a stream"} {
			if form == "text" && len(data) > maxText {
				continue
			}
			t.Run(name+" "+form, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					a, b := two()
					var w bytes.Buffer
					r := &Receiver{Node: b, Rule: RuleRename}
					var src *Source
					var err error
					switch form {
					case "text":
						src, err = Text(string(data))
					case "file to a stream":
						at := filepath.Join(t.TempDir(), "x")
						put(t, at, data)
						src, r.Out = sourceOf(t, at), &w
					case "stream":
						src, err = Stream(bytes.NewReader(data), "stdin")
						r.Out = &w
					default:
						src, err = Stream(bytes.NewReader(data), "stdin")
						r.Place = filepath.Join(t.TempDir(), "it")
					}
					must(t, err)
					out, sent, err := transfer(t, &Sender{Node: a, Source: src}, r)
					must(t, err)
					must(t, sent)
					got := w.Bytes()
					switch form {
					case "text":
						got = out.Text
					case "stream to a file":
						got, err = os.ReadFile(r.Place)
						must(t, err)
					}
					if !bytes.Equal(got, data) {
						t.Errorf("%d bytes arrived of %d", len(got), len(data))
					}
				})
			})
		}
	}
}

// Several receive the same, each at its own time, and one of them twice.
func TestSeveralReceivers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := tree(t, 1<<20)
		net := newFakeNet()
		a := net.node(1)
		l := a.listen(t)
		ended := make(chan error, 1)
		go func() { ended <- (&Sender{Node: a, Source: sourceOf(t, dir)}).Serve(t.Context(), l, nil, 3, nil) }()
		var wg sync.WaitGroup
		places := make([]string, 4)
		for i := range places {
			places[i] = t.TempDir()
		}
		receive := func(name byte, to string) {
			out, err := (&Receiver{Node: net.node(name), Place: to, Rule: RuleRename}).From(t.Context(), a.id)
			if err != nil || len(out.Placed) != 1 {
				t.Errorf("receiver %d: %v, %v", name, out.Placed, err)
			}
		}
		wg.Go(func() {
			receive(2, places[0])
			receive(2, places[1])
			receive(4, places[2])
		})
		wg.Go(func() { receive(3, places[3]) })
		wg.Wait()
		must(t, <-ended)
		for _, to := range places {
			same(t, dir, filepath.Join(to, "photos"))
		}
	})
}

func TestReceiverThatDeclines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := two()
		var asked Incoming
		r := &Receiver{Node: b, Place: t.TempDir(), Confirm: func(_ context.Context, in Incoming) (bool, error) {
			asked = in
			return false, nil
		}}
		_, sent, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, tree(t, 10))}, r)
		var f *Failure
		if !errors.As(sent, &f) || !f.Declined() || err == nil {
			t.Errorf("ended with %v and %v", sent, err)
		}
		if asked.Peer != a.id || asked.Name != "photos" || !asked.Folder || asked.Files != 104 || asked.Roots != 1 {
			t.Errorf("asked about %+v", asked)
		}
		if left, _ := os.ReadDir(r.Place); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	})
}

func TestOnlyADirectRoute(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"sender", "receiver"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, b := two()
				for _, n := range []*fakeNode{a, b} {
					n.route = func() bodkin.Route { return bodkin.Route{Transport: "relay"} }
					n.explan = bodkin.Explanation{Way: "relay", Reason: "both NATs are hard", Help: []string{"IPv6"}}
				}
				s := &Sender{Node: a, Source: sourceOf(t, tree(t, 10))}
				r := &Receiver{Node: b, Place: t.TempDir(), Rule: RuleRename}
				if side == "sender" {
					s.DirectOnly = true
				} else {
					r.DirectOnly = true
				}
				_, sent, err := transfer(t, s, r)
				for _, err := range []error{sent, err} {
					if err == nil || !strings.Contains(err.Error(), "both NATs are hard; what would help: IPv6") {
						t.Errorf("ended with %v", err)
					}
				}
				for _, n := range []*fakeNode{a, b} {
					n.explan.Way = "direct"
				}
				_, sent, err = transfer(t, s, r)
				must(t, sent)
				must(t, err)
			})
		})
	}
}
