package labrun

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bodkin"
	"bodkin/natlab/netbed"
	"bodkin/peer"
)

// process is one of our own programs in the lab.
type process struct {
	name   string
	cmd    *exec.Cmd
	stderr strings.Builder
	events []event
	mu     sync.Mutex
	done   chan struct{}
	err    error
	cancel context.CancelFunc
}

// event is a line of --events.
type event struct {
	bodkin.Event
	Status *bodkin.Status `json:"status"`
}

// patience is how long a step of a run may take.
const patience = 2 * time.Minute

// program starts this program on a host with these arguments. Events are shown as
// they come.
func (r *run) program(ctx context.Context, host *netbed.Host, name string, in io.Reader, out io.Writer, args ...string) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{name: name, done: make(chan struct{}), cancel: cancel}
	eventsR, eventsW, err := os.Pipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if name != "serve" {
		args = append(args, "--events", "/dev/fd/3")
		if len(r.Transports) > 0 {
			args = append(args, "--transports", strings.Join(r.Transports, ","))
		}
	}
	if r.Verbose {
		args = append(args, "--verbose")
	}
	p.cmd = exec.CommandContext(ctx, r.self, args...)
	p.cmd.Env = []string{"HOME=" + r.dir, "XDG_RUNTIME_DIR=" + r.dir, "PATH=" + os.Getenv("PATH")}
	p.cmd.Stdin, p.cmd.Stdout = in, out
	p.cmd.Stderr = &p.stderr
	if r.Verbose {
		p.cmd.Stderr = io.MultiWriter(&p.stderr, r.Log)
	}
	p.cmd.ExtraFiles = []*os.File{eventsW}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 5 * time.Second
	err = host.Start(p.cmd)
	_ = eventsW.Close()
	if err != nil {
		cancel()
		_ = eventsR.Close()
		return nil, fmt.Errorf("lab: start %s: %w", name, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer func() { _ = eventsR.Close() }()
		p.read(eventsR, r.account)
	}()
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
		<-read
	}()
	return p, nil
}

// read takes in the events of a program.
func (p *process) read(events io.Reader, a *account) {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		p.mu.Lock()
		p.events = append(p.events, e)
		p.mu.Unlock()
		a.event(p.name, e)
	}
}

// first is the first event that the test likes.
func (p *process) first(like func(event) bool) (event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if like(e) {
			return e, true
		}
	}
	return event{}, false
}

func kind(k bodkin.EventKind) func(event) bool { return func(e event) bool { return e.Kind == k } }

func direct(e event) bool { return e.Kind == bodkin.EventSwitched && e.Route.Direct() }

// wait waits for the program's end.
func (p *process) wait() error {
	select {
	case <-p.done:
	case <-time.After(patience):
		p.stop()
		return fmt.Errorf("%s did not end", p.name)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, strings.TrimSpace(p.stderr.String()))
	}
	return nil
}

func (p *process) stop() {
	p.cancel()
	<-p.done
}

func (r *run) serve(ctx context.Context) (*process, error) {
	host := r.lab.Host("server")
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	at := host.Addr().String()
	p, err := r.program(ctx, host, "serve", nil, in, "serve", "--json", "--listen", at+":3478", "--listen", at+":3479", "--listen-tcp", at+":3478")
	_ = in.Close()
	if err != nil {
		return nil, err
	}
	var started struct {
		URLs []string `json:"urls"`
	}
	if err := json.NewDecoder(out).Decode(&started); err != nil || len(started.URLs) == 0 {
		p.stop()
		return nil, errors.Join(fmt.Errorf("lab: the server did not start: %s", p.stderr.String()), err)
	}
	r.url = started.URLs[0]
	return p, nil
}

func (r *run) node(ctx context.Context, host, command string, in io.Reader, out io.Writer, args ...string) (*process, error) {
	all := append([]string{command, "--server", r.url, "--key", filepath.Join(r.dir, host+".key")}, args...)
	return r.program(ctx, r.lab.Host(host), command, in, out, all...)
}

// listen starts the listener in home B and waits until it is registered.
func (r *run) listen(ctx context.Context, out io.Writer) (*process, error) {
	key, err := peer.LoadOrCreateKey(filepath.Join(r.dir, "b.key"))
	if err != nil {
		return nil, err
	}
	r.idB = key.ID()
	p, err := r.node(ctx, "b", "listen", nil, out)
	if err != nil {
		return nil, err
	}
	if err := r.account.await(p, "listening", kind("listening")); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (r *run) dial(ctx context.Context, in io.Reader) (*process, error) {
	return r.node(ctx, "a", "dial", in, io.Discard, r.idB.String())
}
