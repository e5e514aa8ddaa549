package share

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Either side is killed again and again, at a random moment, and started anew: in the end
// everything is there, and little was sent twice.
func TestKilledAndResumed(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"sender", "receiver"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, to := tree(t, 24<<20), t.TempDir()
				net := newFakeNet()
				rnd := rand.New(rand.NewPCG(1, 2))
				var told notices
				const kills = 4
				for i := 0; ; i++ {
					a, b := net.node(1), net.node(2)
					ctx, cancel := context.WithCancel(t.Context())
					if i < kills {
						a.budget = rnd.Int64N(5<<20) + 1<<20
					}
					a.spent = func() {
						map[string]*fakeNode{"sender": a, "receiver": b}[victim].kill()
						cancel()
					}
					sent := make(chan error, 1)
					l := a.listen(t)
					s := &Sender{Node: a, Source: sourceOf(t, dir), Options: Options{Notice: told.add}}
					go func() { sent <- s.Serve(ctx, l, nil, 1, nil) }()
					_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).From(ctx, a.id)
					if err == nil {
						must(t, <-sent)
						cancel()
						break
					}
					<-ctx.Done()
					if err := <-sent; err == nil {
						t.Error("it was not broken off")
					}
					if i == kills {
						t.Fatal(err)
					}
					// Nothing half done is unmarked.
					if left, err := os.ReadDir(to); err != nil || len(left) != 1 || left[0].Name() != "photos.part" {
						t.Fatalf("left %v, %v", left, err)
					}
				}
				same(t, dir, filepath.Join(to, "photos"))
				total := sourceOf(t, dir).Bytes()
				again := told.sent() - total
				t.Logf("%d bytes in all, %d sent again", total, again)
				if again < 0 || again > kills*dataStreams*(minPiece+pipeRoom) {
					t.Errorf("%d bytes sent again", again)
				}
			})
		})
	}
}

// A receiver that is killed while the sender runs on is waited for, and goes on; so is a
// sender.
func TestOtherSideComesBack(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"who dials", "who listens"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, to := tree(t, 4<<20), t.TempDir()
				net := newFakeNet()
				a, b := net.node(1), net.node(2)
				var told notices
				a.budget = 2 << 20
				begin := time.Now()
				if victim == "who dials" {
					a.spent = b.kill
					l := a.listen(t)
					sent := make(chan error, 1)
					s := &Sender{Node: a, Source: sourceOf(t, dir), Options: Options{Notice: told.add}}
					go func() { sent <- s.Serve(t.Context(), l, nil, 1, nil) }()
					ctx, cancel := context.WithCancel(t.Context())
					died := make(chan error, 1)
					go func() {
						_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).From(ctx, a.id)
						died <- err
					}()
					told.await(NoticeWaiting)
					cancel()
					if err := <-died; err == nil {
						t.Error("it was not broken off")
					}
					_, err := (&Receiver{Node: net.node(2), Place: to, Rule: RuleRename}).From(t.Context(), a.id)
					must(t, err)
					must(t, <-sent)
				} else {
					a.spent = b.kill
					l := b.listen(t)
					ctx, cancel := context.WithCancel(t.Context())
					died := make(chan error, 1)
					go func() {
						_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).Serve(ctx, l, nil)
						died <- err
					}()
					sent := make(chan error, 1)
					s := &Sender{Node: a, Source: sourceOf(t, dir), Options: Options{Notice: told.add}}
					go func() { sent <- s.To(t.Context(), b.id) }()
					told.await(NoticeWaiting)
					cancel()
					if err := <-died; err == nil {
						t.Error("it was not broken off")
					}
					b = net.node(2)
					_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).Serve(t.Context(), b.listen(t), nil)
					must(t, err)
					must(t, <-sent)
				}
				same(t, dir, filepath.Join(to, "photos"))
				if took := time.Since(begin); took > time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// A peer that says nothing any more, and whose connection stays, is given up.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := two()
		l := b.listen(t)
		s := &Sender{Node: a, Source: sourceOf(t, tree(t, 10)), Options: Options{Wait: time.Minute}}
		begin := time.Now()
		err := s.To(t.Context(), b.id)
		if err == nil || !strings.Contains(err.Error(), "fallen silent") {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(begin); took < time.Minute || took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
		_ = l.Close()
	})
}

// What changed meanwhile is sent anew, and only that.
func TestChangedBetweenTwoTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir, to := tree(t, 8<<20), t.TempDir()
		net := newFakeNet()
		a, b := net.node(1), net.node(2)
		ctx, cancel := context.WithCancel(t.Context())
		a.budget = 6 << 20
		a.spent = func() {
			b.kill()
			cancel()
		}
		l := a.listen(t)
		sent := make(chan error, 1)
		go func() { sent <- (&Sender{Node: a, Source: sourceOf(t, dir)}).Serve(ctx, l, nil, 1, nil) }()
		_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).From(ctx, a.id)
		if err := <-sent; err == nil {
			t.Error("it was not broken off")
		}
		if err == nil {
			t.Fatal("it was not killed")
		}
		f, err := os.OpenFile(filepath.Join(dir, "large"), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("another beginning"), 5)
		must(t, err)
		must(t, f.Close())
		put(t, filepath.Join(dir, "1", "new"), []byte("new"))
		must(t, os.Remove(filepath.Join(dir, "empty")))
		a, b = net.node(1), net.node(2)
		out, bad, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, dir)}, &Receiver{Node: b, Place: to, Rule: RuleRename})
		must(t, bad)
		must(t, err)
		if out.Counts.Got > 4<<20 {
			t.Errorf("%d bytes were sent again", out.Counts.Got)
		}
		same(t, dir, filepath.Join(to, "photos"))
	})
}

// Another transfer of the same name does not touch what is unfinished.
func TestUnfinishedTransfersOfOneName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		to := t.TempDir()
		net := newFakeNet()
		first, second := tree(t, 4<<20), tree(t, 300)
		a, b := net.node(1), net.node(2)
		ctx, cancel := context.WithCancel(t.Context())
		a.budget = 2 << 20
		a.spent = cancel
		l := a.listen(t)
		sent := make(chan error, 1)
		go func() { sent <- (&Sender{Node: a, Source: sourceOf(t, first)}).Serve(ctx, l, nil, 1, nil) }()
		_, err := (&Receiver{Node: b, Place: to, Rule: RuleRename}).From(ctx, a.id)
		if err := <-sent; err == nil {
			t.Error("it was not broken off")
		}
		if folder, ok := Kept(err); !ok || folder != filepath.Join(to, "photos.part") {
			t.Fatalf("kept in %q, %v", folder, err)
		}
		put(t, filepath.Join(to, "photos.2.part", "mine"), nil) // and it is nobody's
		a = net.node(1)
		_, bad, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, second)}, &Receiver{Node: b, Place: to, Rule: RuleRename})
		must(t, bad)
		must(t, err)
		same(t, second, filepath.Join(to, "photos"))
		a = net.node(1)
		out, bad, err := transfer(t, &Sender{Node: a, Source: sourceOf(t, first)}, &Receiver{Node: b, Place: to, Rule: RuleRename})
		must(t, bad)
		must(t, err)
		same(t, first, filepath.Join(to, "photos (2)"))
		if out.Counts.Kept == 0 {
			t.Error("it began anew")
		}
		left, err := os.ReadDir(to)
		var names []string
		for _, x := range left {
			names = append(names, x.Name())
		}
		if want := []string{"photos", "photos (2)", "photos.2.part"}; err != nil || !slices.Equal(names, want) {
			t.Errorf("left %q, %v", names, err)
		}
	})
}

// A file that changes while it is sent is told of on both sides, and is not taken for
// whole; sent again, it is.
func TestFileThatChangesWhileItIsSent(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, at string){
		"grows": func(t *testing.T, at string) {
			t.Helper()
			f, err := os.OpenFile(at, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteString("more")
			must(t, err)
			must(t, f.Close())
		},
		"shrinks": func(t *testing.T, at string) {
			t.Helper()
			must(t, os.Truncate(at, 1<<20))
		},
		"is written to": func(t *testing.T, at string) {
			t.Helper()
			f, err := os.OpenFile(at, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("x"), 0)
			must(t, err)
			must(t, f.Close())
		},
		"goes": func(t *testing.T, at string) {
			t.Helper()
			must(t, os.Remove(at))
			put(t, at+".new", []byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, to := tree(t, 4<<20), t.TempDir()
				net := newFakeNet()
				a, b := net.node(1), net.node(2)
				src := sourceOf(t, dir)
				at := filepath.Join(dir, "large")
				if name == "goes" {
					change(t, at)
				} else {
					a.budget = 2 << 20
					a.spent = func() { change(t, at) }
				}
				_, sent, err := transfer(t, &Sender{Node: a, Source: src}, &Receiver{Node: b, Place: to, Rule: RuleRename})
				for _, err := range []error{sent, err} {
					if err == nil || !strings.Contains(err.Error(), "photos/large: it ") {
						t.Errorf("ended with %v", err)
					}
				}
				if folder, ok := Kept(err); !ok || folder != filepath.Join(to, "photos.part") {
					t.Errorf("kept in %q, %v", folder, ok)
				}
				if _, err := os.Stat(filepath.Join(to, "photos")); err == nil {
					t.Error("half of it is there, unmarked")
				}
				a = net.node(1)
				_, sent, err = transfer(t, &Sender{Node: a, Source: sourceOf(t, dir)}, &Receiver{Node: b, Place: to, Rule: RuleRename})
				must(t, sent)
				must(t, err)
				same(t, dir, filepath.Join(to, "photos"))
			})
		})
	}
}
