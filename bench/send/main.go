//go:build linux

// Send measures `bodkin send` over a hole, next to scp in the same namespaces and in one
// run:
//
//	go run ./bench/send [--rounds 3] [--megabytes 500] [--json]
//
// or kills both sides, again and again, while a tree of small files and a large one are
// sent over a line that loses packets, and counts what was sent twice:
//
//	go run ./bench/send --kill 3 [--megabytes 2000] [--files 10000] [--loss 0.05]
//
//	main.go        the lab
//	contenders.go  who sends
//	kill.go        the other run
//
// Two homes behind Linux NATs and the link between them are the kernel's alone, as in
// bench/throughput. bodkin goes from home to home; scp, which passes no NAT inwards, to a
// machine outside. Each time is that of the
// whole command, from its start to its end, and CPU that of both ends, the kernel's part and
// children included. The files are in --folder, which should be
// in memory.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
	"bodkin/rendezvous"
)

type options struct {
	rounds    int
	megabytes int
	folder    string
	bodkin    string
	kills     int
	files     int
	loss      float64
	json      bool
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "how often each sends")
	flag.IntVar(&o.megabytes, "megabytes", 500, "size of the file")
	flag.StringVar(&o.folder, "folder", "/dev/shm", "where files are")
	flag.StringVar(&o.bodkin, "bodkin", "", "the program; it is built if empty")
	flag.IntVar(&o.kills, "kill", 0, "how often each side is killed, in place of measuring")
	flag.IntVar(&o.files, "files", 10000, "with --kill: how many small files there are")
	flag.Float64Var(&o.loss, "loss", 0.05, "with --kill: how many packets get lost, of 1, each way")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.Parse()
	if err := run(o); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "send:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.bodkin == "" {
		o.bodkin = filepath.Join(os.TempDir(), "bench-bodkin")
		build := exec.Command("go", "build", "-o", o.bodkin, "./cmd/bodkin") //nolint:noctx // it ends
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return err
		}
	}
	if err := netbed.Enter(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.folder, "bench-send")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if o.kills > 0 {
		return kill(ctx, o, dir)
	}
	return measure(ctx, o, dir)
}

// bed is a lab with a rendezvous server.
type bed struct {
	*netbed.Lab
	url string
	dir string
}

func start(ctx context.Context, t natlab.Topology, dir string) (*bed, error) {
	lab, err := netbed.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	key, err := peer.GenerateKey()
	if err != nil {
		return nil, err
	}
	h := lab.Host("server")
	s, err := rendezvous.NewServer(ctx, rendezvous.ServerConfig{
		Key: key, Network: h, Listen: []netip.AddrPort{netip.AddrPortFrom(h.Addr(), rendezvous.DefaultPort)},
	})
	if err != nil {
		return nil, err
	}
	go func() { _ = s.Serve(ctx) }()
	return &bed{lab, s.URL(h.Addr().String()).String(), dir}, nil
}

// command is a program on a host of the lab, with nothing of ours in its environment.
func (b *bed) command(ctx context.Context, host, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, args...)
	home := filepath.Join(b.dir, "home-"+host)
	_ = os.MkdirAll(home, 0o700)
	c.Dir = home
	c.Env = []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home, "PATH=" + os.Getenv("PATH"), "BODKIN_SERVER=" + b.url}
	return c
}

// id is that of the node of a host, whose key is made for it.
func (b *bed) id(host string) (string, error) {
	key, err := peer.LoadOrCreateKey(filepath.Join(b.dir, "home-"+host, ".config", "bodkin", "node.key"))
	return key.ID().String(), err
}

// topology is that of bench/throughput, with one more machine outside.
func topology() natlab.Topology {
	return natlab.Topology{
		Boxes: []natlab.Box{
			{Name: "net", LAN: netip.MustParsePrefix("100.64.0.0/16")},
			{Name: "home-a", Behind: "net", LAN: netip.MustParsePrefix("192.168.1.0/24")},
			{Name: "home-b", Behind: "net", LAN: netip.MustParsePrefix("192.168.2.0/24")},
		},
		Hosts: []natlab.Host{
			{Name: "server", Behind: "net"},
			{Name: "outside", Behind: "net"},
			{Name: "a", Behind: "home-a"},
			{Name: "b", Behind: "home-b"},
		},
	}
}

// result is what the rounds of one contender showed.
type result struct {
	Kind  string    `json:"kind"`
	Rate  []float64 `json:"megabytes_per_s"`
	CPU   []float64 `json:"cpu_s_per_gb"`
	Ratio []float64 `json:"ratio_to_scp,omitempty"`
}

func measure(ctx context.Context, o options, dir string) error {
	b, err := start(ctx, topology(), dir)
	if err != nil {
		return err
	}
	defer b.Close()
	file := filepath.Join(dir, "file")
	if err := fill(file, int64(o.megabytes)*1e6); err != nil {
		return err
	}
	want, err := sum(file)
	if err != nil {
		return err
	}
	contenders := []contender{&scp{}, &bodkin{program: o.bodkin}}
	all := make([]result, len(contenders))
	for i, c := range contenders {
		if err := c.prepare(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		all[i].Kind = c.name()
	}
	for range o.rounds {
		for i, c := range contenders {
			to := filepath.Join(dir, "received")
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			begin := time.Now()
			cpu, err := c.send(ctx, b, file, to)
			took := time.Since(begin)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name(), err)
			}
			if got, err := sum(filepath.Join(to, "file")); err != nil || got != want {
				return errors.Join(fmt.Errorf("%s: another file arrived", c.name()), err)
			}
			all[i].Rate = append(all[i].Rate, float64(o.megabytes)/took.Seconds())
			all[i].CPU = append(all[i].CPU, cpu.Seconds()/float64(o.megabytes)*1e3)
			if err := os.RemoveAll(to); err != nil {
				return err
			}
		}
		n := len(all[0].Rate) - 1
		for i := range all {
			all[i].Ratio = append(all[i].Ratio, all[i].Rate[n]/all[0].Rate[n])
		}
	}
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\tMB/s\tratio to scp\tCPU s/GB")
	for _, r := range all {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Kind, spread(r.Rate, "%.0f"), spread(r.Ratio, "%.2f"), spread(r.CPU, "%.2f"))
	}
	return w.Flush()
}

// spread is the median, and the extremes.
func spread(x []float64, format string) string {
	x = slices.Sorted(slices.Values(x))
	return fmt.Sprintf(strings.ReplaceAll("F (F-F)", "F", format), x[len(x)/2], x[0], x[len(x)-1])
}

// fill writes a file that nothing can pack.
func fill(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	r := rand.NewChaCha8([32]byte{1, byte(size)})
	_, err = io.Copy(f, io.LimitReader(r, size))
	return errors.Join(err, f.Close())
}

func sum(name string) (out [32]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return out, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [32]byte(h.Sum(nil)), err
}
