//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"bodkin/natlab"
)

// killed is what the run showed.
type killed struct {
	Bytes   int64    `json:"bytes"`
	Files   int      `json:"files"`
	Seconds float64  `json:"seconds"`
	Again   int64    `json:"sent_again"` // at the most
	Share   float64  `json:"share"`
	Kills   []string `json:"kills"`
}

// side is a process, killed and started again.
type side struct {
	host string
	args []string
	cmd  *exec.Cmd
	told chan event
	sent int64 // of the transfers before
	now  int64 // of this one
	rate float64
}

type event struct {
	Event string  `json:"event"`
	Bytes int64   `json:"bytes"`
	Done  int64   `json:"done"`
	Sent  int64   `json:"sent"`
	Rate  float64 `json:"bytes_per_s"`
}

func kill(ctx context.Context, o options, dir string) error {
	// Each way leads over two access links, that of either home.
	b, err := start(ctx, natlab.TwoHomes(natlab.Options{
		DelayA: 100 * time.Microsecond, DelayB: 100 * time.Microsecond, DelayS: 100 * time.Microsecond, Loss: o.loss / 2,
	}), dir)
	if err != nil {
		return err
	}
	defer b.Close()
	from, to := filepath.Join(dir, "tree"), filepath.Join(dir, "received")
	r := killed{Files: o.files + 1}
	if r.Bytes, err = plant(from, o); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	idA, err := b.id("a")
	if err != nil {
		return err
	}
	idB, err := b.id("b")
	if err != nil {
		return err
	}
	sender := &side{host: "a", args: []string{"send", "--json", "--to", idB, from}}
	receiver := &side{host: "b", args: []string{"receive", "--json", "--yes", "--from", idA, "--output", to}}
	begin := time.Now()
	for _, s := range []*side{receiver, sender} {
		if err := s.start(ctx, b, o.bodkin); err != nil {
			return err
		}
	}
	steps := 2*o.kills + 1
	for i := 0; ; {
		e, ok := <-sender.told
		if !ok {
			break
		}
		sender.count(e)
		if e.Done < r.Bytes*int64(i+1)/int64(steps) || i == 2*o.kills {
			continue
		}
		victim, name := receiver, "receiver"
		if i%2 == 1 {
			victim, name = sender, "sender"
		}
		_ = victim.cmd.Process.Kill()
		_ = victim.cmd.Wait()
		if victim == sender {
			for e := range sender.told {
				sender.count(e)
			}
			sender.sent += sender.now + int64(sender.rate*jsonEvery.Seconds()) // what it had no time to tell
			sender.now = 0
		}
		r.Kills = append(r.Kills, fmt.Sprintf("%s at %d%%", name, e.Done*100/r.Bytes))
		if err := victim.start(ctx, b, o.bodkin); err != nil {
			return err
		}
		i++
	}
	if err := errors.Join(sender.cmd.Wait(), receiver.cmd.Wait()); err != nil {
		return err
	}
	r.Seconds = time.Since(begin).Seconds()
	r.Again = sender.sent + sender.now - r.Bytes
	r.Share = float64(r.Again) / float64(r.Bytes)
	if err := same(from, filepath.Join(to, "tree")); err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	fmt.Printf("%d files, %d bytes in %.0f s, identical; killed: %s\nsent again: %d bytes at the most, %.2f%%\n",
		r.Files, r.Bytes, r.Seconds, strings.Join(r.Kills, ", "), r.Again, 100*r.Share)
	return nil
}

// jsonEvery is how often bodkin tells.
const jsonEvery = 500 * time.Millisecond

func (s *side) start(ctx context.Context, b *bed, program string) error {
	s.cmd = b.command(ctx, s.host, program, s.args...)
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	s.cmd.Stdout, s.cmd.Stderr = in, os.Stderr
	if err := b.Host(s.host).Start(s.cmd); err != nil {
		return err
	}
	_ = in.Close()
	told := make(chan event, 1024)
	s.told = told
	go func() {
		defer close(told)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil && s.host == "a" {
				told <- e
			}
		}
	}()
	return nil
}

// count adds up what was sent.
func (s *side) count(e event) {
	if e.Event == "begun" {
		s.sent, s.now = s.sent+s.now, 0
	}
	s.now, s.rate = max(s.now, e.Sent), max(s.rate, e.Rate)
}

// plant makes a tree of small files and a large one.
func plant(dir string, o options) (bytes int64, err error) {
	for i := range o.files {
		at := filepath.Join(dir, fmt.Sprint(i%100))
		if err := os.MkdirAll(at, 0o755); err != nil {
			return 0, err
		}
		size := int64(i * 7919 % 5000)
		if err := fill(filepath.Join(at, fmt.Sprint(i)), size); err != nil {
			return 0, err
		}
		bytes += size
	}
	large := int64(o.megabytes) * 1e6
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	return bytes + large, fill(filepath.Join(dir, "large"), large)
}

// same compares names, modes, times and contents.
func same(a, b string) error {
	n, m := 0, 0
	err := filepath.WalkDir(a, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		inside, _ := filepath.Rel(a, at)
		other := filepath.Join(b, inside)
		x, err := os.Stat(at)
		if err != nil {
			return err
		}
		y, err := os.Stat(other)
		if err != nil {
			return err
		}
		if x.Mode() != y.Mode() || !x.ModTime().Equal(y.ModTime()) || !d.IsDir() && x.Size() != y.Size() {
			return fmt.Errorf("%s differs: %v %v, %v %v", inside, x.Mode(), x.ModTime(), y.Mode(), y.ModTime())
		}
		if d.IsDir() {
			return nil
		}
		p, err := sum(at)
		if err != nil {
			return err
		}
		q, err := sum(other)
		if err == nil && p != q {
			err = fmt.Errorf("%s differs", inside)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = filepath.WalkDir(b, func(string, fs.DirEntry, error) error { m++; return nil })
	if n != m {
		err = errors.Join(err, fmt.Errorf("%d things are there, and should be %d", m, n))
	}
	return err
}
