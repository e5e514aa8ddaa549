package labrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// Programs is a run of any programs on the hosts of a lab.
type Programs struct {
	Topology natlab.Topology // with the hosts a, b and server
	Bed      netbed.Bed
	Commands []Command // started in this order, all at once
	Pcap     string    // folder for what each link carried; none if empty
	// Started, if not nil, is told when the lab stands, before any command.
	Started func(*netbed.Lab)
	// Output takes each line of what command n (from 0) prints, and Ended its
	// end. Calls do not overlap.
	Output func(n int, stream Stream, line string)
	Ended  func(Ended)
}

// Command is what a shell on a host is to do.
type Command struct {
	Host, Line string
}

// Stream is one of a command's outputs.
type Stream string

// Streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Ended is how a command ended.
type Ended struct {
	Command int
	Code    int  // its exit code; 128 and the signal's number after a signal
	Stopped bool // it was told to
}

// farewell is how long commands have to end once they are told to.
const farewell = time.Second

// Run runs the commands until all of those on a and b have ended, and then stops
// the others: a server does not end by itself. The code is that of the first
// command that failed by itself, else 0.
func (p Programs) Run(ctx context.Context) (code int, err error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	lab, err := p.Bed.Start(ctx, p.Topology)
	if err != nil {
		return 0, err
	}
	defer lab.Close()
	if p.Pcap != "" {
		stop, err := lab.Pcap(p.Pcap)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if p.Started != nil {
		p.Started(lab)
	}
	r := programs{Programs: p, lab: lab, addresses: addresses(p.Topology), ended: make(chan Ended, len(p.Commands))}
	defer r.stop()
	for i := range p.Commands {
		if err := r.start(i); err != nil {
			return 0, err
		}
	}
	return r.wait(ctx)
}

func (p Programs) check() error {
	ends := false
	for _, c := range p.Commands {
		if !slices.ContainsFunc(p.Topology.Hosts, func(h natlab.Host) bool { return h.Name == c.Host }) {
			return fmt.Errorf("lab: there is no host %q", c.Host)
		}
		ends = ends || c.Host != "server"
	}
	if !ends {
		return errors.New("lab: nothing runs on a or b; a command there says when the run is over")
	}
	return nil
}

// programs is the state of a run.
type programs struct {
	Programs
	lab       *netbed.Lab
	addresses []string // as variables
	running   []*exec.Cmd
	mu        sync.Mutex // of what is told the caller, and of stopping
	stopping  bool
	ended     chan Ended
	wg        sync.WaitGroup
}

func (r *programs) start(n int) error {
	c := r.Commands[n]
	cmd := exec.Command("/bin/sh", "-c", c.Line) //nolint:noctx // ended with the run
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NATLAB_") }), r.addresses...)
	cmd.Env = append(cmd.Env, "NATLAB_HOST="+c.Host)
	out := &lines{say: func(line string) { r.output(n, Stdout, line) }}
	errs := &lines{say: func(line string) { r.output(n, Stderr, line) }}
	cmd.Stdout, cmd.Stderr = out, errs
	// What a command leaves behind may hold its outputs open.
	cmd.WaitDelay = farewell
	if err := r.lab.Host(c.Host).Start(cmd); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	r.running = append(r.running, cmd)
	r.wg.Go(func() {
		_ = cmd.Wait() // its state says all
		out.end()
		errs.end()
		r.mu.Lock()
		e := Ended{Command: n, Code: exitCode(cmd.ProcessState), Stopped: r.stopping}
		if r.Ended != nil {
			r.Ended(e)
		}
		r.mu.Unlock()
		r.ended <- e
	})
	return nil
}

func (r *programs) output(n int, s Stream, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Output != nil {
		r.Output(n, s, line)
	}
}

// exitCode is what a shell would say.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(interface {
		Signaled() bool
		Signal() syscall.Signal
	}); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// wait waits for the commands on a and b.
func (r *programs) wait(ctx context.Context) (code int, err error) {
	left := 0
	for _, c := range r.Commands {
		if c.Host != "server" {
			left++
		}
	}
	for left > 0 {
		select {
		case e := <-r.ended:
			if code == 0 {
				code = e.Code
			}
			if r.Commands[e.Command].Host != "server" {
				left--
			}
		case <-ctx.Done():
			return code, context.Cause(ctx)
		}
	}
	return code, nil
}

// stop ends what still runs, gently first.
func (r *programs) stop() {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	for _, cmd := range r.running {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	gone := make(chan struct{})
	go func() {
		r.wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(farewell):
		r.lab.Close() // which kills
		<-gone
	}
}

// addresses are variables that say where the hosts are: NATLAB_A is a's own address,
// NATLAB_A_OUTSIDE where others see it, and the same with 6 behind it for IPv6.
func addresses(t natlab.Topology) (out []string) {
	places := make(map[string]natlab.Place)
	for _, p := range t.Places() {
		places[p.Name] = p
	}
	for _, h := range t.Hosts {
		for family, suffix := range []string{"", "6"} {
			own := places[h.Name].Addr[family].Addr()
			if !own.IsValid() {
				continue
			}
			name := "NATLAB_" + strings.ToUpper(h.Name)
			outside := own
			if family == 0 {
				outside = Outside(t, h.Name)
			}
			out = append(out, name+suffix+"="+own.String(), name+"_OUTSIDE"+suffix+"="+outside.String())
		}
	}
	return out
}

// Outside is the IPv4 address from which the core sees a host: that of the
// outermost box that translates.
func Outside(t natlab.Topology, host string) netip.Addr {
	places, does := make(map[string]natlab.Place), make(map[string]natlab.NAT)
	for _, p := range t.Places() {
		places[p.Name] = p
	}
	for _, b := range t.Boxes {
		does[b.Name] = b.Does()
	}
	at := places[host].Addr[0].Addr()
	for box := places[host].Behind; box != ""; box = places[box].Behind {
		if does[box].Translates() {
			at = places[box].Addr[0].Addr()
		}
	}
	return at
}

// lines hands on what is written to it line by line.
type lines struct {
	say  func(string)
	rest []byte
}

// maxLine is where a line without an end is cut.
const maxLine = 64 << 10

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			break
		}
		l.say(string(append(l.rest, line...)))
		l.rest, b = nil, rest
	}
	if l.rest = append(l.rest, b...); len(l.rest) > maxLine {
		l.end()
	}
	return n, nil
}

// end hands on what is left.
func (l *lines) end() {
	if len(l.rest) > 0 {
		l.say(string(l.rest))
		l.rest = nil
	}
}
