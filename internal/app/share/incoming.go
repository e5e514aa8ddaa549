package share

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// target is where a transfer goes. Its methods but for begin are called by several
// goroutines at once, though never for one piece twice at a time.
type target interface {
	// begin is told what comes. It says which entries need not, and what there is of
	// others: what the pieces hash to, in a row from the first one.
	begin(m *manifest, o offer) (skip []bool, has map[int][]hash, err error)
	// write takes a piece whose hash is right.
	write(i int, offset int64, b []byte) error
	// finish is told that a file is whole, as long as size.
	finish(i int, size int64) error
	// leave is told that a file will not come.
	leave(i int)
	// end is told that everything has come, or that what is lost is all that has not.
	end(lost bool) error
	// inOrder reports whether pieces must come in order.
	inOrder() bool
}

// incoming is one transfer at the side that receives.
type incoming struct {
	link *link
	gate func(context.Context) error // waits until data may come
	did  *Progress
	// accept asks whether it is wanted, and says where it goes.
	accept func(context.Context, offer, *manifest) (target, error)
	target target

	offer   offer
	entries []Entry
	skip    []bool

	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	files map[int]*inFile // of which a part has come
	has   map[int][]hash
	whole map[int]bool // what is whole, lost or skipped
	lost  []string
}

// inFile is a file of several pieces of which some have come.
type inFile struct {
	hashes []hash
	got    []bool // in this transfer
	known  int    // pieces whose hash is known
	came   int    // pieces in this transfer
	bytes  int64  // of those
	end    *frame
	merger merger // of a stream, whose pieces come in order
	first  hash   // of its first piece, if that is all
	length int64
}

// run receives everything.
func (i *incoming) run(ctx context.Context) error {
	i.ctx, i.cancel = context.WithCancelCause(ctx)
	defer i.cancel(nil)
	stop := context.AfterFunc(i.link.ctx, func() { i.cancel(context.Cause(i.link.ctx)) })
	defer stop()
	i.files, i.whole = make(map[int]*inFile), make(map[int]bool)
	return i.link.why(i.receive())
}

func (i *incoming) receive() error {
	m, err := i.announced()
	if err != nil {
		return err
	}
	if i.target, err = i.accept(i.ctx, i.offer, m); err != nil {
		return err
	}
	if i.skip, i.has, err = i.target.begin(m, i.offer); err != nil {
		return err
	}
	i.did.begin(i.offer.bytes)
	if err := i.gate(i.ctx); err != nil {
		return err
	}
	count, err := i.wish()
	if err != nil {
		return err
	}
	streams, err := i.link.open(i.ctx, count)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	go i.report(stop)
	listened := make(chan error, 1)
	go func() { listened <- i.listen() }()
	if err := i.readAll(streams); err != nil {
		return err
	}
	if err := <-listened; err != nil {
		return err
	}
	if err := i.complete(); err != nil {
		return err
	}
	if err := i.target.end(len(i.lost) > 0); err != nil {
		return err
	}
	_ = i.got()
	_ = i.link.send(kindDone, nil) // everything is here, whether they hear of it or not
	if len(i.lost) > 0 {
		slices.Sort(i.lost)
		return &stopError{failOther, &MissingError{i.lost}}
	}
	return nil
}

// MissingError says that some of what was sent could not be read there.
type MissingError struct{ Files []string }

// Error implements error.
func (e *MissingError) Error() string {
	text := e.Files[0]
	if n := len(e.Files) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return "not received: " + text
}

// announced reads what will come.
func (i *incoming) announced() (*manifest, error) {
	m, err := i.link.next()
	if err == nil && m.kind != kindOffer {
		err = errMessage
	}
	if err != nil {
		return nil, err
	}
	if i.offer, err = parseOffer(m.body); err != nil {
		return nil, err
	}
	var all manifest
	for len(all.entries) < i.offer.entries {
		if m, err = i.link.next(); err == nil && m.kind != kindEntries {
			err = errMessage
		}
		if err != nil {
			return nil, err
		}
		some, err := parseEntries(m.body)
		if err == nil && len(some) == 0 {
			err = errEntries
		}
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			if err := all.add(e); err != nil {
				return nil, &stopError{failRefused, err}
			}
		}
	}
	if err := all.matches(i.offer); err != nil {
		return nil, err
	}
	i.entries = all.entries
	return &all, nil
}

// wish says what is there already, and how many streams shall carry the rest.
func (i *incoming) wish() (streams int, err error) {
	var body []byte
	for first := 0; first < len(i.skip); {
		last := first
		for last < len(i.skip) && i.skip[last] {
			last++
		}
		if last == first {
			first++
			continue
		}
		body = span{first, last - first}.append(body)
		first = last
		if len(body) > maxBody/2 {
			if err := i.link.send(kindSkip, body); err != nil {
				return 0, err
			}
			body = body[:0]
		}
	}
	if err := i.link.send(kindSkip, body); err != nil {
		return 0, err
	}
	for n, e := range i.entries {
		if e.Kind != KindFile || i.skip[n] {
			i.whole[n] = true
			i.did.keep(e.Size)
		}
	}
	for n, hashes := range i.has {
		for from := 0; from < len(hashes); from += haveAtOnce {
			h := have{n, from, hashes[from:min(from+haveAtOnce, len(hashes))]}
			if err := i.link.send(kindHave, h.append(nil)); err != nil {
				return 0, err
			}
		}
	}
	streams = dataStreams
	if i.target.inOrder() || i.offer.form != formFiles {
		streams = 1
	}
	return streams, i.link.send(kindAccept, binary.AppendUvarint(nil, uint64(streams)))
}

// reportEvery is how often the other side hears how much has come.
const reportEvery = 200 * time.Millisecond

func (i *incoming) report(stop chan struct{}) {
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_ = i.got()
		case <-stop:
			return
		}
	}
}

func (i *incoming) got() error {
	return i.link.send(kindGot, binary.AppendUvarint(nil, uint64(i.did.in.Load())))
}

// listen reads what the other side says while data comes, to its last word.
func (i *incoming) listen() error {
	for {
		m, err := i.link.next()
		if err != nil {
			i.cancel(err)
			return err
		}
		switch m.kind {
		case kindLost:
			err = i.loses(m.body)
		case kindSent:
			return nil
		default:
			err = errMessage
		}
		if err != nil {
			i.cancel(err)
			return err
		}
	}
}

func (i *incoming) loses(body []byte) error {
	l, err := parseLost(body)
	if err != nil {
		return err
	}
	if l.index >= len(i.entries) {
		return errMessage
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.whole[l.index] {
		return nil
	}
	i.whole[l.index] = true
	delete(i.files, l.index)
	i.target.leave(l.index)
	i.lost = append(i.lost, Printable(i.entries[l.index].Path)+": "+Printable(l.reason))
	return nil
}

// complete says what is missing when all streams have ended.
func (i *incoming) complete() error {
	for n := range i.entries {
		if !i.whole[n] {
			return fmt.Errorf("%s did not come whole", Printable(i.entries[n].Path))
		}
	}
	return nil
}

// readAll reads all streams to their ends.
func (i *incoming) readAll(streams []Conn) error {
	stop := context.AfterFunc(i.ctx, func() { abortAll(streams) })
	defer stop()
	errs := make([]error, len(streams))
	var wg sync.WaitGroup
	for n, c := range streams {
		wg.Go(func() {
			err := i.readStream(c)
			if err != nil {
				i.cancel(err)
			}
			_ = c.Close()
			errs[n] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (i *incoming) readStream(c Conn) error {
	r := bufio.NewReaderSize(c, minPiece/4)
	buf := make([]byte, minPiece)
	for {
		f, err := readFrame(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.index >= len(i.entries) {
			return errMessage
		}
		if f.kind == frameEnd {
			err = i.ends(f)
		} else {
			if int64(len(buf)) < f.length {
				buf = make([]byte, f.length)
			}
			b := buf[:f.length]
			if err = i.expects(f); err == nil {
				if _, err = io.ReadFull(r, b); err == nil {
					err = i.piece(f, b)
				}
				err = cut(err)
			}
		}
		if err != nil {
			return err
		}
	}
}

var errPiece = &stopError{failOther, errors.New("a piece is not what it should be: the disk or the memory of one side may be broken")}

// expects checks that a piece is one that may come now.
func (i *incoming) expects(f frame) error {
	e := i.entries[f.index]
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.whole[f.index] {
		if e.Kind == KindFile && len(i.lost) > 0 && !i.skip[f.index] {
			return nil // it was under way when its file was given up
		}
		return errMessage
	}
	if i.offer.form == formStream {
		in := i.partial(f.index)
		if int64(f.n)*minPiece != in.length || f.length > minPiece {
			return errMessage
		}
		return nil
	}
	if n := pieces(e.Size); f.n >= n || f.length != int64(pieceLen(e.Size, f.n)) {
		return errMessage
	} else if n == 1 {
		return nil
	}
	in := i.partial(f.index)
	if in.got[f.n] {
		return errMessage
	}
	in.got[f.n] = true
	return nil
}

// partial is what is known of a file of several pieces. Under the lock.
func (i *incoming) partial(index int) *inFile {
	in := i.files[index]
	if in == nil {
		n := pieces(i.entries[index].Size)
		in = &inFile{hashes: make([]hash, n), got: make([]bool, n)}
		in.known = copy(in.hashes, i.has[index])
		i.files[index] = in
	}
	return in
}

// piece takes a piece in.
func (i *incoming) piece(f frame, b []byte) error {
	e, stream := i.entries[f.index], i.offer.form == formStream
	var h hash
	if stream {
		h = chaining(b, int64(f.n)*minPiece)
	} else {
		h = pieceHash(b, e.Size, f.n)
	}
	if h != f.hash {
		return errPiece
	}
	offset := int64(f.n) * pieceSize(e.Size)
	if err := i.target.write(f.index, offset, b); err != nil {
		return err
	}
	i.did.receive(f.length)
	i.mu.Lock()
	defer i.mu.Unlock()
	in := i.files[f.index]
	switch {
	case stream:
		if in.merger.add(h); f.n == 0 {
			in.first = whole(b)
		}
		in.length += f.length
		return nil
	case i.whole[f.index]:
		return nil
	case in == nil:
		return i.finish(f.index, e.Size)
	}
	if f.n >= len(i.has[f.index]) {
		in.known++
	}
	in.came, in.bytes = in.came+1, in.bytes+f.length
	in.hashes[f.n] = h
	return i.check(f.index, in)
}

// ends takes in the hash of a file.
func (i *incoming) ends(f frame) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	e := i.entries[f.index]
	if i.whole[f.index] {
		if len(i.lost) > 0 {
			return nil
		}
		return errMessage
	}
	if i.offer.form == formStream {
		in := i.partial(f.index)
		h := in.first
		if in.merger.n > 1 {
			h = in.merger.root()
		}
		if in.merger.n == 0 || in.merger.n != uint64(f.n) || in.length != f.length || h != f.hash {
			return errPiece
		}
		return i.finish(f.index, f.length)
	}
	if f.length != e.Size {
		return errMessage
	}
	in := i.partial(f.index)
	in.end = &f
	return i.check(f.index, in)
}

// check finishes a file if all of it is there. Under the lock.
func (i *incoming) check(index int, in *inFile) error {
	// The end may overtake pieces that other streams carry.
	if in.end == nil || in.came < in.end.n {
		return nil
	}
	if in.known < len(in.hashes) || merged(in.hashes) != in.end.hash {
		return errPiece
	}
	size := i.entries[index].Size
	i.did.keep(size - in.bytes)
	return i.finish(index, size)
}

// finish is called under the lock.
func (i *incoming) finish(index int, size int64) error {
	delete(i.files, index)
	i.whole[index] = true
	i.did.finish()
	return i.target.finish(index, size)
}
