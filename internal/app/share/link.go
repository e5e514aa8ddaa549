package share

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"bodkin"
	"bodkin/peer"
)

// Service is what nodes listen for, and dial.
const Service = "share"

// Conn is a stream to a peer.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
	// Abort breaks both directions off.
	Abort() error
}

// Listener takes streams of peers.
type Listener interface {
	Accept() (Conn, peer.ID, error)
	Close() error
}

// Node is what a transfer needs of a node.
type Node interface {
	Dial(ctx context.Context, id peer.ID, service string) (Conn, error)
	Listen(ctx context.Context, service string) (Listener, error)
	// Route is the one in use to a peer now.
	Route(ctx context.Context, id peer.ID) bodkin.Route
	Explain(ctx context.Context, id peer.ID) (bodkin.Explanation, error)
}

const (
	// dataStreams is how many streams carry data: reading, hashing and writing of one
	// piece go on beside another's, and a lost packet holds up one of them only.
	dataStreams = 4
	// maxStreams is how many a peer may ask for.
	maxStreams = 16
	// aliveEvery and silentAfter: a side that says nothing for so long is gone. A
	// route that is lost and found again takes less.
	aliveEvery  = 2 * time.Second
	silentAfter = 30 * time.Second
	// helloTime is how long a stream may take to say what it is for.
	helloTime = 20 * time.Second
)

var (
	errSilent = errors.New("the other side has fallen silent")
	errEnded  = errors.New("the other side broke off")
	errTurned = errors.New("both sides want to send, or both to receive")
)

// message is one of a control stream.
type message struct {
	kind kind
	body []byte
}

// link is a transfer with a peer: its control stream, and its data streams when they are
// opened.
type link struct {
	peer peer.ID
	id   transferID
	conn Conn
	in   *bufio.Reader
	open func(ctx context.Context, n int) ([]Conn, error)

	writing sync.Mutex
	buf     []byte
	heard   atomic.Int64 // when, in nanoseconds since begun
	begun   time.Time

	messages chan message
	ctx      context.Context
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup
}

func newLink(ctx context.Context, id peer.ID, t transferID, conn Conn, in *bufio.Reader) *link {
	l := &link{peer: id, id: t, conn: conn, in: in, begun: time.Now(), messages: make(chan message)}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

// start begins to read, and to say that we live.
func (l *link) start() {
	l.wg.Go(l.read)
	l.wg.Go(l.beat)
}

func (l *link) read() {
	for {
		k, body, err := readMessage(l.in)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errEnded
			}
			l.cancel(err)
			return
		}
		l.heard.Store(int64(time.Since(l.begun)))
		switch k {
		case kindAlive:
			continue
		case kindFail:
			code, text, err := parseFail(body)
			if err == nil {
				err = &Failure{code, text}
			}
			l.cancel(err)
			return
		default:
		}
		select {
		case l.messages <- message{k, body}:
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *link) beat() {
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-l.ctx.Done():
			return
		}
		if time.Since(l.begun)-time.Duration(l.heard.Load()) > silentAfter {
			l.cancel(errSilent)
			return
		}
		if l.writing.TryLock() { // else something is being said
			l.wg.Go(func() {
				defer l.writing.Unlock()
				_ = l.write(kindAlive, nil)
			})
		}
	}
}

// send writes a message.
func (l *link) send(k kind, body []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.write(k, body)
}

// write is called under the lock.
func (l *link) write(k kind, body []byte) error {
	l.buf = appendMessage(l.buf[:0], k, body)
	_, err := l.conn.Write(l.buf)
	return err
}

// next is the next message, or why there is none: a failure of the other side, above all.
func (l *link) next() (message, error) {
	select {
	case m := <-l.messages:
		return m, nil
	case <-l.ctx.Done():
		return message{}, context.Cause(l.ctx)
	}
}

// endTime is how long the last message may take to leave.
const endTime = 3 * time.Second

// end ends the transfer, and tells the other side why, if that is not what it said itself.
// In good order what was written arrives.
func (l *link) end(err error) {
	late := time.AfterFunc(endTime, func() { _ = l.conn.Abort() })
	defer late.Stop()
	l.cancel(errEnded)
	l.writing.Lock()
	if err != nil && !theirs(err) {
		_ = l.write(kindFail, appendFail(codeFor(err), err.Error()))
	}
	_ = l.conn.CloseWrite()
	l.writing.Unlock()
	_ = l.conn.Close()
	l.wg.Wait()
}

// whyTime is how long a side that met an error waits to be told its cause: a stream that
// was broken off may come in before the message that says why.
const whyTime = 2 * time.Second

// why prefers what the other side said, or what ended the transfer, to how we noticed.
func (l *link) why(err error) error {
	var ours *stopError
	if err == nil || errors.As(err, &ours) {
		return err
	}
	late := time.NewTimer(whyTime)
	defer late.Stop()
	select {
	case <-l.ctx.Done():
	case <-late.C:
	}
	if cause := context.Cause(l.ctx); cause != nil {
		return cause
	}
	return err
}

// theirs reports whether it was the other side that ended a transfer.
func theirs(err error) bool {
	var f *Failure
	return errors.As(err, &f) || errors.Is(err, errEnded) || errors.Is(err, errSilent)
}

// codeFor is how an error of ours is told to the other side.
func codeFor(err error) failure {
	var ours *stopError
	switch {
	case errors.As(err, &ours):
		return ours.code
	case errors.Is(err, context.Canceled):
		return failStopped
	}
	return failOther
}

// stopError is why we end a transfer.
type stopError struct {
	code failure
	err  error
}

// Error implements error.
func (e *stopError) Error() string { return e.err.Error() }

// Unwrap is the error alone.
func (e *stopError) Unwrap() error { return e.err }

// dial begins a transfer with a peer that listens.
func dial(ctx context.Context, n Node, id peer.ID, r role) (*link, error) {
	conn, err := n.Dial(ctx, id, Service)
	if err != nil {
		return nil, err
	}
	h := hello{version: version, role: r}
	_, _ = rand.Read(h.id[:])
	l := newLink(ctx, id, h.id, conn, bufio.NewReader(conn))
	l.open = func(ctx context.Context, count int) (out []Conn, err error) {
		for range count {
			c, err := n.Dial(ctx, id, Service)
			if err == nil {
				_, err = c.Write(appendMessage(nil, kindJoin, h.id[:]))
			}
			if err != nil {
				abortAll(out)
				return nil, err
			}
			out = append(out, c)
		}
		return out, nil
	}
	if err := l.send(kindHello, h.append(nil)); err != nil {
		_ = conn.Abort()
		return nil, err
	}
	l.start()
	return l, nil
}

func abortAll(all []Conn) {
	for _, c := range all {
		_ = c.Abort()
	}
}

// hub takes the streams of peers that dial, and puts them together.
type hub struct {
	ctx   context.Context
	ours  role
	admit func(peer.ID) bool // nil: everybody
	found chan *link

	mu    sync.Mutex
	joins map[transferID]joining
}

type joining struct {
	peer    peer.ID
	streams chan Conn
}

func newHub(ctx context.Context, ours role, admit func(peer.ID) bool) *hub {
	return &hub{ctx: ctx, ours: ours, admit: admit, found: make(chan *link), joins: make(map[transferID]joining)}
}

// run takes streams until the listener ends.
func (h *hub) run(l Listener) error {
	stop := context.AfterFunc(h.ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, id, err := l.Accept()
		if err != nil {
			if h.ctx.Err() != nil {
				err = context.Cause(h.ctx)
			}
			return err
		}
		go h.take(c, id)
	}
}

// begun is a stream of which a part has been read already.
type begun struct {
	Conn
	r *bufio.Reader
}

// Read implements [io.Reader].
func (b begun) Read(p []byte) (int, error) { return b.r.Read(p) }

// take reads what a stream is for.
func (h *hub) take(c Conn, id peer.ID) {
	late := time.AfterFunc(helloTime, func() { _ = c.Abort() })
	r := bufio.NewReader(c)
	k, body, err := readMessage(r)
	if !late.Stop() || err != nil {
		_ = c.Abort()
		return
	}
	if k == kindJoin {
		if !h.join(begun{c, r}, id, body) {
			_ = c.Abort()
		}
		return
	}
	if err = errMessage; k == kindHello {
		err = h.hello(c, id, r, body)
	}
	if err != nil {
		_, _ = c.Write(appendMessage(nil, kindFail, appendFail(codeFor(err), err.Error())))
		_ = c.Close()
	}
}

var (
	errVersion = &stopError{failVersion, errors.New("it is of another version of bodkin; install the same on both sides")}
	errStrange = &stopError{failRefused, errors.New("this is for somebody else; ask for a new code")}
)

func (h *hub) hello(c Conn, id peer.ID, r *bufio.Reader, body []byte) error {
	hi, err := parseHello(body)
	switch {
	case err != nil:
		return err
	case hi.version != version:
		return errVersion
	case h.admit != nil && !h.admit(id):
		return errStrange
	case hi.role == h.ours:
		return &stopError{failRefused, errTurned}
	}
	streams := make(chan Conn, maxStreams)
	h.mu.Lock()
	h.joins[hi.id] = joining{id, streams}
	h.mu.Unlock()
	l := newLink(h.ctx, id, hi.id, c, r)
	l.open = func(ctx context.Context, count int) (out []Conn, err error) {
		for range count {
			select {
			case s := <-streams:
				out = append(out, s)
			case <-ctx.Done():
				abortAll(out)
				return nil, context.Cause(ctx)
			}
		}
		return out, nil
	}
	l.start()
	context.AfterFunc(l.ctx, func() { h.forget(l.id) })
	select {
	case h.found <- l:
		return nil
	case <-l.ctx.Done():
		l.end(nil)
		return nil
	}
}

// join hands a stream to its transfer, if that is still there.
func (h *hub) join(c Conn, id peer.ID, body []byte) bool {
	t, err := parseJoin(body)
	if err != nil {
		return false
	}
	h.mu.Lock()
	j, ok := h.joins[t]
	h.mu.Unlock()
	if !ok || j.peer != id {
		return false
	}
	select {
	case j.streams <- c:
		return true
	default:
		return false
	}
}

func (h *hub) forget(id transferID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	streams := h.joins[id].streams
	delete(h.joins, id)
	for {
		select {
		case c := <-streams: // that nobody took
			_ = c.Abort()
		default:
			return
		}
	}
}
