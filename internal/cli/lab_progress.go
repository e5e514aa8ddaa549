package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress tells on standard error how far something is: on a terminal in one line
// that changes, elsewhere with a line now and then. It is safe for concurrent use.
type progress struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	what     string
	begin    time.Time
	said     time.Time
	shown    bool
}

func (a *app) newProgress(what string) *progress {
	p := &progress{out: a.err, what: what, begin: time.Now()}
	p.said = p.begin
	if f, ok := a.err.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			p.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

// How often the line changes, or a new one comes.
const (
	progressOnTerminal = 200 * time.Millisecond
	progressElsewhere  = 15 * time.Second
)

// done says that so much is done.
func (p *progress) done(n, of int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	every := progressElsewhere
	if p.terminal {
		every = progressOnTerminal
	}
	if now.Sub(p.said) < every {
		return
	}
	p.said = now
	took := now.Sub(p.begin)
	text := fmt.Sprintf("%d of %d %s, about %s to go", n, of, p.what, span(took*time.Duration(of-n)/time.Duration(max(n, 1))))
	if p.terminal {
		p.shown = true
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s", text)
		return
	}
	_, _ = fmt.Fprintln(p.out, text)
}

// end takes the line away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		p.shown = false
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
}
