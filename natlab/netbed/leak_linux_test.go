package netbed_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

var starts = flag.Int("starts", 24, "how many labs the leak tests start and stop")

// namespaces are the network namespaces that processes and threads of this machine
// are in, or hold open, as far as /proc shows them.
func namespaces(t *testing.T) map[string]bool {
	t.Helper()
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		t.Skip("/proc shows others' processes, too")
	}
	out := make(map[string]bool)
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/[0-9]*/fd/[0-9]*"} {
		links, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			// What has gone meanwhile is not there.
			if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "net:[") {
				out[to] = true
			}
		}
	}
	return out
}

// open is how many file descriptors this process has.
func open(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// eventually waits for what the kernel and the runtime do in the background:
// threads end after the goroutines that they were locked to.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	timeout := time.After(20 * time.Second)
	for !f() {
		select {
		case <-again.C:
		case <-timeout:
			t.Fatal(what)
		}
	}
}

// busy starts a lab with a program on a host of it, and traffic.
func busy(ctx context.Context, bed netbed.Bed) (*netbed.Lab, error) {
	l, err := bed.Start(ctx, natlab.TwoHomes(natlab.Options{InsideA: time.Millisecond, IPv6: true}))
	if err != nil {
		return nil, err
	}
	if err := l.Host("a").Start(exec.CommandContext(ctx, "sleep", "1000")); err != nil {
		return nil, err
	}
	return l, nil
}

// Not parallel: it looks at what the whole machine has.
func TestStartsAndStopsLeaveNothing(t *testing.T) {
	netbed.Need(t)
	begin := time.Now()
	var spaces map[string]bool
	var files int
	for i := range *starts + 2 {
		if i == 2 { // by now everything is there that stays
			spaces, files, begin = namespaces(t), open(t), time.Now()
		}
		ctx, cancel := context.WithCancel(t.Context())
		l, err := busy(ctx, beds[i%2])
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			cancel() // ends it, too
		}
		l.Close()
		cancel()
	}
	t.Logf("a lab with a program in it starts and stops in %v", time.Since(begin)/time.Duration(*starts))
	eventually(t, "namespaces are left", func() bool { return maps.Equal(spaces, namespaces(t)) })
	eventually(t, "files are left open", func() bool { return open(t) <= files })
	eventually(t, "processes are left", func() bool { return len(having(t, "sleep\x001000")) == 0 })
}

// having are the processes whose command line or environment has the text in it.
func having(t *testing.T, text string) (out []int) {
	t.Helper()
	processes, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, file := range []string{"cmdline", "environ"} {
			if b, err := os.ReadFile(filepath.Join("/proc", p.Name(), file)); err == nil && bytes.Contains(b, []byte(text)) {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

const victim = "NATLAB_TEST_VICTIM"

// TestVictim is the program that TestKillsLeaveNothing starts and kills: it starts
// labs and stops them, for as long as it lives. By itself it does nothing.
func TestVictim(t *testing.T) {
	if os.Getenv(victim) == "" {
		return
	}
	netbed.Need(t)
	for i := 0; ; i++ {
		l, err := busy(t.Context(), beds[i%2])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("up")
		if i%2 == 1 {
			l.Close()
		}
	}
}

// Not parallel: it looks at what the whole machine has.
func TestKillsLeaveNothing(t *testing.T) {
	netbed.Need(t)
	before := namespaces(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 0; n < *starts; {
		mark := fmt.Sprintf("%s=%d.%d", victim, os.Getpid(), n)
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestVictim$", "-test.v")
		cmd.Env = append(os.Environ(), mark)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, ups, wanted := bufio.NewScanner(out), 0, 1+rng.IntN(4)
		for ups < wanted && lines.Scan() {
			if lines.Text() == "up" {
				ups++
			}
		}
		if ups < wanted {
			t.Fatal("the victim ended by itself")
		}
		n += ups + 1 // it is in the middle of the next one
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		eventually(t, "processes are left", func() bool { return len(having(t, mark)) == 0 })
	}
	eventually(t, "namespaces are left", func() bool { return maps.Equal(before, namespaces(t)) })
}
