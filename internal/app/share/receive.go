package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"bodkin/peer"
)

// Receiver takes what one sender has.
type Receiver struct {
	Options
	Node Node
	// Place is where it goes: a folder, or the name for a single file or folder; empty is
	// the current folder.
	Place string
	// Out takes a single file instead, as it comes.
	Out io.Writer
	// Rule says what happens where something is already, and Ask is asked with RuleAsk.
	Rule Rule
	Ask  func(ctx context.Context, name string, folder bool) (Rule, error)
	// Confirm is asked whether it is wanted; nil is yes.
	Confirm func(ctx context.Context, in Incoming) (bool, error)
	// Space is what is free in a folder; nil asks the system.
	Space func(dir string) (uint64, error)

	mu      sync.Mutex
	agreed  map[string]bool // sender and label
	answers map[string]Rule
}

// Incoming is what somebody would send.
type Incoming struct {
	Peer   peer.ID
	Text   bool
	Stream bool
	Name   string // of the first file or folder
	Roots  int    // how many files and folders were named
	Folder bool   // the first is one
	Files  int
	Bytes  int64
}

// Result is what was received.
type Result struct {
	Peer   peer.ID
	Text   []byte   // if it was a text, and was not to be put anywhere
	IsText bool     // it was one
	Dir    string   // the folder where the rest is
	Placed []string // the names in there
	Notes  []string // what is not as it was
	Counts Counts
}

// From receives from a peer that listens: it dials again when the peer went away.
func (r *Receiver) From(ctx context.Context, id peer.ID) (out Result, err error) {
	err = r.persist(ctx, id, func(ctx context.Context) error {
		l, err := dial(ctx, r.Node, id, roleReceive)
		if err != nil {
			return err
		}
		out, err = r.run(ctx, l)
		return err
	})
	return out, err
}

// Serve receives from the first one who comes, is admitted and has something that is wanted.
func (r *Receiver) Serve(ctx context.Context, l Listener, admit func(peer.ID) bool) (out Result, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := newHub(ctx, roleReceive, admit)
	go func() { cancel(h.run(l)) }()
	type end struct {
		out Result
		err error
	}
	var running *link
	var next *link // that waits until the one before has let go
	ends := make(chan end)
	begin := func(l *link) {
		running = l
		go func() {
			out, err := r.run(ctx, l)
			ends <- end{out, err}
		}()
	}
	for {
		select {
		case l := <-h.found:
			switch {
			case running == nil:
				begin(l)
			case running.peer == l.peer:
				running.cancel(errEnded) // it has come back
				if next != nil {
					next.end(errEnded)
				}
				next = l
			default:
				go l.end(&stopError{failBusy, errors.New("somebody else is sending; try again later")})
			}
		case e := <-ends:
			id := running.peer
			if running = nil; next != nil {
				begin(next)
				next = nil
				continue
			}
			var no *stopError
			switch {
			case e.err == nil:
				return e.out, nil
			case errors.As(e.err, &no) && no.code == failDeclined:
				r.tell(Notice{Kind: NoticeFailed, Peer: id, Error: e.err})
			case passing(e.err):
				r.tell(Notice{Kind: NoticeWaiting, Peer: id, Error: e.err})
			default:
				return e.out, e.err
			}
		case <-ctx.Done():
			if running == nil {
				return out, context.Cause(ctx)
			}
			e := <-ends
			return e.out, stopped(ctx, e.err, nil)
		}
	}
}

// run is one transfer, to its end.
func (r *Receiver) run(ctx context.Context, l *link) (Result, error) {
	out := Result{Peer: l.peer}
	var text bytes.Buffer
	var files *staging
	i := &incoming{link: l, gate: r.gate(r.Node, l.peer), did: &Progress{}}
	i.accept = func(ctx context.Context, o offer, m *manifest) (target, error) {
		if err := r.confirm(ctx, l.peer, o, m); err != nil {
			return nil, err
		}
		defer r.tell(Notice{Kind: NoticeBegun, Peer: l.peer, Progress: i.did})
		out.IsText = o.form == formText
		switch {
		case r.Out != nil:
			return &writer{r.Out}, nil
		case out.IsText && r.Place == "":
			return &writer{&text}, nil
		}
		s, err := r.stage(ctx, o, m)
		files = s
		return s, err
	}
	err := i.run(ctx)
	if files != nil {
		out.Dir, out.Placed, out.Notes = files.opened.Name(), files.placed, files.notes
		files.close()
		_ = files.opened.Close()
	}
	l.end(err)
	out.Text, out.Counts = text.Bytes(), i.did.Counts()
	if err == nil {
		r.tell(Notice{Kind: NoticeDone, Peer: l.peer, Progress: i.did})
		return out, nil
	}
	if files != nil && out.Placed == nil {
		err = &keptError{err, files.opened.Name(), files.name}
	}
	if out.Counts.Got > 0 {
		if err = (&brokenError{err}); r.Out != nil && passing(err) {
			err = &stopError{failOther, fmt.Errorf("%w; what was written is not whole", err)}
		}
	}
	return out, err
}

// keptError is an error that left an unfinished transfer behind.
type keptError struct {
	err       error
	dir, name string
}

// Error implements error.
func (e *keptError) Error() string { return e.err.Error() }

// Unwrap is the error alone.
func (e *keptError) Unwrap() error { return e.err }

// by is another error that leaves the same behind.
func (e *keptError) by(err error) error {
	if e == nil {
		return err
	}
	return &keptError{err, e.dir, e.name}
}

// Kept says where what has come is kept, if an error has left something.
func Kept(err error) (folder string, ok bool) {
	var e *keptError
	if !errors.As(err, &e) {
		return "", false
	}
	return e.dir + string(os.PathSeparator) + e.name, true
}

// confirm asks once for each thing that is sent.
func (r *Receiver) confirm(ctx context.Context, id peer.ID, o offer, m *manifest) error {
	what := id.String() + string(o.label[:])
	r.mu.Lock()
	agreed := r.agreed[what]
	r.mu.Unlock()
	if agreed || r.Confirm == nil {
		return nil
	}
	yes, err := r.Confirm(ctx, Incoming{
		Peer: id, Text: o.form == formText, Stream: o.form == formStream, Name: o.name, Roots: o.roots,
		Folder: m.entries[0].Kind == KindFolder, Files: o.files, Bytes: o.bytes,
	})
	if err != nil {
		return asked(ctx, err)
	}
	if !yes {
		return &stopError{failDeclined, errors.New("you did not want it")}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.agreed == nil {
		r.agreed = make(map[string]bool)
	}
	r.agreed[what] = true
	return nil
}

// asked is why a question has no answer: ours to say, if it was not the transfer that ended.
func asked(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return &stopError{failOther, err}
}

// stage opens the folder that will hold what comes.
func (r *Receiver) stage(ctx context.Context, o offer, m *manifest) (*staging, error) {
	dir, alias, err := where(r.Place, o.roots)
	if err != nil {
		return nil, diskError(err)
	}
	in, err := os.OpenRoot(dir)
	if err != nil {
		return nil, diskError(err)
	}
	name := o
	name.name = localNames(m.entries[:1], system)[0]
	if alias != "" {
		name.name = alias
	}
	s, err := openStaging(in, name)
	if err != nil {
		_ = in.Close()
		return nil, diskError(err)
	}
	s.placing = &placing{rule: r.Rule, alias: alias, space: r.Space, ask: func(name string, folder bool) (Rule, error) {
		return r.answer(ctx, name, folder)
	}}
	if s.space == nil {
		s.space = freeSpace
	}
	return s, nil
}

// answer asks once about each name.
func (r *Receiver) answer(ctx context.Context, name string, folder bool) (Rule, error) {
	r.mu.Lock()
	rule, ok := r.answers[name]
	r.mu.Unlock()
	if ok {
		return rule, nil
	}
	rule, err := r.Ask(ctx, name, folder)
	if err != nil {
		return rule, asked(ctx, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers == nil {
		r.answers = make(map[string]Rule)
	}
	r.answers[name] = rule
	return rule, nil
}
