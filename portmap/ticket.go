package portmap

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/igd"
)

// Ticket is a mapping that was left on its router, and what is needed to give it
// back or to renew it: by another program, at another time.
type Ticket struct {
	Grant

	Name string `json:"name,omitempty"`
	// Until is when the router ends the mapping by itself, zero for never.
	Until time.Time `json:"until,omitzero"`
	// Nonce is what PCP knows its owner by (see [Request].Nonce), ID UPnP's number
	// of a pinhole.
	Nonce Nonce  `json:"nonce,omitzero"`
	ID    string `json:"id,omitempty"`
}

// Nonce is the secret that a PCP mapping belongs to (RFC 6887 §11.1).
type Nonce [12]byte

// MarshalText makes it hexadecimal.
func (n Nonce) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, n[:]), nil }

// UnmarshalText reads that.
func (n *Nonce) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(n)) {
		return fmt.Errorf("a nonce of %d digits, not %d", len(b), hex.EncodedLen(len(n)))
	}
	_, err := hex.Decode(n[:], b)
	return err
}

// MarshalText makes it udp or tcp.
func (t Transport) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads that.
func (t *Transport) UnmarshalText(b []byte) error {
	for _, x := range []Transport{UDP, TCP} {
		if string(b) == x.String() {
			*t = x
			return nil
		}
	}
	return fmt.Errorf("%.20q is neither udp nor tcp", b)
}

// errDetached is why a lane ends whose grant is left on the router.
var errDetached = errors.New("detached")

// Detach ends a mapping here and leaves it on the routers, for as long as they
// granted it.
func (m *Mapping) Detach() (out []Ticket) {
	c := m.client
	c.mu.Lock()
	c.mappings = slices.DeleteFunc(c.mappings, func(x *Mapping) bool { return x == m })
	lanes := m.lanes
	for _, l := range lanes {
		l.cancel(errDetached)
	}
	c.mu.Unlock()
	for _, l := range lanes {
		<-l.done
		if l.server() == nil {
			continue
		}
		t := Ticket{Grant: l.grant, Name: m.ask.text, ID: l.had.id}
		if l.had.lifetime > 0 {
			t.Until = l.until
		}
		if t.Protocol == PCP {
			t.Nonce = m.ask.nonce
		}
		out = append(out, t)
	}
	m.cancel()
	return out
}

// Return gives a mapping back that was left on its router. That it is gone already
// is no error. Config's Network and Gateways are used.
func Return(ctx context.Context, config Config, t Ticket) error {
	config = config.withDefaults()
	gateways, err := config.Gateways()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(gateways, func(g Gateway) bool { return g.Addr == t.Gateway && g.Local.Addr() == t.Internal.Addr() })
	if i < 0 {
		i = slices.IndexFunc(gateways, func(g Gateway) bool { return g.Addr == t.Gateway })
	}
	if i < 0 || makers[t.Protocol] == nil {
		return fmt.Errorf("%w at %v; a mapping there ends with its lifetime, or on the router's page", ErrNoGateway, t.Gateway)
	}
	l := newLink(config.Network, gateways[i])
	defer l.close()
	p := makers[t.Protocol](surroundings{gateway: gateways[i], network: config.Network, link: l, reset: func() {}})
	if p == nil {
		return fmt.Errorf("%w: %v cannot be asked by %s", ErrCannot, t.Gateway, t.Protocol)
	}
	defer p.close()
	if t.Protocol == UPnP {
		if _, err := p.find(ctx); err != nil {
			return err
		}
	}
	return p.remove(ctx, ask{
		transport: t.Transport, internal: t.Internal, external: t.External.Port(), lifetime: t.Lifetime, nonce: t.Nonce,
	}, grant{external: t.External, lifetime: t.Lifetime, id: t.ID})
}

// Entry is a mapping that a router shows, whoever asked for it.
type Entry struct {
	Gateway   netip.Addr     `json:"gateway"`
	Transport Transport      `json:"transport"`
	Internal  netip.AddrPort `json:"internal"`
	External  netip.AddrPort `json:"external"`
	Name      string         `json:"name,omitempty"`
	// Lifetime is how long it still lives; zero is for ever.
	Lifetime time.Duration `json:"lifetime_ns"`
	// Enabled is false if the router's owner switched it off.
	Enabled bool `json:"enabled"`
}

// List is what the routers of this machine show of their mappings, by UPnP: the
// other protocols cannot ask. The error says which router did not answer.
func List(ctx context.Context, config Config) (out []Entry, err error) {
	config = config.withDefaults()
	gateways, err := config.Gateways()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, g := range gateways {
		if !g.Addr.Is4() {
			continue // it would show the same
		}
		entries, err := list(ctx, config.Network, g)
		out, errs = append(out, entries...), append(errs, err)
	}
	if len(errs) == 0 {
		return nil, ErrNoGateway
	}
	return out, errors.Join(errs...)
}

func list(ctx context.Context, n Network, g Gateway) (out []Entry, err error) {
	p := &upnpProtocol{surroundings: surroundings{gateway: g, network: n}}
	external, err := p.find(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.found().List(ctx)
	for _, m := range all {
		t := UDP
		if m.Protocol == igd.TCP {
			t = TCP
		}
		out = append(out, Entry{
			Gateway: g.Addr, Transport: t, Internal: m.Internal, External: netip.AddrPortFrom(external, m.External),
			Name: m.Name, Lifetime: m.Lease, Enabled: m.Enabled,
		})
	}
	if err != nil {
		return out, p.failed(ctx, err)
	}
	return out, nil
}
