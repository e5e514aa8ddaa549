package forward

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Networks of endpoints.
const (
	TCP   = "tcp"
	UDP   = "udp"
	Unix  = "unix"
	Stdio = "stdio" // to listen only: standard input and output
)

// Endpoint is where clients connect to, or where the other side connects to.
type Endpoint struct {
	Network string
	// Address is HOST:PORT, or the path of a Unix socket. An empty HOST to listen
	// on is every address of the machine.
	Address string
}

// String is the endpoint as the parsers take it.
func (e Endpoint) String() string {
	switch e.Network {
	case Unix:
		return unixPrefix + e.Address
	case UDP:
		return e.Address + "/udp"
	case Stdio:
		return "-"
	default:
		return e.Address
	}
}

const unixPrefix = "unix:"

// maxAddress bounds what a request carries.
const maxAddress = 1024

// ParseTarget reads [HOST:]PORT[/udp] or unix:PATH, as the machine that connects to
// it understands them. HOST is localhost if it is not given.
func ParseTarget(text string) (Endpoint, error) {
	e, err := parse(text, "localhost")
	if err == nil && e.Network != Unix {
		host, port, _ := net.SplitHostPort(e.Address)
		if host == "" {
			host = "localhost"
			e.Address = net.JoinHostPort(host, port)
		}
		switch {
		case port == "0":
			err = errors.New("port 0 cannot be connected to")
		case host == "*":
			err = errors.New("a target is one host")
		}
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("target %q: %w", text, err)
	}
	return e, nil
}

// ParseListen reads [ADDRESS:]PORT[/udp], unix:PATH, or - for standard input and
// output. ADDRESS is 127.0.0.1 if it is not given; * or nothing in its place is every
// address of the machine. Port 0 is any that is free.
func ParseListen(text string) (Endpoint, error) {
	if text == "-" {
		return Endpoint{Network: Stdio}, nil
	}
	e, err := parse(text, "127.0.0.1")
	if err != nil {
		return Endpoint{}, fmt.Errorf("listen on %q: %w", text, err)
	}
	if e.Network != Unix {
		e.Address = strings.TrimPrefix(e.Address, "*")
	}
	return e, nil
}

var errForm = errors.New("it needs the form [HOST:]PORT, with /udp behind it for UDP, or unix:PATH")

func parse(text, host string) (Endpoint, error) {
	if len(text) > maxAddress {
		return Endpoint{}, fmt.Errorf("it has more than %d bytes", maxAddress)
	}
	if path, ok := strings.CutPrefix(text, unixPrefix); ok {
		if path == "" {
			return Endpoint{}, errForm
		}
		return Endpoint{Unix, path}, nil
	}
	e, rest := Endpoint{Network: TCP}, text
	if before, network, ok := cutLast(text, "/"); ok {
		if network != TCP && network != UDP {
			return Endpoint{}, fmt.Errorf("no protocol %q; there are: tcp, udp", network)
		}
		e.Network, rest = network, before
	}
	port := rest
	if strings.Contains(rest, ":") {
		var err error
		if host, port, err = net.SplitHostPort(rest); err != nil {
			return Endpoint{}, fmt.Errorf("%w; an IPv6 address stands in brackets, as in [::1]:22", errForm)
		}
	}
	if strings.ContainsAny(host, " \t\r\n/") {
		return Endpoint{}, errForm
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return Endpoint{}, fmt.Errorf("%w: %q is no port", errForm, port)
		}
		return Endpoint{}, fmt.Errorf("port %s is not between 0 and 65535", port)
	}
	e.Address = net.JoinHostPort(host, strings.TrimLeft(port[:len(port)-1], "0")+port[len(port)-1:])
	return e, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Parse reads the three words of a forward but the peer. /udp behind either holds for
// both.
func Parse(listen, to string) (l, t Endpoint, err error) {
	if t, err = ParseTarget(to); err != nil {
		return l, t, err
	}
	if l, err = ParseListen(listen); err != nil {
		return l, t, err
	}
	switch {
	case l.Network == TCP && t.Network == UDP && !strings.HasSuffix(listen, "/tcp"):
		l.Network = UDP
	case l.Network == UDP && t.Network == TCP && !strings.HasSuffix(to, "/tcp"):
		t.Network = UDP
	}
	return l, t, nil
}

// Absolute makes the path of a Unix socket independent of the working folder.
func (e Endpoint) Absolute() (Endpoint, error) {
	if e.Network != Unix {
		return e, nil
	}
	path, err := filepath.Abs(e.Address)
	e.Address = path
	return e, err
}
