package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// entry is the side that clients connect to.
type entry struct {
	// open is a new connection whose other end connects to the target, and answers
	// with a reply.
	open func(ctx context.Context) (Conn, error)
	// failed and worked are told how that went.
	failed func(error)
	worked func()
}

// listen listens and says where. serve takes clients until ctx ends, and must be
// called.
func (e *entry) listen(ctx context.Context, at Endpoint) (_ Endpoint, serve func(context.Context), err error) {
	if at.Network == UDP {
		c, err := new(net.ListenConfig).ListenPacket(ctx, "udp", at.Address)
		if err != nil {
			return at, nil, listenError(at, err)
		}
		at.Address = named(at.Address, c.LocalAddr())
		return at, func(ctx context.Context) { e.serveFlows(ctx, newUDPPort(c.(*net.UDPConn))) }, nil
	}
	var l net.Listener
	if at.Network == Unix {
		l, err = listenUnix(ctx, at.Address)
	} else if l, err = new(net.ListenConfig).Listen(ctx, "tcp", at.Address); err == nil {
		at.Address = named(at.Address, l.Addr())
	}
	if err != nil {
		return at, nil, listenError(at, err)
	}
	return at, func(ctx context.Context) { e.serveStreams(ctx, l) }, nil
}

// named is an address as it was given, with the port that the system chose.
func named(given string, bound net.Addr) string {
	host, _, _ := net.SplitHostPort(given)
	_, port, _ := net.SplitHostPort(bound.String())
	return net.JoinHostPort(host, port)
}

// listenError says what one can do about an endpoint that cannot be had.
func listenError(at Endpoint, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: another program does already; choose another: %w", at, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES) && at.Network != Unix:
		return fmt.Errorf("listen on %s: ports below 1024 are for root; choose another: %w", at, syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine does not have the address: %w", at, syscall.EADDRNOTAVAIL)
	}
	return fmt.Errorf("listen on %s: %w", at, err)
}

// listenUnix listens on a socket of this user alone. One that nobody listens on any
// more is removed first.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(ctx, path) {
		_ = os.Remove(path)
		l, err = new(net.ListenConfig).Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o600); err != nil {
			_ = l.Close()
			return nil, err
		}
	}
	return l, nil
}

// abandoned reports whether path is a socket that nobody listens on.
func abandoned(ctx context.Context, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// pause is how long accepting rests when the system has no more to give: files,
// above all.
const pause = 100 * time.Millisecond

// serveStreams takes clients until ctx ends. Those that are connected then are broken
// off.
func (e *entry) serveStreams(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			wg.Go(func() { e.connect(ctx, c.(socket)) })
		case errors.Is(err, net.ErrClosed):
			return
		case !rest(ctx, pause):
			return
		}
	}
}

// rest waits; false if ctx has ended.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect connects a client with the target.
func (e *entry) connect(ctx context.Context, s socket) {
	c, err := e.open(ctx)
	if err != nil {
		reset(s)
		if ctx.Err() == nil {
			e.failed(err)
		}
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Abort() })
	defer stop()
	err = splice(s, c, func() error {
		_, err := readReply(c)
		if err == nil {
			e.worked()
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		e.failed(err)
	}
}
