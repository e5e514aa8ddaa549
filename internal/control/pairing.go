package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"bodkin"
	"bodkin/peer"
)

// Invitation is a code that a node waits under.
type Invitation interface {
	Code() string
	Until() time.Time
	Wait(ctx context.Context) (peer.ID, error)
	Close() error
}

func (l local) Invite(ctx context.Context, life time.Duration) (Invitation, error) {
	i, err := l.n.InviteFor(ctx, life)
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (l local) Join(ctx context.Context, code string) (peer.ID, error) { return l.n.Join(ctx, code) }

// Admit lets a peer in, and waits until the server knows.
func (l local) Admit(ctx context.Context, id peer.ID, service string) (end func(), err error) {
	if end, err = l.n.Admit(id, service); err != nil {
		return nil, err
	}
	if err := l.n.WaitRegistered(ctx); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// invited is what the running node says first of an invitation; later it says joined,
// or what is wrong.
type invited struct {
	Code  string    `json:"code"`
	Until time.Time `json:"until"`
}

type joined struct {
	Peer  peer.ID `json:"peer,omitzero"`
	Error *Error  `json:"error,omitempty"`
}

// invite makes a code for a command, and takes it back when the command goes.
func (s *Server) invite(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.leaves()
	life, err := time.ParseDuration(r.FormValue("life"))
	if err != nil {
		fail(w, err)
		return
	}
	i, err := s.node.Invite(r.Context(), life)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, invited{i.Code(), i.Until()})
	_ = http.NewResponseController(w).Flush()
	id, err := i.Wait(r.Context())
	if r.Context().Err() == nil {
		said := joined{Peer: id}
		if err != nil {
			said.Error = errorOf(err)
		}
		answer(w, said)
		_ = http.NewResponseController(w).Flush()
	}
	_ = i.Close()
}

func (s *Server) join(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.leaves()
	id, err := s.node.Join(r.Context(), r.FormValue("code"))
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, joined{Peer: id})
}

// admit lets a peer in for a command, until that goes.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) {
	id, err := peer.ParseID(r.PathValue("peer"))
	if err != nil {
		fail(w, err)
		return
	}
	end, err := s.node.Admit(r.Context(), id, r.FormValue("service"))
	if err != nil {
		fail(w, err)
		return
	}
	defer end()
	answer(w, joined{Peer: id})
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// through is an invitation of the running node. Its connection is what keeps it.
type through struct {
	invited
	conn net.Conn
	said *json.Decoder
	once sync.Once
	done chan struct{} // closed when end or err is written
	end  joined
	err  error
}

func (c *client) Invite(ctx context.Context, life time.Duration) (Invitation, error) {
	u, resp, _, err := c.do(ctx, http.MethodPost, "/invite?life="+url.QueryEscape(life.String()))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		err := decode(resp, nil)
		_ = u.Close()
		return nil, err
	}
	t := &through{conn: u, said: json.NewDecoder(io.LimitReader(resp.Body, 1<<16)), done: make(chan struct{})}
	if err := t.said.Decode(&t.invited); err != nil {
		_ = u.Close()
		return nil, ErrGone
	}
	return t, nil
}

func (t *through) Code() string     { return t.invited.Code }
func (t *through) Until() time.Time { return t.invited.Until }

func (t *through) Wait(ctx context.Context) (peer.ID, error) {
	t.once.Do(func() { go t.read() })
	select {
	case <-t.done:
	case <-ctx.Done():
		return peer.ID{}, context.Cause(ctx)
	}
	switch {
	case t.err != nil:
		return peer.ID{}, ErrGone
	case t.end.Error != nil:
		return peer.ID{}, t.end.Error
	default:
		return t.end.Peer, nil
	}
}

func (t *through) read() {
	defer close(t.done)
	t.err = t.said.Decode(&t.end)
}

func (t *through) Close() error { return t.conn.Close() }

func (c *client) Join(ctx context.Context, code string) (peer.ID, error) {
	var j joined
	err := c.get(ctx, http.MethodPost, "/join?code="+url.QueryEscape(code), &j)
	return j.Peer, err
}

func (c *client) Admit(ctx context.Context, id peer.ID, service string) (end func(), err error) {
	u, resp, _, err := c.do(ctx, http.MethodPost, "/admit/"+id.String()+"?service="+url.QueryEscape(service))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		err := decode(resp, nil)
		_ = u.Close()
		return nil, err
	}
	return func() { _ = u.Close() }, nil
}

// codeErrors are the errors of codes that commands tell apart, by their kinds.
var codeErrors = map[string]error{
	"bad-code":        bodkin.ErrBadCode,
	"own-code":        bodkin.ErrOwnCode,
	"no-code":         bodkin.ErrNoCode,
	"code-used":       bodkin.ErrCodeUsed,
	"wrong-code":      bodkin.ErrWrongCode,
	"code-silent":     bodkin.ErrCodeSilent,
	"too-many-codes":  bodkin.ErrTooManyCodes,
	"code-tried":      bodkin.ErrCodeTried,
	"code-unfinished": bodkin.ErrCodeUnfinished,
	"code-expired":    bodkin.ErrCodeExpired,
	"code-lost":       bodkin.ErrCodeLost,
}

// codeKind is the kind of an error of a code, or "".
func codeKind(err error) string {
	for kind, e := range codeErrors {
		if errors.Is(err, e) {
			return kind
		}
	}
	return ""
}
