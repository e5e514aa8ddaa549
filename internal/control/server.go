package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"

	"bodkin"
	"bodkin/peer"
)

// Server answers commands for a running node.
type Server struct {
	node   *bodkin.Node
	http   *http.Server
	path   string
	mine   os.FileInfo
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	done   chan struct{}
}

// Serve answers on the socket of the node's ID until Close. A socket that is
// there already is taken over: its process is dead, or this node has displaced
// it.
func Serve(n *bodkin.Node) (*Server, error) {
	path, err := Path(n.ID())
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Closing would unlink whatever is at the path then: the next node's, maybe.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	s := &Server{node: n, path: path, done: make(chan struct{})}
	s.mine, _ = os.Lstat(path)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("POST /ping/{peer}", s.ping)
	mux.HandleFunc("POST /dial/{peer}/{service}", s.dial)
	s.http = &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return s.ctx }}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// Close ends answering, and removes the socket if it is still ours.
func (s *Server) Close() {
	s.once.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && s.mine != nil && os.SameFile(now, s.mine) {
			_ = os.Remove(s.path)
		}
		s.cancel()
		_ = s.http.Close()
		<-s.done
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadGateway)
	_ = json.NewEncoder(w).Encode(errorOf(err))
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { answer(w, s.node.Status()) }

func (s *Server) ping(w http.ResponseWriter, r *http.Request) {
	id, err := peer.ParseID(r.PathValue("peer"))
	if err != nil {
		fail(w, err)
		return
	}
	pong, err := s.node.Ping(r.Context(), id)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, pong)
}

// dial connects the request's connection with the peer: after the response's
// header it is the stream itself.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	id, err := peer.ParseID(r.PathValue("peer"))
	if err != nil {
		fail(w, err)
		return
	}
	c, err := s.node.Dial(r.Context(), id, r.PathValue("service"))
	if err != nil {
		fail(w, err)
		return
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		_ = c.Close()
		fail(w, errors.New("connection cannot be taken over"))
		return
	}
	conn, rw, err := h.Hijack()
	if err != nil {
		_ = c.Close()
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bodkin\r\n\r\n")
	s.join(conn.(*net.UnixConn), rw.Reader, c)
}

// join copies both ways, with half-close, until both have ended.
func (s *Server) join(u *net.UnixConn, in io.Reader, c *bodkin.Conn) {
	stop := context.AfterFunc(s.ctx, func() { _ = u.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		_, _ = io.Copy(c, in)
		_ = c.CloseWrite()
	}()
	go func() {
		defer wg.Done()
		_, err := io.Copy(u, c)
		_ = u.CloseWrite()
		if err != nil {
			_ = u.Close()
		}
	}()
	wg.Wait()
	_ = c.Close()
	_ = u.Close()
}
