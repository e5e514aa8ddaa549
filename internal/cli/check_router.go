package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bodkin/nat"
	"bodkin/portmap"
)

// routers are what the routers of this machine said.
type routers struct {
	Speak  []string        `json:"protocols"`
	Grants []portmap.Grant `json:"grants"`
	// Checked is what the first grant is worth, as seen from outside.
	Checked *checked `json:"checked,omitempty"`
	Error   string   `json:"error,omitempty"`
	// Outer is the router behind ours, where there is one that has to translate, too.
	Outer *outerRouter `json:"outer,omitempty"`
}

// outerRouter is a router that ours is behind. From here it can be asked by NAT-PMP
// alone, which goes by the source of a request: it takes our router for its client,
// and maps the port that our router granted us.
type outerRouter struct {
	Addr  netip.Addr     `json:"address"`
	Speak bool           `json:"speaks"`
	Grant *portmap.Grant `json:"grant,omitempty"`
	Error string         `json:"error,omitempty"`
}

// askOuter asks the router behind ours for the port that ours granted, and gives it
// back.
func askOuter(ctx context.Context, c portmap.Config, at netip.Addr, inner portmap.Grant) *outerRouter {
	o := &outerRouter{Addr: at}
	c.Protocols = []portmap.Protocol{portmap.NATPMP}
	c.Gateways = func() ([]portmap.Gateway, error) {
		own := inner.Internal.Addr()
		return []portmap.Gateway{{Interface: inner.Interface, Addr: at, Local: netip.PrefixFrom(own, own.BitLen())}}, nil
	}
	client := portmap.Start(ctx, c)
	defer func() { _ = client.Close() }()
	mapping, err := client.Map(portmap.Request{
		Internal: netip.AddrPortFrom(netip.IPv4Unspecified(), inner.External.Port()), Lifetime: 2 * time.Minute, Name: "bodkin check",
	})
	if err == nil {
		within, cancel := context.WithTimeout(ctx, routerTime)
		defer cancel()
		_, err = mapping.Wait(within)
		if grants := mapping.Grants(); len(grants) > 0 {
			o.Grant, err = &grants[0], nil
		}
	}
	for _, r := range client.Routers() {
		o.Speak = o.Speak || slices.ContainsFunc(r.Protocols, func(p portmap.Spoken) bool { return p.Found })
	}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

// String is what the router behind ours said.
func (o *outerRouter) String() string {
	switch {
	case o.Grant != nil:
		return fmt.Sprintf("the router behind it, %v, grants %v by %s", o.Addr, o.Grant.External, o.Grant.Protocol)
	case o.Speak:
		return fmt.Sprintf("the router behind it, %v, refuses: %s", o.Addr, o.Error)
	}
	return fmt.Sprintf("the router behind it, %v, does not answer", o.Addr)
}

// secondRouter is the router behind ours, by the way of packets: the second, if its
// address is no public one.
func secondRouter(hops []netip.Addr) (netip.Addr, bool) {
	if len(hops) < 2 || !hops[1].IsValid() {
		return netip.Addr{}, false
	}
	return hops[1], hops[1].IsPrivate() || carrierNAT.Contains(hops[1])
}

// asking is under way with the routers, for the port of a socket of ours.
type asking struct {
	client  *portmap.Client
	mapping *portmap.Mapping
	socket  net.PacketConn
	outer   portmap.Config // for the router behind ours
	err     error
}

// routerTime is how long routers have to answer after everything else is known.
const routerTime = 2 * time.Second

// askRouters begins.
func askRouters(ctx context.Context, c portmap.Config) *asking {
	a := &asking{}
	var lc net.ListenConfig
	if a.socket, a.err = lc.ListenPacket(ctx, "udp4", "0.0.0.0:0"); a.err != nil {
		return a
	}
	at := a.socket.LocalAddr().(*net.UDPAddr).AddrPort()
	a.client = portmap.Start(ctx, c)
	a.mapping, a.err = a.client.Map(portmap.Request{
		Internal: netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), Lifetime: 2 * time.Minute, Name: "bodkin check",
	})
	return a
}

// answers waits a little, lets the server send to what was granted, and gives that
// back. Of nobody asked there is nothing.
func (a *asking) answers(ctx context.Context, server nat.Server, hops []netip.Addr) *routers {
	if a == nil {
		return nil
	}
	r := &routers{Speak: []string{}, Grants: []portmap.Grant{}}
	if a.mapping != nil {
		within, cancel := context.WithTimeout(ctx, routerTime)
		defer cancel()
		_, a.err = a.mapping.Wait(within)
		r.Grants = append(r.Grants, a.mapping.Grants()...)
	}
	if len(r.Grants) > 0 && r.Grants[0].External.Addr().IsValid() && server.IPv4.IsValid() {
		c := verdict(ctx, server.IPv4, a.socket, r.Grants[0], "")
		r.Checked = &c
	}
	if at, ok := secondRouter(hops); ok && len(r.Grants) > 0 {
		r.Outer = askOuter(ctx, a.outer, at, r.Grants[0])
	}
	if a.client != nil {
		for _, router := range a.client.Routers() {
			for _, p := range router.Protocols {
				if p.Found {
					r.Speak = append(r.Speak, string(p.Protocol))
				}
			}
		}
		_ = a.client.Close()
	}
	if a.socket != nil {
		_ = a.socket.Close()
	}
	if a.err != nil && len(r.Grants) == 0 {
		r.Error = a.err.Error()
	}
	return r
}

// words is what the routers said, beside what the server saw.
func (r *routers) words(seen nat.Report) string {
	if len(r.Grants) == 0 {
		if len(r.Speak) > 0 {
			return "refused by the router, which speaks " + strings.Join(r.Speak, ", ") + ": " + r.Error
		}
		return "the router offers none"
	}
	g := r.Grants[0]
	text := fmt.Sprintf("the router grants %v by %s", g.External, g.Protocol)
	switch {
	case r.Checked != nil && r.Checked.Check != notChecked:
		text += "; " + r.Checked.String()
	case outer(g, seen):
		text += ", which is not the address that the server sees: another NAT is behind it"
	}
	if r.Outer != nil {
		text += "; " + r.Outer.String()
	}
	return text
}

// works reports whether a port was granted that is good for something, as far as is
// known.
func (r *routers) works(seen nat.Report) bool {
	return r != nil && len(r.Grants) > 0 && !outer(r.Grants[0], seen) && (r.Checked == nil || !r.Checked.failed())
}

// outer reports whether a router granted what is not public: it is behind another
// NAT itself.
func outer(g portmap.Grant, r nat.Report) bool {
	a := g.External.Addr()
	return g.DoubleNAT() || a.Is4() && len(r.Public) > 0 && !slices.Contains(r.Public, a)
}

// carrierNAT are the addresses between a carrier's NAT and its customers (RFC 6598).
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// levels is how many NATs there are at the least, by what the routers say, too.
func levels(r nat.Report, asked *routers, hops []netip.Addr) nat.Finding[int] {
	f := r.Levels
	more := func(evidence string) {
		f.Value = max(f.Value, 2)
		f.Evidence = append(slices.Clone(f.Evidence), evidence)
	}
	if f.Value == 0 {
		return f
	}
	for i, h := range hops {
		if i > 0 && carrierNAT.Contains(h) && !carrierNAT.Contains(hops[0]) {
			more(fmt.Sprintf("router %d on the way is %v, of 100.64.0.0/10, which carriers use behind their NATs (RFC 6598)", i+1, h))
			break
		}
	}
	if asked != nil && len(asked.Grants) > 0 && outer(asked.Grants[0], r) {
		more(fmt.Sprintf("the router's address outside is %v, by its own word", asked.Grants[0].External.Addr()))
	}
	return f
}
