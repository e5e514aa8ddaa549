package daemon

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"bodkin/internal/app/forward"
	"bodkin/internal/config"
	"bodkin/peer"
	"bodkin/rendezvous"
)

// Plan is what a configuration file wants of a daemon.
type Plan struct {
	Peers    []peer.ID // who may connect; never nil, which would be everybody
	Forwards []forward.Forward
	Rules    forward.Rules
}

// PlanOf reads a configuration. Whoever is in the address book may connect, and who is
// allowed something.
func PlanOf(c *config.Config) (Plan, error) {
	p := Plan{Peers: []peer.ID{}}
	for _, name := range c.Names() {
		p.Peers = append(p.Peers, c.Peers[name])
	}
	var errs []error
	for _, f := range c.Forwards {
		one, err := forwardOf(f, filepath.Dir(c.Path))
		if err == nil {
			err = p.clash(one)
		}
		if err != nil {
			errs = append(errs, c.Wrong(f.At, "forward", err))
			continue
		}
		p.Forwards = append(p.Forwards, one)
	}
	for _, a := range c.Allows {
		r, err := ruleOf(a, filepath.Dir(c.Path))
		if err != nil {
			errs = append(errs, c.Wrong(a.At, "allow", err))
			continue
		}
		p.Rules = append(p.Rules, r)
		if !r.Peer.IsZero() && !slices.Contains(p.Peers, r.Peer) {
			p.Peers = append(p.Peers, r.Peer)
		}
	}
	return p, errors.Join(errs...)
}

// introduced are whom the server may introduce.
func (p Plan) introduced() []peer.ID {
	if len(p.Peers) > rendezvous.MaxPeers {
		return nil
	}
	return p.Peers
}

// clash finds another forward that listens at the same place.
func (p Plan) clash(f forward.Forward) error {
	for _, o := range p.Forwards {
		same := o.Listen == f.Listen && o.Reverse == f.Reverse && (!f.Reverse || o.Peer == f.Peer)
		if _, port, err := net.SplitHostPort(f.Listen.Address); same && (err != nil || port != "0") {
			return fmt.Errorf("another forward listens on %s already; choose another port", f.Listen)
		}
	}
	return nil
}

func forwardOf(c config.Forward, dir string) (f forward.Forward, err error) {
	f = forward.Forward{Peer: c.Peer, Reverse: c.Reverse}
	listen, err := withProtocol(c.Listen, c.Protocol)
	if err != nil {
		return f, err
	}
	to, err := withProtocol(c.To, c.Protocol)
	if err != nil {
		return f, err
	}
	if f.Listen, f.To, err = forward.Parse(listen, to); err != nil {
		return f, err
	}
	if f.Listen.Network == forward.Stdio {
		return f, errors.New("a daemon has no standard input and output to forward")
	}
	here := &f.Listen
	if f.Reverse {
		here = &f.To
	}
	*here = under(dir, *here)
	return f, f.Check()
}

func ruleOf(c config.Allow, dir string) (forward.Rule, error) {
	to, err := withProtocol(c.To, c.Protocol)
	if err != nil {
		return forward.Rule{}, err
	}
	r, err := forward.ParseRule(to)
	if err != nil {
		return r, err
	}
	r.Peer, r.Reverse = c.Peer, c.Reverse
	r.Path = under(dir, forward.Endpoint{Network: r.Network, Address: r.Path}).Address
	return r, nil
}

// withProtocol is an endpoint with its protocol behind it.
func withProtocol(text, protocol string) (string, error) {
	if protocol == "" {
		return text, nil
	}
	if strings.HasPrefix(text, "unix:") {
		return "", fmt.Errorf("%q is a Unix socket, and has no protocol; leave that out", text)
	}
	i := strings.LastIndexByte(text, '/')
	switch {
	case i < 0:
		return text + "/" + protocol, nil
	case text[i+1:] != protocol:
		return "", fmt.Errorf("%q contradicts protocol = %q", text, protocol)
	}
	return text, nil
}

// under makes the path of a Unix socket relative to a folder absolute.
func under(dir string, e forward.Endpoint) forward.Endpoint {
	if e.Network == forward.Unix && !filepath.IsAbs(e.Address) {
		e.Address = filepath.Join(dir, e.Address)
	}
	return e
}
