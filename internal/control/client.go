package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"bodkin"
	"bodkin/internal/app/forward"
	"bodkin/peer"
)

// Connect finds the running node of that ID on this machine, or returns
// ErrNotRunning.
func Connect(ctx context.Context, id peer.ID) (Node, error) {
	paths, err := places(id)
	if err != nil {
		return nil, err
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, path := range paths {
		c := &client{path: path, id: id}
		if s, err := c.Status(ask); err == nil && s.ID == id {
			c.server = s.Server
			return c, nil
		}
	}
	return nil, ErrNotRunning
}

// askTime is how long a process that holds the socket may take to answer, before
// it counts as stuck.
const askTime = 5 * time.Second

type client struct {
	path, server string
	id           peer.ID
}

func (c *client) ID() peer.ID { return c.id }

func (c *client) Server() string { return c.server }

func (c *client) Shutdown(context.Context) error { return nil }

// do sends one request on a connection of its own and reads the answer's header.
func (c *client) do(ctx context.Context, method, path string) (*net.UnixConn, *http.Response, *bufio.Reader, error) {
	// Connecting to a Unix socket does not wait for anybody.
	conn, err := new(net.Dialer).DialContext(context.WithoutCancel(ctx), "unix", c.path)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w (%v)", ErrGone, err) //nolint:errorlint // its own kind does not matter
	}
	u := conn.(*net.UnixConn)
	stop := context.AfterFunc(ctx, func() { _ = u.Close() })
	req, err := http.NewRequestWithContext(ctx, method, "http://bodkin"+path, nil)
	if err == nil {
		err = req.Write(u)
	}
	r := bufio.NewReader(u)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(r, req)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = u.Close()
		if ctx.Err() != nil {
			return nil, nil, nil, context.Cause(ctx)
		}
		return nil, nil, nil, fmt.Errorf("%w (%v)", ErrGone, err) //nolint:errorlint // its own kind does not matter
	}
	return u, resp, r, nil
}

// get sends a request and decodes the answer.
func (c *client) get(ctx context.Context, method, path string, v any) error {
	u, resp, _, err := c.do(ctx, method, path)
	if err != nil {
		return err
	}
	defer func() { _ = u.Close() }()
	return decode(resp, v)
}

func decode(resp *http.Response, v any) error {
	body := json.NewDecoder(io.LimitReader(resp.Body, 1<<24))
	if resp.StatusCode == http.StatusOK {
		return body.Decode(v)
	}
	var e Error
	if err := body.Decode(&e); err != nil {
		return fmt.Errorf("running node: %s", resp.Status)
	}
	return &e
}

func (c *client) Status(ctx context.Context) (s bodkin.Status, err error) {
	err = c.get(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// Report decodes into v what the process that runs the node does with it, or returns
// ErrNoReport where there is nothing to tell.
func Report(ctx context.Context, n Node, v any) error {
	c, ok := n.(*client)
	if !ok {
		return ErrNoReport
	}
	err := c.get(ctx, http.MethodGet, "/report", v)
	if _, told := errors.AsType[*Error](err); told {
		return ErrNoReport
	}
	return err
}

func (c *client) Ping(ctx context.Context, id peer.ID) (p bodkin.Pong, err error) {
	err = c.get(ctx, http.MethodPost, "/ping/"+id.String(), &p)
	return p, err
}

func (c *client) Explain(ctx context.Context, id peer.ID) (e bodkin.Explanation, err error) {
	err = c.get(ctx, http.MethodPost, "/explain/"+id.String(), &e)
	return e, err
}

func (c *client) Dial(ctx context.Context, id peer.ID, service string) (forward.Conn, error) {
	s, err := c.upgrade(ctx, "/dial/"+id.String()+"?service="+url.QueryEscape(service))
	if err != nil {
		return nil, err
	}
	return s, nil
}
