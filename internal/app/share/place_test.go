package share

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/peer"
)

// What happens where something is already, by each rule.
func TestSomethingIsThereAlready(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		rule Rule
		want map[string]string // what is there in the end
	}{
		{"always", RuleAlways, map[string]string{
			"d/same": "new", "d/old": "old", "d/new": "new", "d/folder (2)": "new", "d/folder/x": "old", "d/sub/y": "new", "f": "new",
		}},
		{"never", RuleNever, map[string]string{
			"d/same": "old", "d/old": "old", "d/new": "new", "d/folder/x": "old", "d/sub/y": "new", "f": "old",
		}},
		{"rename", RuleRename, map[string]string{
			"d/same": "old", "d/old": "old", "d/folder/x": "old", "f": "old", "d (2)/same": "new", "d (2)/new": "new",
			"d (2)/folder": "new", "d (2)/sub/y": "new", "f (2)": "new",
		}},
		{"ask", RuleAsk, map[string]string{
			"d/same": "new", "d/old": "old", "d/new": "new", "d/folder (2)": "new", "d/folder/x": "old", "d/sub/y": "new", "f": "old",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				from, to := t.TempDir(), t.TempDir()
				for _, name := range []string{"d/same", "d/new", "d/folder", "d/sub/y", "f"} {
					put(t, filepath.Join(from, name), []byte("new"))
				}
				for _, name := range []string{"d/same", "d/old", "d/folder/x", "f"} {
					put(t, filepath.Join(to, name), []byte("old"))
				}
				a, b := two()
				r := &Receiver{Node: b, Place: to, Rule: c.rule, Ask: func(_ context.Context, name string, folder bool) (Rule, error) {
					if folder != (name == "d") {
						t.Errorf("asked about %s, folder: %v", name, folder)
					}
					return map[string]Rule{"d": RuleAlways, "f": RuleNever}[name], nil
				}}
				_, sent, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, filepath.Join(from, "d"), filepath.Join(from, "f"))}, r)
				must(t, sent)
				must(t, err)
				got := make(map[string]string)
				must(t, fs.WalkDir(os.DirFS(to), ".", func(at string, d fs.DirEntry, err error) error {
					if err == nil && !d.IsDir() {
						text, _ := os.ReadFile(filepath.Join(to, at))
						got[at] = string(text)
					}
					return err
				}))
				for name, text := range c.want {
					if got[name] != text {
						t.Errorf("%s is %q, want %q", name, got[name], text)
					}
					delete(got, name)
				}
				if len(got) > 0 {
					t.Errorf("there is more: %v", got)
				}
			})
		})
	}
}

// With always, what is the same is not sent again.
func TestSameAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir, to := tree(t, 1<<20), t.TempDir()
		for i := range 2 {
			a, b := two()
			out, sent, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, dir)}, &Receiver{Node: b, Place: to, Rule: RuleAlways})
			must(t, sent)
			must(t, err)
			if i == 1 && (out.Counts.Got != 0 || out.Counts.Kept != out.Counts.Total) {
				t.Errorf("counts %+v", out.Counts)
			}
			same(t, dir, filepath.Join(to, "photos"))
		}
	})
}

func TestNoSpace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := two()
		r := &Receiver{Node: b, Place: t.TempDir(), Rule: RuleRename, Space: func(string) (uint64, error) { return 1_000_000, nil }}
		_, sent, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, tree(t, 2<<20))}, r)
		for _, err := range []error{sent, err} {
			if err == nil || !strings.Contains(err.Error(), "no space: 2.5 MB more are needed where it is received, and 1.0 MB are free") {
				t.Errorf("ended with %v", err)
			}
		}
	})
}

// A disk that fills up in the middle.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := two()
		r := &Receiver{Node: b, Out: full{}, Rule: RuleRename}
		at := filepath.Join(t.TempDir(), "x")
		put(t, at, make([]byte, 1<<20))
		_, sent, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, at)}, r)
		for _, err := range []error{sent, err} {
			if err == nil || !strings.Contains(err.Error(), "disk full") {
				t.Errorf("ended with %v", err)
			}
		}
	})
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestFreeNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	for name, want := range map[string]string{
		"photos": "photos (3)", "a.txt": "a (3).txt", ".profile": ".profile (3)", "x.y.z": "x.y (3).z", "a.very-long-end": "a.very-long-end (3)",
		long: long[:251] + " (3)",
	} {
		n := 0
		if got := free(name, func(string) bool { n++; return n == 1 }); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
}

// While one transfer runs, another sender is told to come back.
func TestTwoSendersAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		net := newFakeNet()
		a, b, c := net.node(1), net.node(2), net.node(3)
		asked, go1 := make(chan struct{}), make(chan struct{})
		r := &Receiver{Node: b, Place: t.TempDir(), Rule: RuleRename, Confirm: func(ctx context.Context, _ Incoming) (bool, error) {
			close(asked)
			<-go1
			return true, nil
		}}
		l := b.listen(t)
		received, sent := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := r.Serve(t.Context(), l, nil)
			received <- err
		}()
		src := sourceOf(t, tree(t, 10))
		go func() { sent <- (&Sender{Node: a, Source: src}).To(t.Context(), b.id) }()
		<-asked
		err := (&Sender{Node: c, Source: src}).To(t.Context(), b.id)
		if err == nil || !strings.Contains(err.Error(), "somebody else is sending; try again later") {
			t.Errorf("ended with %v", err)
		}
		close(go1)
		must(t, <-sent)
		must(t, <-received)
	})
}

// A rate that is bounded takes its time.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := two()
		at := filepath.Join(t.TempDir(), "x")
		put(t, at, make([]byte, 2<<20))
		begin := time.Now()
		_, sent, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, at), Options: Options{Rate: 1 << 20}}, &Receiver{Node: b, Place: t.TempDir(), Rule: RuleRename})
		must(t, sent)
		must(t, err)
		// The last piece leaves when all before it have had their time.
		if took := time.Since(begin); took < 1750*time.Millisecond || took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A sender that says other things than it announced, or does not know, is refused.
func TestPeersThatAreNotAdmitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := two()
		ctx, cancel := context.WithCancel(t.Context())
		l := a.listen(t)
		ended := make(chan error, 1)
		go func() {
			ended <- (&Sender{Node: a, Source: sourceOf(t, tree(t, 10))}).Serve(ctx, l, func(peer.ID) bool { return false }, 1, nil)
		}()
		_, err := (&Receiver{Node: b, Place: t.TempDir(), Rule: RuleRename}).From(t.Context(), a.id)
		if err == nil || !strings.Contains(err.Error(), "this is for somebody else; ask for a new code") {
			t.Errorf("ended with %v", err)
		}
		cancel()
		if err := <-ended; err == nil {
			t.Error("it was not broken off")
		}
	})
}
