package tunnel_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"bodkin/internal/tunnel"
	"bodkin/internal/tunnel/tunneltest"
)

func dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// listen serves on loopback until the test ends.
func listen(t *testing.T, serve func(net.Listener)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(l)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// echo answers with what it is told.
func echo(t *testing.T) string {
	t.Helper()
	return listen(t, func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	})
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestThroughBothKindsOfProxies(t *testing.T) {
	t.Parallel()
	to := echo(t)
	p := &tunneltest.Proxy{Dial: dial}
	at := listen(t, p.Serve)
	for _, scheme := range []string{"http", "socks5", "socks5h"} {
		c, err := tunnel.Dial(t.Context(), dial, parse(t, scheme+"://"+at), to)
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		_, _ = c.Write([]byte("hello"))
		var b [5]byte
		if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != "hello" {
			t.Errorf("%s: %q, %v", scheme, b, err)
		}
		_ = c.Close()
	}
	if n := p.Connected.Load(); n != 3 {
		t.Errorf("%d connections through the proxy", n)
	}
}

func TestProxyWantsToKnowWho(t *testing.T) {
	t.Parallel()
	to := echo(t)
	p := &tunneltest.Proxy{Dial: dial, Authorization: "Basic YTpi"}
	at := listen(t, p.Serve)
	if c, err := tunnel.Dial(t.Context(), dial, parse(t, "http://a:b@"+at), to); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	_, err := tunnel.Dial(t.Context(), dial, parse(t, "http://a:secret@"+at), to)
	if !errors.Is(err, tunnel.ErrProxy) || !strings.Contains(err.Error(), "407") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// What proxies say instead of yes; none of it is a connection.
func TestProxiesThatAreNone(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"nothing":           "",
		"no":                "HTTP/1.1 403 Forbidden\r\n\r\n",
		"no HTTP":           "SSH-2.0-OpenSSH_9\r\n",
		"half an answer":    "HTTP/1.1 200 OK\r\nVia:",
		"headers for ever":  "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 10_000) + "\r\n",
		"more than it says": "HTTP/1.1 200 OK\r\n\r\nmore",
	} {
		at := listen(t, func(l net.Listener) {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				_, _ = io.WriteString(c, answer)
			}
			_ = c.Close()
		})
		if c, err := tunnel.Dial(t.Context(), dial, parse(t, "http://"+at), "192.0.2.1:443"); !errors.Is(err, tunnel.ErrProxy) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	for _, text := range []string{"ftp://127.0.0.1:1", "http://127.0.0.1:1", "socks5://127.0.0.1:1"} {
		if _, err := tunnel.Dial(t.Context(), dial, parse(t, text), "192.0.2.1:443"); !errors.Is(err, tunnel.ErrProxy) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A proxy that says nothing costs as long as the caller waits.
func TestSilentProxy(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https", "socks5"} {
		held := make(chan net.Conn, 1)
		at := listen(t, func(l net.Listener) {
			if c, err := l.Accept(); err == nil {
				held <- c
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := tunnel.Dial(ctx, dial, parse(t, scheme+"://"+at), "192.0.2.1:443"); !errors.Is(err, tunnel.ErrProxy) {
			t.Errorf("%s: %v", scheme, err)
		}
		cancel()
		_ = (<-held).Close()
	}
}

func TestProxyOfTheEnvironment(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"} {
		t.Setenv(name, "")
	}
	of := func(target string) string {
		t.Helper()
		u, err := tunnel.FromEnvironment(&url.URL{Scheme: "https", Host: target})
		if err != nil {
			return err.Error()
		}
		if u == nil {
			return ""
		}
		return u.String()
	}
	if got := of("server.example:443"); got != "" {
		t.Errorf("without any: %s", got)
	}
	t.Setenv("ALL_PROXY", "socks5://all.example")
	if got := of("server.example:443"); got != "socks5://all.example" {
		t.Errorf("ALL_PROXY: %s", got)
	}
	t.Setenv("HTTPS_PROXY", "http://https.example:3128")
	if got := of("server.example:443"); got != "http://https.example:3128" {
		t.Errorf("HTTPS_PROXY: %s", got)
	}
	t.Setenv("NO_PROXY", "server.example,192.0.2.0/24")
	for target, want := range map[string]string{
		"server.example:443": "", "192.0.2.1:3478": "", "other.example:443": "http://https.example:3128", "127.0.0.1:3478": "",
	} {
		if got := of(target); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}
