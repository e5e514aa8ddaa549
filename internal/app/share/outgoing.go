package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// outgoing is one transfer at the side that sends.
type outgoing struct {
	src  *Source
	link *link
	gate func(context.Context) error // waits until data may leave
	pace pace
	did  *Progress
	// begun is told that the other side has accepted.
	begun func() error

	skip []bool         // entries that need not be sent
	have map[int][]hash // what the other side has of a file; a zero hash is nothing

	ctx    context.Context
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	at   int      // the next entry to send
	file *outFile // that is being sent piece by piece, if one is
	lost []string
}

// outFile is a file of several pieces, which several streams send.
type outFile struct {
	index  int
	next   int // the piece to send next
	hashes []hash

	open   func() (*os.File, error)
	mu     sync.Mutex
	left   int // pieces
	sent   int // pieces that were not there
	failed bool
}

// LostError says that some of what was to be sent is not at the other side, or not whole.
type LostError struct{ Files []string }

// Error implements error.
func (e *LostError) Error() string {
	text := e.Files[0]
	if n := len(e.Files) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return fmt.Sprintf("not sent: %s; the rest is kept at the other side: send it again to complete it", text)
}

// run sends everything that the other side does not have.
func (o *outgoing) run(ctx context.Context) error {
	o.ctx, o.cancel = context.WithCancelCause(ctx)
	defer o.cancel(nil)
	stop := context.AfterFunc(o.link.ctx, func() { o.cancel(context.Cause(o.link.ctx)) })
	defer stop()
	o.did.begin(o.src.offer.bytes)
	if err := o.send(); err != nil {
		return o.link.why(err)
	}
	if len(o.lost) > 0 {
		slices.Sort(o.lost)
		return &stopError{failOther, &LostError{o.lost}}
	}
	return nil
}

func (o *outgoing) send() error {
	if err := o.announce(); err != nil {
		return err
	}
	count, err := o.wishes()
	if err != nil {
		return err
	}
	if err := o.begun(); err != nil {
		return err
	}
	if err := o.gate(o.ctx); err != nil {
		return err
	}
	if o.src.stream != nil && count > 1 {
		return errMessage // it has one order
	}
	streams, err := o.link.open(o.ctx, count)
	if err != nil {
		return err
	}
	listened := make(chan error, 1)
	go func() { listened <- o.listen() }()
	if err := o.sendAll(streams); err != nil {
		return err
	}
	if err := o.link.send(kindSent, nil); err != nil {
		return err
	}
	return <-listened
}

// announce says what there is.
func (o *outgoing) announce() error {
	if err := o.link.send(kindOffer, o.src.offer.append(nil)); err != nil {
		return err
	}
	var body []byte
	for _, e := range o.src.entries {
		next := appendEntry(nil, e)
		if len(body)+len(next) > maxBody {
			if err := o.link.send(kindEntries, body); err != nil {
				return err
			}
			body = body[:0]
		}
		body = append(body, next...)
	}
	return o.link.send(kindEntries, body)
}

// wishes reads what the other side has, until it accepts.
func (o *outgoing) wishes() (streams int, err error) {
	o.skip, o.have = make([]bool, len(o.src.entries)), make(map[int][]hash)
	for {
		m, err := o.link.next()
		if err != nil {
			return 0, err
		}
		switch m.kind {
		case kindSkip:
			err = o.skips(m.body)
		case kindHave:
			err = o.has(m.body)
		case kindGot: // nothing yet
		case kindAccept:
			return parseAccept(m.body)
		default:
			err = errMessage
		}
		if err != nil {
			return 0, err
		}
	}
}

func (o *outgoing) skips(body []byte) error {
	spans, err := parseSkip(body)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if s.first+s.count > len(o.skip) {
			return errMessage
		}
		for i := s.first; i < s.first+s.count; i++ {
			if !o.skip[i] {
				o.skip[i] = true
				o.did.keep(o.src.entries[i].Size)
			}
		}
	}
	return nil
}

func (o *outgoing) has(body []byte) error {
	h, err := parseHave(body)
	if err != nil {
		return err
	}
	if h.index >= len(o.src.entries) || o.src.entries[h.index].Kind != KindFile || o.src.stream != nil {
		return errMessage
	}
	n := pieces(o.src.entries[h.index].Size)
	if h.first+len(h.hashes) > n {
		return errMessage
	}
	if o.have[h.index] == nil {
		o.have[h.index] = make([]hash, n)
	}
	copy(o.have[h.index][h.first:], h.hashes)
	return nil
}

// listen reads what the other side says while we send, to its last word.
func (o *outgoing) listen() error {
	for {
		m, err := o.link.next()
		if err != nil {
			o.cancel(err)
			return err
		}
		switch m.kind {
		case kindGot:
			var n int64
			if n, err = parseGot(m.body); err == nil {
				o.did.arrived(n)
			}
		case kindDone:
			return nil
		default:
			err = errMessage
		}
		if err != nil {
			o.cancel(err)
			return err
		}
	}
}

// sendAll sends by all streams, until there is nothing more.
func (o *outgoing) sendAll(streams []Conn) error {
	stop := context.AfterFunc(o.ctx, func() { abortAll(streams) })
	defer stop()
	errs := make([]error, len(streams))
	var wg sync.WaitGroup
	for i, c := range streams {
		wg.Go(func() {
			w := &worker{outgoing: o, w: bufio.NewWriterSize(c, minPiece/2)}
			if errs[i] = w.run(); errs[i] == nil {
				errs[i] = c.CloseWrite()
			}
			if errs[i] != nil {
				o.cancel(errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// loses notes that an entry cannot be sent as it was announced, and says so.
func (o *outgoing) loses(i int, err error) error {
	o.mu.Lock()
	o.lost = append(o.lost, fmt.Sprintf("%s: %v", Printable(o.src.entries[i].Path), err))
	o.mu.Unlock()
	return o.link.send(kindLost, lost{i, err.Error()}.append(nil))
}

// job is what a stream sends next: some pieces of a file, or several small ones.
type job struct {
	file     *outFile
	from, to int // pieces of it
	small    []int
}

const (
	// spanBytes is how much of a large file a stream takes on at once, and batchFiles
	// how many small ones.
	spanBytes  = 1 << 20
	batchFiles = 64
)

// next hands out work, in the order of the entries.
func (o *outgoing) next() (j job, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil && !o.begin(&j) {
		return j, len(j.small) > 0
	}
	f := o.file
	count := int(max(1, spanBytes/pieceSize(o.src.entries[f.index].Size)))
	j.file, j.from = f, f.next
	j.to = min(f.next+count, len(f.hashes))
	if f.next = j.to; f.next == len(f.hashes) {
		o.file = nil
	}
	return j, true
}

// begin goes on to the next large file, or fills a job with small ones.
func (o *outgoing) begin(j *job) (large bool) {
	var bytes int64
	for ; o.at < len(o.src.entries); o.at++ {
		e := o.src.entries[o.at]
		if e.Kind != KindFile || o.skip[o.at] {
			continue
		}
		if n := pieces(e.Size); n > 1 {
			if len(j.small) > 0 {
				return false
			}
			i := o.at
			o.file = &outFile{
				index: i, hashes: make([]hash, n), left: n,
				open: sync.OnceValues(func() (*os.File, error) { return o.src.open(i) }),
			}
			o.at++
			return true
		}
		if bytes += e.Size; len(j.small) > 0 && bytes > spanBytes {
			return false
		}
		if j.small = append(j.small, o.at); len(j.small) == batchFiles {
			o.at++
			return false
		}
	}
	return false
}

// worker sends by one stream.
type worker struct {
	*outgoing
	w    *bufio.Writer
	head []byte
	buf  []byte
}

func (w *worker) run() error {
	if w.src.stream != nil {
		return w.stream()
	}
	for {
		j, ok := w.next()
		if !ok {
			return nil
		}
		var err error
		if j.file != nil {
			err = w.span(j)
		} else {
			err = w.batch(j.small)
		}
		if err == nil {
			err = w.w.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// buffer is room for a piece.
func (w *worker) buffer(n int) []byte {
	if cap(w.buf) < n {
		w.buf = make([]byte, max(n, minPiece))
	}
	return w.buf[:n]
}

// piece writes a piece, unless the other side has it.
func (w *worker) piece(i, n int, h hash, b []byte) (written bool, err error) {
	if has := w.have[i]; n < len(has) && has[n] == h {
		w.did.keep(int64(len(b)))
		return false, nil
	}
	if err := w.gate(w.ctx); err != nil {
		return false, err
	}
	if err := w.pace.take(w.ctx, len(b)); err != nil {
		return false, err
	}
	w.head = frame{kind: framePiece, index: i, n: n, length: int64(len(b)), hash: h}.append(w.head[:0])
	if _, err := w.w.Write(w.head); err != nil {
		return false, err
	}
	if _, err := w.w.Write(b); err != nil {
		return false, err
	}
	w.did.sent(int64(len(b)))
	return true, nil
}

// last ends a file of which so many pieces were written.
func (w *worker) last(i, written int, size int64, h hash) error {
	w.head = frame{kind: frameEnd, index: i, n: written, length: size, hash: h}.append(w.head[:0])
	_, err := w.w.Write(w.head)
	return err
}

// batch sends files that are one piece each.
func (w *worker) batch(files []int) error {
	for _, i := range files {
		b, err := w.small(i)
		if err != nil {
			if err := w.loses(i, err); err != nil {
				return err
			}
			continue
		}
		h := whole(b)
		written, err := w.piece(i, 0, h, b)
		if err == nil && !written {
			err = w.last(i, 0, int64(len(b)), h) // a word that it is right
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// small reads a file of one piece.
func (w *worker) small(i int) ([]byte, error) {
	if w.src.local == nil {
		return w.src.text, nil
	}
	f, err := w.src.open(i)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b := w.buffer(int(w.src.entries[i].Size))
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, changed(err)
	}
	return b, w.src.unchanged(i, f)
}

// changed is what a file that is shorter than it was has done.
func changed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errChanged
	}
	return reason(err)
}

// span sends some pieces of a large file.
func (w *worker) span(j job) error {
	for n := j.from; n < j.to; n++ {
		j.file.mu.Lock()
		failed := j.file.failed
		j.file.mu.Unlock()
		var err error
		written := false
		if !failed {
			if written, err = w.one(j.file, n); err != nil && !isLocal(err) {
				return err
			}
		}
		if err := w.ended(j.file, written, err); err != nil {
			return err
		}
	}
	return nil
}

// localError is one of our file, not of the connection.
type localError struct{ error }

func isLocal(err error) bool {
	var l localError
	return errors.As(err, &l)
}

// one sends a piece of a large file.
func (w *worker) one(f *outFile, n int) (written bool, err error) {
	file, err := f.open()
	if err != nil {
		return false, localError{err}
	}
	size := w.src.entries[f.index].Size
	b := w.buffer(pieceLen(size, n))
	if got, err := file.ReadAt(b, int64(n)*pieceSize(size)); got < len(b) {
		return false, localError{changed(err)}
	}
	f.hashes[n] = pieceHash(b, size, n)
	return w.piece(f.index, n, f.hashes[n], b)
}

// ended counts a piece. The last one ends the file: with its hash, or with what is wrong
// with it.
func (w *worker) ended(f *outFile, written bool, err error) error {
	f.mu.Lock()
	if written {
		f.sent++
	}
	first := err != nil && !f.failed
	f.failed = f.failed || err != nil
	f.left--
	last, failed := f.left == 0, f.failed
	f.mu.Unlock()
	if first {
		if err := w.loses(f.index, err.(localError).error); err != nil { //nolint:errorlint // span lets no other through
			return err
		}
	}
	if !last {
		return nil
	}
	file, err := f.open()
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	if failed {
		return nil
	}
	if err := w.src.unchanged(f.index, file); err != nil {
		return w.loses(f.index, err)
	}
	return w.last(f.index, f.sent, w.src.entries[f.index].Size, merged(f.hashes))
}

// stream sends what has no length before its end.
func (w *worker) stream() error {
	var m merger
	var total int64
	first, alone := hash{}, true
	for n := 0; ; n++ {
		b := w.buffer(minPiece)
		got, err := io.ReadFull(w.src.stream, b)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return &stopError{failOther, fmt.Errorf("read input: %w", err)}
		}
		if b = b[:got]; got > 0 || n == 0 {
			h := chaining(b, total)
			if m.add(h); n == 0 {
				first = whole(b)
			}
			alone = n == 0
			if _, err := w.piece(0, n, h, b); err != nil {
				return err
			}
		}
		total += int64(got)
		if end {
			break
		}
		if err := w.w.Flush(); err != nil {
			return err
		}
		if total >= maxSize {
			return &stopError{failOther, errors.New("more than 16 TiB")}
		}
	}
	h := first
	if !alone {
		h = m.root()
	}
	if err := w.last(0, int(m.n), total, h); err != nil {
		return err
	}
	return w.w.Flush()
}
