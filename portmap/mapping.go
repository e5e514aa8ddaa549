package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Mapping is a request that is kept. It may have a Grant at each of our addresses
// that has a gateway: of several routers, and of both address families.
type Mapping struct {
	client *Client
	ask    ask // without an address
	want   netip.Addr
	closed context.Context
	cancel context.CancelFunc

	// Under the Client's mutex:
	lanes   []*lane
	changed chan struct{} // closed and replaced when grants change
}

var errRequest = errors.New("portmap: bad request")

func (r Request) check() error {
	a := r.Internal.Addr()
	switch {
	case r.Internal.Port() == 0:
		return fmt.Errorf("%w: the internal port is 0", errRequest)
	case a.IsLoopback() || a.IsMulticast():
		return fmt.Errorf("%w: no router can reach %v", errRequest, a)
	case r.Lifetime < 0 || r.Lifetime > 0 && r.Lifetime < time.Second:
		return fmt.Errorf("%w: a lifetime of %v; it has whole seconds", errRequest, r.Lifetime)
	case r.Peer.IsValid() && (r.Exact || len(r.Remotes) > 0):
		return fmt.Errorf("%w: Peer goes with neither Exact nor Remotes", errRequest)
	case len(r.Remotes) > maxRemotes:
		return fmt.Errorf("%w: %d remotes, more than %d", errRequest, len(r.Remotes), maxRemotes)
	}
	for _, x := range r.Remotes {
		if !x.Prefix.IsValid() || x.Prefix.Bits() == 0 && x.Prefix.Addr().Is6() {
			return fmt.Errorf("%w: remote %v; without remotes all may use the mapping", errRequest, x.Prefix)
		}
	}
	return nil
}

const maxRemotes = 16

func newMapping(c *Client, r Request) *Mapping {
	m := &Mapping{
		client: c, want: r.Internal.Addr().Unmap(), changed: make(chan struct{}),
		ask: ask{
			transport: r.Transport, internal: r.Internal, external: r.External, exact: r.Exact,
			lifetime: r.Lifetime, remotes: slices.Clone(r.Remotes), peer: r.Peer, text: r.Name,
		},
	}
	if m.ask.external == 0 {
		m.ask.external = r.Internal.Port()
	}
	if m.ask.lifetime == 0 {
		m.ask.lifetime = defaultLifetime
	}
	if m.ask.text == "" {
		m.ask.text = defaultName
	}
	m.ask.nonce = r.Nonce
	if r.Nonce == (Nonce{}) {
		_, _ = rand.Read(m.ask.nonce[:])
	}
	m.closed, m.cancel = context.WithCancel(c.ctx)
	return m
}

// Grants are those in force now: the first address's first, IPv4 before IPv6.
func (m *Mapping) Grants() (out []Grant) {
	m.client.mu.Lock()
	defer m.client.mu.Unlock()
	for _, l := range m.lanes {
		if l.serving != nil {
			out = append(out, l.grant)
		}
	}
	slices.SortFunc(out, func(a, b Grant) int { return a.Internal.Compare(b.Internal) })
	return out
}

// Changed is closed when Grants may say something else than now.
func (m *Mapping) Changed() <-chan struct{} {
	m.client.mu.Lock()
	defer m.client.mu.Unlock()
	return m.changed
}

// notify wakes those who wait for a change; the Client's mutex is held.
func (m *Mapping) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Wait returns the first Grant, as soon as there is one. When ctx ends before, the
// error says also why there is none so far.
func (m *Mapping) Wait(ctx context.Context) (Grant, error) {
	for {
		changed := m.Changed()
		if g := m.Grants(); len(g) > 0 {
			return g[0], nil
		}
		select {
		case <-changed:
		case <-m.closed.Done():
			return Grant{}, ErrClosed
		case <-ctx.Done():
			return Grant{}, errors.Join(m.Err(), ctx.Err())
		}
	}
}

// Err is why there is no Grant, nil if there is one.
func (m *Mapping) Err() error {
	if len(m.Grants()) > 0 {
		return nil
	}
	m.client.mu.Lock()
	lanes := slices.Clone(m.lanes)
	var errs []error
	for _, l := range lanes {
		errs = append(errs, l.err)
	}
	m.client.mu.Unlock()
	for _, l := range lanes {
		_, more := m.client.speakers(l)
		errs = append(errs, more...)
	}
	return m.client.why(errs)
}

// Close deletes the mapping and returns when that is done, or after a second
// without an answer from the router.
func (m *Mapping) Close() error {
	c := m.client
	c.mu.Lock()
	m.cancel()
	c.mappings = slices.DeleteFunc(c.mappings, func(x *Mapping) bool { return x == m })
	lanes := m.lanes
	c.mu.Unlock()
	for _, l := range lanes {
		<-l.done
	}
	return nil
}

// follow gives the mapping a lane for each address of ours at which it is wanted
// and has a router; the Client's mutex is held.
func (m *Mapping) follow() {
	if m.closed.Err() != nil {
		return
	}
	want := m.addresses()
	m.lanes = slices.DeleteFunc(m.lanes, func(l *lane) bool {
		if slices.Contains(want, l.place) {
			return false
		}
		l.cancel(ErrNoGateway)
		return true
	})
	for _, p := range want {
		if !slices.ContainsFunc(m.lanes, func(l *lane) bool { return l.place == p }) {
			m.lanes = append(m.lanes, m.lane(p))
		}
	}
}

// place is an address to be mapped, and the interface by whose routers.
type place struct {
	device string
	addr   netip.Addr
}

func (m *Mapping) addresses() (out []place) {
	add := func(device string, a netip.Addr) {
		if p := (place{device, a}); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	ours := false
	for g := range m.client.routers {
		local := g.Local.Addr()
		ours = ours || local == m.want
		switch {
		case !m.want.IsValid(), m.want.IsUnspecified() && m.want.Is4() == local.Is4(), m.want == local:
			add(g.Interface, local)
		}
	}
	if ours || !m.want.IsValid() || m.want.IsUnspecified() {
		return out
	}
	for g := range m.client.routers {
		if g.Local.Contains(m.want) {
			add(g.Interface, m.want) // another host's
		}
	}
	return out
}
