// Package tunnel connects through the proxies that a network may demand: HTTP CONNECT
// (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928), as the environment names them.
package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// FromEnvironment is the proxy for a host and port by HTTPS_PROXY, ALL_PROXY and
// NO_PROXY, or nil where the connection is to be direct. The lower-case names count too.
func FromEnvironment(target *url.URL) (*url.URL, error) {
	c := httpproxy.FromEnvironment()
	if c.HTTPSProxy == "" {
		if c.HTTPSProxy = os.Getenv("ALL_PROXY"); c.HTTPSProxy == "" {
			c.HTTPSProxy = os.Getenv("all_proxy")
		}
	}
	p, err := c.ProxyFunc()(target)
	if err != nil {
		return nil, fmt.Errorf("HTTPS_PROXY or ALL_PROXY: %w", err)
	}
	return p, nil
}

// ErrProxy is wrapped by every error of Dial.
var ErrProxy = errors.New("proxy")

// A Dialer opens a connection to HOST:PORT.
type Dialer func(ctx context.Context, address string) (net.Conn, error)

// Dial connects to target, HOST:PORT, through a proxy, which looks the host up. It
// reaches the proxy by dial.
func Dial(ctx context.Context, dial Dialer, p *url.URL, target string) (net.Conn, error) {
	var conn net.Conn
	var err error
	switch p.Scheme {
	case "http", "https":
		conn, err = connect(ctx, dial, p, target)
	case "socks5", "socks5h":
		conn, err = socks(ctx, dial, p, target)
	default:
		err = errors.New("its scheme is none of http, https and socks5")
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrProxy, p.Redacted(), err)
	}
	return conn, nil
}

// address is where the proxy is.
func address(p *url.URL) string {
	port := p.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[p.Scheme]
	}
	return net.JoinHostPort(p.Hostname(), port)
}

// maxAnswer bounds what a proxy may say before the connection is there.
const maxAnswer = 16 << 10

// connect asks an HTTP proxy.
func connect(ctx context.Context, dial Dialer, p *url.URL, target string) (conn net.Conn, err error) {
	if conn, err = dial(ctx, address(p)); err != nil {
		return nil, err
	}
	raw := conn // conn becomes another one, for TLS
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			_ = conn.Close()
		}
	}()
	if p.Scheme == "https" {
		t := tls.Client(conn, &tls.Config{ServerName: p.Hostname(), NextProtos: []string{"http/1.1"}})
		if err = t.HandshakeContext(ctx); err != nil {
			return conn, err
		}
		conn = t
	}
	var request strings.Builder
	fmt.Fprintf(&request, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", target, target)
	if u := p.User; u != nil {
		password, _ := u.Password()
		fmt.Fprintf(&request, "Proxy-Authorization: Basic %s\r\n",
			base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	request.WriteString("\r\n")
	if _, err = io.WriteString(conn, request.String()); err != nil {
		return conn, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	switch {
	case err != nil:
		return conn, fmt.Errorf("its answer: %w", err)
	case answer.StatusCode != http.StatusOK:
		return conn, fmt.Errorf("it refuses %s: %s", target, answer.Status)
	case r.Buffered() > 0:
		return conn, errors.New("it speaks before it is spoken to")
	}
	return conn, nil
}

// socks asks a SOCKS5 proxy.
func socks(ctx context.Context, dial Dialer, p *url.URL, target string) (net.Conn, error) {
	var auth *proxy.Auth
	if u := p.User; u != nil {
		password, _ := u.Password()
		auth = &proxy.Auth{User: u.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", address(p), auth, forward(dial))
	if err != nil {
		return nil, err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// forward is a Dialer as package proxy wants it.
type forward Dialer

func (f forward) Dial(_, address string) (net.Conn, error) { return f(context.Background(), address) }

func (f forward) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	return f(ctx, address)
}
