package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// program is a process beside the script.
type program struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	pipe   *os.File // of its standard output, our end
	out    watched
	err    watched
	done   chan struct{}
	killed bool
}

// watched is what a process writes, for others to wait for.
type watched struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed at every change
	ended   bool
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake()
	return w.text.Write(b)
}

func (w *watched) wake() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.wake()
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// find waits for a match.
func (w *watched) find(re *regexp.Regexp) ([]string, error) {
	timeUp := time.After(patience)
	for {
		w.mu.Lock()
		match := re.FindStringSubmatch(w.text.String())
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed, ended := w.changed, w.ended
		w.mu.Unlock()
		switch {
		case match != nil:
			return match, nil
		case ended:
			return nil, errors.New("it ended")
		}
		select {
		case <-changed:
		case <-timeUp:
			return nil, errors.New("it did not come")
		}
	}
}

func (p *program) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits for the end, and kills what does not end.
func (p *program) wait() error {
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("it did not end; it wrote %q and %q", p.out.String(), p.err.String())
	}
}

func (p *program) close() {
	_ = p.in.Close()
	_ = p.pipe.Close()
}

func (s *script) start(ts *testscript.TestScript, name string, args []string) *program {
	p := &program{done: make(chan struct{})}
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	p.cmd = exec.Command(path, args[1:]...) //nolint:noctx // ended by the script
	p.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{
		"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "GOCOVERDIR", "SystemRoot", "WORK", "SSHD", "NOTIFY_SOCKET", "WATCHDOG_USEC",
	} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	for _, name := range bodkinVariables {
		if v := ts.Getenv(name); v != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	p.in, err = p.cmd.StdinPipe()
	ts.Check(err)
	var out *os.File
	p.pipe, out, err = os.Pipe()
	ts.Check(err)
	p.cmd.Stdout, p.cmd.Stderr = out, &p.err
	ts.Check(p.cmd.Start())
	_ = out.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&p.out, p.pipe)
		p.out.end()
	}()
	go func() {
		_ = p.cmd.Wait()
		p.err.end()
		<-read
		close(p.done)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.programs[name]; old != nil && !old.over() {
		ts.Fatalf("%s is running already", name)
	}
	s.programs[name] = p
	return p
}

// bodkinVariables are those that scripts use.
var bodkinVariables = []string{"BODKIN_SERVER", "BODKIN_KEY", "BODKIN_ALLOW", "BODKIN_CONFIG"}

func (s *script) program(ts *testscript.TestScript, name string) *program {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.programs[name]
	if p == nil {
		ts.Fatalf("no program %q was started", name)
	}
	return p
}
