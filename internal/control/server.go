package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"bodkin/peer"
)

// Server answers commands for a running node.
type Server struct {
	node    Node
	http    *http.Server
	path    string
	mine    os.FileInfo
	ctx     context.Context
	cancel  context.CancelFunc
	once    sync.Once
	done    chan struct{}
	waiting waiting
	busy    atomic.Int32
	idle    chan struct{} // told when busy falls
	report  atomic.Pointer[func() any]
}

// Serve answers for the node of that ID on its socket until Close. A socket that is
// there already is taken over: its process is dead, or this node has displaced
// it.
func Serve(id peer.ID, n Node) (*Server, error) {
	path, err := Path(id)
	if err != nil {
		return nil, err
	}
	l, mine, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{node: n, path: path, mine: mine, done: make(chan struct{}), idle: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /report", s.answerReport)
	mux.HandleFunc("POST /ping/{peer}", s.ping)
	mux.HandleFunc("POST /explain/{peer}", s.explain)
	mux.HandleFunc("POST /dial/{peer}", s.dial)
	mux.HandleFunc("POST /listen", s.listen)
	mux.HandleFunc("POST /invite", s.invite)
	mux.HandleFunc("POST /join", s.join)
	mux.HandleFunc("POST /admit/{peer}", s.admit)
	mux.HandleFunc("POST /accept/{number}", s.accept)
	s.http = &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return s.ctx }}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// bind listens on a socket at path, whatever is there.
func bind(path string) (net.Listener, os.FileInfo, error) {
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		if len(path) > maxPath {
			err = fmt.Errorf("%w: its path has more than %d bytes; set XDG_RUNTIME_DIR to a shorter one", err, maxPath)
		}
		return nil, nil, err
	}
	// Closing would unlink whatever is at the path then: the next node's, maybe.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	mine, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, nil, err
	}
	return l, mine, nil
}

// Leave removes the socket, if it is still ours: commands that come now find no
// node, and those that are under way go on.
func (s *Server) Leave() {
	unlock, err := lock(filepath.Dir(s.path))
	if err != nil {
		return // the folder is gone, and the socket with it
	}
	defer unlock()
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.mine) {
		_ = os.Remove(s.path)
	}
}

// leaves notes that a command has ended its connection.
func (s *Server) leaves() {
	s.busy.Add(-1)
	select {
	case s.idle <- struct{}{}:
	default:
	}
}

// Busy is how many commands have a connection through this node.
func (s *Server) Busy() int { return int(s.busy.Load()) }

// Wait waits until no command has a connection through this node any more, or
// until ctx ends. Leave comes first.
func (s *Server) Wait(ctx context.Context) {
	for s.busy.Load() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends answering, and what commands have under way. When it returns they have
// been let go: what ends afterwards, such as the node, is none of their business.
func (s *Server) Close() {
	s.once.Do(func() {
		s.Leave()
		s.cancel()
		_ = s.http.Close()
		<-s.done
		s.Wait(context.Background())
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

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.node.Status(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, status)
}

// Report says what the process does with its node: something that JSON can hold, for
// [Report] of commands.
func (s *Server) Report(of func() any) { s.report.Store(&of) }

func (s *Server) answerReport(w http.ResponseWriter, _ *http.Request) {
	of := s.report.Load()
	if of == nil {
		fail(w, ErrNoReport)
		return
	}
	answer(w, (*of)())
}

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

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	id, err := peer.ParseID(r.PathValue("peer"))
	if err != nil {
		fail(w, err)
		return
	}
	e, err := s.node.Explain(r.Context(), id)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, e)
}

// dial connects the request's connection with the peer: after the response's
// header it carries frames.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.leaves()
	id, err := peer.ParseID(r.PathValue("peer"))
	if err != nil {
		fail(w, err)
		return
	}
	c, err := s.node.Dial(r.Context(), id, r.FormValue("service"))
	if err != nil {
		fail(w, err)
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
