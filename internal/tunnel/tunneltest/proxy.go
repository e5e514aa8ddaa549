// Package tunneltest is a proxy to test against: HTTP CONNECT and SOCKS5 on one port.
package tunneltest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"bodkin/internal/tunnel"
)

// Proxy connects its clients to where they want.
type Proxy struct {
	// Dial reaches what clients name.
	Dial tunnel.Dialer
	// Authorization, if not empty, is what clients must say of themselves to the HTTP
	// proxy: the value of Proxy-Authorization.
	Authorization string
	// Connected counts the connections that were made.
	Connected atomic.Int64
}

// Serve takes clients until the listener is closed, and returns when they are gone.
func (p *Proxy) Serve(l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			p.serve(ctx, c)
		})
	}
}

// serve takes one client.
func (p *Proxy) serve(ctx context.Context, c net.Conn) {
	r := bufio.NewReader(c)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	greet := p.http
	if first[0] == 5 {
		greet = p.socks
	}
	target, yes, no, err := greet(r, c)
	if err != nil {
		return
	}
	out, err := p.Dial(ctx, target)
	if err != nil {
		_, _ = c.Write(no)
		return
	}
	defer func() { _ = out.Close() }()
	if _, err := c.Write(yes); err != nil {
		return
	}
	p.Connected.Add(1)
	go func() {
		_, _ = io.Copy(out, r)
		_ = out.Close()
	}()
	_, _ = io.Copy(c, out)
}

var errRefused = errors.New("refused")

// http reads a CONNECT, and returns what to answer.
func (p *Proxy) http(r *bufio.Reader, c net.Conn) (target string, yes, no []byte, err error) {
	q, err := http.ReadRequest(r)
	if err != nil {
		return "", nil, nil, err
	}
	refuse := func(status int) []byte {
		return []byte("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\nContent-Length: 0\r\n\r\n")
	}
	if q.Header.Get("Proxy-Authorization") != p.Authorization {
		_, _ = c.Write(refuse(http.StatusProxyAuthRequired))
		return "", nil, nil, errRefused
	}
	if q.Method != http.MethodConnect {
		_, _ = c.Write(refuse(http.StatusMethodNotAllowed))
		return "", nil, nil, errRefused
	}
	return q.Host, []byte("HTTP/1.1 200 OK\r\n\r\n"), refuse(http.StatusBadGateway), nil
}

// socks reads a SOCKS5 request without authentication (RFC 1928).
func (p *Proxy) socks(r *bufio.Reader, c net.Conn) (target string, yes, no []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", nil, nil, err
	}
	if _, err := r.Discard(int(head[1])); err != nil {
		return "", nil, nil, err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return "", nil, nil, err
	}
	var q [4]byte
	if _, err := io.ReadFull(r, q[:]); err != nil {
		return "", nil, nil, err
	}
	size := map[byte]int{1: 4, 4: 16}[q[3]]
	if q[3] == 3 {
		n, err := r.ReadByte()
		if err != nil {
			return "", nil, nil, err
		}
		size = int(n)
	}
	b := make([]byte, size+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", nil, nil, err
	}
	host := string(b[:size])
	if a, ok := netip.AddrFromSlice(b[:size]); ok && q[3] != 3 {
		host = a.String()
	}
	answer := func(code byte) []byte { return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0} }
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[size:])))), answer(0), answer(4), nil
}
