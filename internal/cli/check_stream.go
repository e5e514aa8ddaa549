package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"bodkin/internal/tunnel"
	"bodkin/rendezvous"
)

// streamCheck is whether the server can be reached over TCP or TLS, where UDP is blocked.
type streamCheck struct {
	Via   string `json:"via"`
	Works bool   `json:"works"`
	// Proxy is the one that the environment names, without its password.
	Proxy    string         `json:"proxy,omitempty"`
	Endpoint netip.AddrPort `json:"endpoint,omitzero"` // ours, as the server sees it
	Error    string         `json:"error,omitempty"`
}

// streamTime is how long a connection may take.
const streamTime = 5 * time.Second

// checkStreams asks a rendezvous server over TCP and TLS.
func checkStreams(ctx context.Context, u rendezvous.URL) []streamCheck {
	tcp, secure := u.Streams()
	checks := []streamCheck{{Via: "tcp"}, {Via: "tls"}}
	var wg sync.WaitGroup
	for i, port := range []uint16{tcp, secure} {
		c := &checks[i]
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, streamTime)
			defer cancel()
			if err := c.ask(ctx, u, port); err != nil {
				c.Error = err.Error()
			} else {
				c.Works = true
			}
		})
	}
	wg.Wait()
	return checks
}

func (c *streamCheck) ask(ctx context.Context, u rendezvous.URL, port uint16) error {
	target := net.JoinHostPort(u.Host, strconv.Itoa(int(port)))
	p, err := tunnel.FromEnvironment(&url.URL{Scheme: "https", Host: target})
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	var conn net.Conn
	if p == nil {
		conn, err = dial(ctx, target)
	} else {
		c.Proxy = p.Redacted()
		conn, err = tunnel.Dial(ctx, dial, p, target)
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if c.Via == "tls" {
		conn = tls.Client(conn, rendezvous.ClientTLS(u))
	}
	c.Endpoint, err = rendezvous.AskStream(conn)
	return err
}

// instead are the ways that work where UDP does not, as words.
func instead(checks []streamCheck) string {
	var out []string
	for _, c := range checks {
		if c.Works {
			out = append(out, strings.ToUpper(c.Via))
		}
	}
	return strings.Join(out, " and ")
}

// byStreams makes what it is of ways that were tried because UDP is blocked.
func (c *checkup) byStreams(checks []streamCheck) {
	c.Streams = checks
	if way := instead(checks); way != "" {
		c.Summary = "Nothing comes back over UDP: this network blocks it. Nodes reach the server by " + way +
			" instead, by themselves, and are relayed so where no hole opens by TCP."
		c.Advice[0] = "Allow UDP to leave this network: more connections would be direct, and all of them faster."
	}
}

// words is what was found of a way.
func (s streamCheck) words() string {
	text := "works"
	if !s.Works {
		text = "does not work: " + s.Error
	}
	if s.Proxy != "" {
		text += fmt.Sprintf(" (through %s)", s.Proxy)
	}
	return text
}
