package labrun

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

func TestMain(m *testing.M) { netbed.Main(m) }

// collected is what a run of programs printed and how they ended.
type collected struct {
	out   map[int][]string // by command
	ended map[int]Ended
	code  int
	err   error
}

func runPrograms(t *testing.T, ctx context.Context, p Programs) collected {
	t.Helper()
	netbed.Need(t)
	c := collected{out: make(map[int][]string), ended: make(map[int]Ended)}
	output := p.Output
	p.Output = func(n int, s Stream, line string) {
		c.out[n] = append(c.out[n], line)
		if output != nil {
			output(n, s, line)
		}
	}
	p.Ended = func(e Ended) { c.ended[e.Command] = e }
	c.code, c.err = p.Run(ctx)
	return c
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// bounded ends with the test, or when it takes much too long.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the programs did not end"))
	t.Cleanup(cancel)
	return ctx
}

// Two programs that know nothing of us punch a hole, each towards where the other is
// seen: both NATs keep the port.
func TestForeignProgramsMeet(t *testing.T) {
	t.Parallel()
	need(t, "nc", "socat", "tshark")
	const say = "while :; do echo from $NATLAB_HOST; sleep 0.1; done | "
	for _, bed := range []netbed.Bed{netbed.Model, netbed.Kernel} {
		t.Run(bed.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(bounded(t))
			heard := make(map[int]bool)
			c := runPrograms(t, ctx, Programs{
				Topology: natlab.TwoHomes(natlab.Options{PresetA: natlab.Linux, PresetB: natlab.CGNAT, Seed: 1}),
				Bed:      bed, Pcap: dir,
				Commands: []Command{
					{"a", say + "nc -u -p 7000 $NATLAB_B_OUTSIDE 7000"},
					{"b", say + "socat - UDP:$NATLAB_A_OUTSIDE:7000,sourceport=7000"},
				},
				Output: func(n int, _ Stream, line string) {
					if heard[n] = heard[n] || line == [...]string{"from b", "from a"}[n]; heard[0] && heard[1] {
						cancel()
					}
				},
			})
			if !errors.Is(c.err, context.Canceled) {
				t.Fatalf("ended with %d: %v; %v", c.code, c.err, c.out)
			}
			checkPcap(t, filepath.Join(dir, "home-a.pcap"))
			checkPcap(t, filepath.Join(dir, "carrier-b.pcap"))
		})
	}
}

// checkPcap lets tshark read a capture of a conversation between ports 7000.
func checkPcap(t *testing.T, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tshark", "-n", "-r", path, "-Y", "udp and not icmp", "-T", "fields",
		"-e", "ip.src", "-e", "udp.srcport", "-e", "udp.dstport", "-e", "udp.checksum.status", "-o", "udp.check_checksum:TRUE").Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	from := make(map[string]int)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[1] == "7000" && f[2] == "7000" && f[3] == "1" {
			from[f[0]]++
		}
	}
	if len(from) != 2 {
		t.Errorf("%s: packets between ports 7000 came from %v; tshark says:\n%s", filepath.Base(path), from, out)
	}
}

func TestCodeIsTheFirstFailure(t *testing.T) {
	t.Parallel()
	up := filepath.Join(t.TempDir(), "up")
	c := runPrograms(t, bounded(t), Programs{
		Topology: natlab.TwoHomes(natlab.Options{Seed: 1}), Bed: netbed.Model,
		Commands: []Command{
			{"server", "trap 'echo bye; exit 9' TERM; touch " + up + "; while :; do sleep 0.1; done"},
			{"a", "echo one; echo two >&2; exit 0"},
			{"b", "while ! [ -e " + up + " ]; do sleep 0.1; done; printf unfinished; kill -KILL $$"},
		},
	})
	if c.err != nil || c.code != 128+9 {
		t.Errorf("ended with %d: %v", c.code, c.err)
	}
	if !reflect.DeepEqual(c.ended, map[int]Ended{0: {0, 9, true}, 1: {1, 0, false}, 2: {2, 137, false}}) {
		t.Errorf("ended: %+v", c.ended)
	}
	if got := c.out; len(got[0]) != 1 || len(got[1]) != 2 || len(got[2]) != 1 || got[2][0] != "unfinished" || got[0][0] != "bye" {
		t.Errorf("printed: %v", got)
	}
}

func TestProgramsKnowTheAddresses(t *testing.T) {
	t.Parallel()
	c := runPrograms(t, bounded(t), Programs{
		Topology: natlab.TwoHomes(natlab.Options{PresetA: natlab.CGNAT, PresetB: natlab.Firewall, IPv6: true, Seed: 1}), Bed: netbed.Model,
		Commands: []Command{{"a", "env | grep ^NATLAB_ | sort"}},
	})
	got := make(map[string]string)
	for _, line := range c.out[0] {
		name, value, _ := strings.Cut(line, "=")
		got[name] = value
	}
	for name, prefix := range map[string]string{
		"NATLAB_HOST": "a", "NATLAB_A": "192.168.", "NATLAB_A_OUTSIDE": "203.0.113.", "NATLAB_B": "198.19.",
		"NATLAB_SERVER": "192.0.2.", "NATLAB_A6": "2001:db8:", "NATLAB_B_OUTSIDE6": "2001:db8:",
	} {
		if !strings.HasPrefix(got[name], prefix) {
			t.Errorf("%s=%s, want %s…", name, got[name], prefix)
		}
	}
	if got["NATLAB_B"] != got["NATLAB_B_OUTSIDE"] || got["NATLAB_INSIDE"] != "" {
		t.Errorf("%v", got)
	}
}

func TestRunOfProgramsIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(bounded(t))
	mark := filepath.Join(t.TempDir(), "alive")
	c := runPrograms(t, ctx, Programs{
		Topology: natlab.TwoHomes(natlab.Options{Seed: 1}), Bed: netbed.Model,
		// One that does not listen, and a child that would outlive it.
		Commands: []Command{{"a", "trap '' TERM; (while :; do echo x >>" + mark + "; sleep 0.05; done) & echo up; wait"}},
		Output:   func(int, Stream, string) { cancel() },
	})
	if !errors.Is(c.err, context.Canceled) {
		t.Errorf("ended with %v", c.err)
	}
	if !c.ended[0].Stopped {
		t.Errorf("ended: %+v", c.ended)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(processes) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, p := range processes {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), mark) {
			t.Errorf("%s still runs: %q", p, b)
		}
	}
}

func TestProgramsAreRefused(t *testing.T) {
	t.Parallel()
	for want, commands := range map[string][]Command{
		`no host "c"`:  {{"c", "true"}},
		"nothing runs": {{"server", "true"}},
	} {
		_, err := Programs{Topology: natlab.TwoHomes(natlab.Options{}), Commands: commands}.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", commands, err)
		}
	}
}

func TestLinesAreWhole(t *testing.T) {
	t.Parallel()
	var got []string
	l := &lines{say: func(s string) { got = append(got, s) }}
	for _, part := range []string{"a", "b\nc\n", "", "\nd", "e", strings.Repeat("x", maxLine), "y"} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
	}
	l.end()
	if want := []string{"ab", "c", "", "de" + strings.Repeat("x", maxLine), "y"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%d lines", len(got))
	}
}

func TestPcapFolderThatCannotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := runPrograms(t, bounded(t), Programs{
		Topology: natlab.TwoHomes(natlab.Options{Seed: 1}), Bed: netbed.Model, Pcap: filepath.Join(file, "sub"),
		Commands: []Command{{"a", "true"}},
	})
	if c.err == nil || len(c.ended) > 0 {
		t.Errorf("%+v", c)
	}
}
