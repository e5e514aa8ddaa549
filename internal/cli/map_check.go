package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"bodkin/internal/sock"
	"bodkin/portmap"
	"bodkin/rendezvous"
)

// Verdicts of a check beside those of portmap.
const (
	notChecked portmap.Verdict = "not checked"
	// hairpin: it answered to us, by way of the router. Others may fare worse.
	hairpin portmap.Verdict = "hairpin"
)

// checked is what a check found.
type checked struct {
	Check portmap.Verdict `json:"check"`
	Why   string          `json:"why"`
}

func (c checked) String() string { return string(c.Check) + ": " + c.Why }

func (c checked) failed() bool { return c.Check == portmap.Unreachable || c.Check == portmap.NotOurs }

// portCheck checks grants from outside; the nil one has nobody outside.
type portCheck struct {
	servers []netip.AddrPort
}

// checker looks the server up that checks.
func (a *app) checker(ctx context.Context) (*portCheck, error) {
	if a.node.server == "" {
		return nil, nil
	}
	url, err := rendezvous.ParseURL(a.node.server)
	if err != nil {
		return nil, &codeError{codeUsage, err}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", url.Host)
	if err != nil {
		return nil, &codeError{codeNoServer, fmt.Errorf("server that checks: %w", err)}
	}
	var c portCheck
	for _, x := range addrs {
		c.servers = append(c.servers, netip.AddrPortFrom(x.Unmap(), url.Port))
	}
	return &c, nil
}

// hairpinTime is how long a connection by way of our own router may take.
const hairpinTime = 2 * time.Second

// grant says what is known of a grant, and how.
func (c *portCheck) grant(ctx context.Context, client *portmap.Client, g portmap.Grant) checked {
	switch {
	case !g.External.Addr().IsValid():
		return checked{notChecked, "the router does not know its address outside"}
	case g.Transport == portmap.TCP:
		return hairpinned(ctx, g)
	case c == nil:
		return checked{notChecked, "name a server with --server that sends a packet to it"}
	}
	server, ok := c.server(g.External.Addr().Is4())
	if !ok {
		return checked{notChecked, "the server has no address of this family"}
	}
	at, err := sock.System{}.ListenPacket(ctx, network("udp", g.Internal), g.Internal)
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return checked{notChecked, fmt.Sprintf("%v is another machine: ask from there", g.Internal.Addr())}
	case errors.Is(err, syscall.EADDRINUSE):
		return c.beside(ctx, client, g, server)
	case err != nil:
		return checked{notChecked, err.Error()}
	}
	defer func() { _ = at.Close() }()
	return verdict(ctx, server, at, g, "")
}

func (c *portCheck) server(is4 bool) (netip.AddrPort, bool) {
	for _, s := range c.servers {
		if s.Addr().Is4() == is4 {
			return s, true
		}
	}
	return netip.AddrPort{}, false
}

// beside checks another port in place of one that a program has, which would get
// the packet.
func (c *portCheck) beside(ctx context.Context, client *portmap.Client, g portmap.Grant, server netip.AddrPort) checked {
	at, err := sock.System{}.ListenPacket(ctx, network("udp", g.Internal), netip.AddrPortFrom(g.Internal.Addr(), 0))
	if err != nil {
		return checked{notChecked, err.Error()}
	}
	defer func() { _ = at.Close() }()
	anywhere := netip.IPv6Unspecified()
	if g.Internal.Addr().Is4() {
		anywhere = netip.IPv4Unspecified()
	}
	port := at.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	m, err := client.Map(portmap.Request{Internal: netip.AddrPortFrom(anywhere, port), Lifetime: 2 * time.Minute})
	if err != nil {
		return checked{notChecked, err.Error()}
	}
	defer func() { _ = m.Close() }()
	within, cancel := context.WithTimeout(ctx, mapWait)
	defer cancel()
	other, ok := grantAt(within, m, g.Internal.Addr())
	if !ok {
		return checked{notChecked, "a program here has the port, and the router maps no second one to check in its place"}
	}
	return verdict(ctx, server, at, other, fmt.Sprintf(" (port %d in its place, as a program here has the port)", other.External.Port()))
}

// grantAt waits for a mapping's grant at an address of ours.
func grantAt(ctx context.Context, m *portmap.Mapping, a netip.Addr) (portmap.Grant, bool) {
	for {
		changed := m.Changed()
		for _, g := range m.Grants() {
			if g.Internal.Addr() == a && g.External.Addr().IsValid() {
				return g, true
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return portmap.Grant{}, false
		}
	}
}

func verdict(ctx context.Context, server netip.AddrPort, at net.PacketConn, g portmap.Grant, how string) checked {
	seen, arrived, err := rendezvous.Reach(ctx, sock.System{}, server, at, g.External)
	switch {
	case err != nil:
		return checked{notChecked, err.Error()}
	case seen != g.External.Addr():
		return checked{portmap.NotOurs, fmt.Sprintf("the internet sees this machine at %v, not at %v: there is another NAT beyond the router, or another way out", seen, g.External.Addr())}
	case !arrived:
		return checked{portmap.Unreachable, "packets from the server did not arrive" + how + "; look for a firewall on this machine, on the router, or at the provider"}
	}
	return checked{portmap.Reachable, "a packet from the server arrived" + how}
}

// hairpinned connects to ourselves by way of the router: a weak sign, since routers
// need not let that through, and may let it through without forwarding for others.
func hairpinned(ctx context.Context, g portmap.Grant) checked {
	ctx, cancel := context.WithTimeout(ctx, hairpinTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network("tcp", g.External), g.External.String())
	if err != nil {
		return checked{notChecked, "TCP cannot be checked from outside; start the program and connect from another network"}
	}
	_ = conn.Close()
	return checked{hairpin, "it answers to this machine by way of the router, which is a good sign and no proof; connect from another network"}
}

func network(transport string, a netip.AddrPort) string {
	if a.Addr().Is4() {
		return transport + "4"
	}
	return transport + "6"
}
