package pipe

import (
	"io"
	"sync"
)

// Turns lets several connections read one input, one after another: what is read
// when a connection has ended is the next one's, and nothing is lost.
type Turns struct {
	in io.Reader

	mu      sync.Mutex
	changed *sync.Cond
	started bool
	rest    []byte
	err     error // of in, once rest is used up
	turn    *Turn
}

// NewTurns shares in, which is first read at the first turn.
func NewTurns(in io.Reader) *Turns {
	t := &Turns{in: in}
	t.changed = sync.NewCond(&t.mu)
	return t
}

// Turn is one connection's time with the input. After its end it has no more.
type Turn struct{ of *Turns }

// Take begins a turn and ends the one before.
func (t *Turns) Take() *Turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.started {
		t.started = true
		go t.pump()
	}
	t.turn = &Turn{t}
	t.changed.Broadcast()
	return t.turn
}

// Read implements [io.Reader].
func (u *Turn) Read(b []byte) (int, error) {
	t := u.of
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		switch {
		case t.turn != u:
			return 0, io.EOF
		case len(t.rest) > 0:
			n := copy(b, t.rest)
			t.rest = t.rest[n:]
			t.changed.Broadcast()
			return n, nil
		case t.err != nil:
			return 0, t.err
		}
		t.changed.Wait()
	}
}

// Close ends the turn.
func (u *Turn) Close() error {
	t := u.of
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn == u {
		t.turn = nil
		t.changed.Broadcast()
	}
	return nil
}

// pump reads one piece ahead, until the input ends.
func (t *Turns) pump() {
	buf := make([]byte, 32<<10)
	for {
		n, err := t.in.Read(buf)
		t.mu.Lock()
		t.rest, t.err = buf[:n], err
		t.changed.Broadcast()
		for len(t.rest) > 0 {
			t.changed.Wait()
		}
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}
