package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// maxWaiting bounds the connections that a command has been told of and has yet to
// take.
const maxWaiting = 1024

// waiting are connections that peers opened for commands that listen.
type waiting struct {
	mu   sync.Mutex
	last uint64
	all  map[uint64]forward.Incoming
}

// add keeps a connection, under a number.
func (w *waiting) add(c forward.Incoming) (number uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) >= maxWaiting {
		return 0, false
	}
	if w.all == nil {
		w.all = make(map[uint64]forward.Incoming)
	}
	w.last++
	w.all[w.last] = c
	return w.last, true
}

// take gives one out, once.
func (w *waiting) take(number uint64) forward.Incoming {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.all[number]
	delete(w.all, number)
	return c
}

// listen takes connections for a command until that ends its own. What peers open it
// is told in frames, and takes each on a connection of its own.
func (s *Server) listen(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.leaves()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	l, err := s.node.Listen(ctx, r.FormValue("service"))
	if err != nil {
		fail(w, err)
		return
	}
	defer func() { _ = l.Close() }()
	command, err := s.upgrade(w)
	if err != nil {
		return
	}
	defer func() { _ = command.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = command.Abort() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		// The command says nothing: its end is the listener's.
		_, _ = io.Copy(io.Discard, command)
		_ = l.Close()
	})
	defer func() { _ = command.Abort() }()
	var mine []uint64
	defer func() {
		for _, n := range mine {
			if c := s.waiting.take(n); c != nil {
				_ = c.Abort()
			}
		}
	}()
	for {
		c, err := l.AcceptConn()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				command.fail(err)
			}
			return
		}
		n, ok := s.waiting.add(c)
		if !ok {
			_ = c.Abort()
			continue
		}
		mine = append(keep(mine, &s.waiting), n)
		id := c.Peer()
		if command.tell(framePeer, append(binary.BigEndian.AppendUint64(nil, n), id[:]...)) != nil {
			return
		}
	}
}

// keep leaves out, now and then, the numbers of connections that have been taken.
func keep(mine []uint64, w *waiting) []uint64 {
	if len(mine) < maxWaiting {
		return mine
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	left := mine[:0]
	for _, n := range mine {
		if w.all[n] != nil {
			left = append(left, n)
		}
	}
	return left
}

// accept gives a command a connection that it was told of.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.leaves()
	n, _ := strconv.ParseUint(r.PathValue("number"), 10, 64)
	c := s.waiting.take(n)
	if c == nil {
		fail(w, errors.New("that connection is gone"))
		return
	}
	command, err := s.upgrade(w)
	if err != nil {
		_ = c.Abort()
		return
	}
	stop := context.AfterFunc(s.ctx, func() { _ = command.Abort() })
	defer stop()
	join(command, c)
}

// upgrade takes a request's connection over: after the response's header it carries
// frames.
func (s *Server) upgrade(w http.ResponseWriter) (*stream, error) {
	h, ok := w.(http.Hijacker)
	if !ok {
		err := errors.New("connection cannot be taken over")
		fail(w, err)
		return nil, err
	}
	conn, rw, err := h.Hijack()
	if err != nil {
		return nil, err
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bodkin\r\n\r\n")
	return newStream(conn, rw.Reader), nil
}

// upgrade sends a request whose connection carries frames then.
func (c *client) upgrade(ctx context.Context, path string) (*stream, error) {
	u, r, err := c.open(ctx, path)
	if err != nil {
		return nil, err
	}
	return newStream(u, r), nil
}

func (c *client) open(ctx context.Context, path string) (*net.UnixConn, *bufio.Reader, error) {
	u, resp, r, err := c.do(ctx, http.MethodPost, path)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		err := decode(resp, nil)
		_ = u.Close()
		if err == nil {
			err = errors.New("running node: it did not connect")
		}
		return nil, nil, err
	}
	return u, r, nil
}

// Listen takes connections to a service of the running node.
func (c *client) Listen(ctx context.Context, service string) (forward.Listener, error) {
	u, r, err := c.open(ctx, "/listen?service="+url.QueryEscape(service))
	if err != nil {
		return nil, err
	}
	return &listener{client: c, socket: u, r: r, buf: make([]byte, maxFrame)}, nil
}

// listener is told of connections by the running node.
type listener struct {
	client *client
	socket *net.UnixConn
	r      *bufio.Reader
	buf    []byte
}

// AcceptConn waits for the next connection. It is called by one goroutine.
func (l *listener) AcceptConn() (forward.Incoming, error) {
	for {
		kind, body, err := readFrame(l.r, l.buf)
		switch {
		case errors.Is(err, net.ErrClosed), errors.Is(err, errFrame):
			return nil, err
		case err != nil:
			return nil, ErrGone
		case kind == frameFailed:
			return nil, parseError(body)
		case kind != framePeer:
			return nil, ErrGone
		}
		var id peer.ID
		copy(id[:], body[8:])
		s, err := l.client.upgrade(context.Background(), fmt.Sprintf("/accept/%d", binary.BigEndian.Uint64(body)))
		if err != nil {
			continue // it has ended meanwhile
		}
		s.peer = id
		return s, nil
	}
}

// Close ends listening; connections that were accepted stay.
func (l *listener) Close() error { return l.socket.Close() }
