package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/internal/igd"
	"bodkin/natlab/netbed"
	"bodkin/portmap"
)

func TestUPnPDaemonMapsForwardsRenewsAndForgets(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true, MaxLifetime: time.Hour})
	c, events := h.client("a", portmap.UPnP)
	s := h.server("a", "udp4")
	m, err := c.Map(portmap.Request{Internal: wildcard(portOf(s)), Lifetime: 10 * time.Second, Name: "a game of ours"})
	if err != nil {
		t.Fatal(err)
	}
	g := h.granted(m)
	if g.External.Addr() != h.Box("home").Addr() || g.External.Port() != portOf(s) || g.DoubleNAT() || g.Lifetime != 10*time.Second {
		t.Errorf("granted %+v", g)
	}
	if !h.arrives(g.External, s) {
		t.Error("the router does not forward")
	}
	said := h.program("a", "upnpc", "-l")
	if want := regexp.MustCompile(fmt.Sprintf(`UDP +%d->%v .*a game of ours`, g.External.Port(), g.Internal)); !want.MatchString(said) {
		t.Errorf("upnpc does not see it:\n%s", said)
	}
	awaitEvent(t, events, portmap.EventRenewed)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if h.arrives(g.External, s) {
		t.Error("the router forwards what was deleted")
	}
	if said := h.program("a", "upnpc", "-l"); strings.Contains(said, "a game of ours") {
		t.Errorf("upnpc still sees it:\n%s", said)
	}
}

func TestUPnPDaemonMapsTCP(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true})
	c, _ := h.client("a", portmap.UPnP)
	l, err := h.Host("a").Listen(t.Context(), "tcp4", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	internal := netip.MustParseAddrPort(l.Addr().String())
	m, err := c.Map(portmap.Request{Transport: portmap.TCP, Internal: wildcard(internal.Port())})
	if err != nil {
		t.Fatal(err)
	}
	g := h.granted(m)
	world, err := h.Host("world").Dial(t.Context(), "tcp4", g.External)
	if err != nil {
		t.Fatalf("the router does not forward: %v", err)
	}
	_ = world.Close()
}

func TestUPnPDaemonThatRestartsIsAskedAgain(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true})
	c, events := h.client("a", portmap.UPnP)
	s := h.server("a", "udp4")
	m, err := c.Map(portmap.Request{Internal: wildcard(portOf(s)), Lifetime: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	g := h.granted(m)
	h.stopDaemon()
	h.forget()
	drain(events)
	if h.arrives(g.External, s) {
		t.Error("the router forwards although its daemon forgot")
	}
	h.startDaemon()
	awaitEvent(t, events, portmap.EventRenewed)
	if now := m.Grants(); len(now) != 1 || now[0].External != g.External {
		t.Errorf("granted %+v, before %+v", now, g)
	}
	if !h.arrives(g.External, s) {
		t.Error("the router does not forward after the restart")
	}
}

func TestUPnPDaemonGivesAnotherPortUnlessItMustBeThatOne(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true})
	a, _ := h.client("a", portmap.UPnP)
	b, _ := h.client("b", portmap.UPnP)
	s := h.server("b", "udp4")
	first, err := a.Map(portmap.Request{Internal: wildcard(27015)})
	if err != nil {
		t.Fatal(err)
	}
	g := h.granted(first)
	exact, err := b.Map(portmap.Request{Internal: wildcard(27016), External: 27015, Exact: true})
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Map(portmap.Request{Internal: wildcard(portOf(s)), External: 27015})
	if err != nil {
		t.Fatal(err)
	}
	got := h.granted(other)
	if got.External.Port() == g.External.Port() || !h.arrives(got.External, s) {
		t.Errorf("granted %+v beside %+v", got, g)
	}
	refusal(t, exact, portmap.ErrInUse, 718)
}

// refusal waits until a mapping was refused.
func refusal(t *testing.T, m *portmap.Mapping, want error, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		changed := m.Changed()
		var refused *portmap.RefusedError
		if err := m.Err(); errors.As(err, &refused) {
			if !errors.Is(err, want) || refused.Code != code || refused.Hint == "" {
				t.Errorf("refused with %v, want %v (%d)", err, want, code)
			}
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("not refused, but %+v, %v", m.Grants(), m.Err())
		}
	}
}

func TestUPnPDaemonDeniesByPolicy(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true, Rules: []string{"allow 20000-20100 0.0.0.0/0 1-65535", "deny 0-65535 0.0.0.0/0 0-65535"}})
	c, _ := h.client("a", portmap.UPnP)
	m, err := c.Map(portmap.Request{Internal: wildcard(27015), Exact: true})
	if err != nil {
		t.Fatal(err)
	}
	refusal(t, m, portmap.ErrDenied, 606)
	allowed, err := c.Map(portmap.Request{Internal: wildcard(20050)})
	if err != nil {
		t.Fatal(err)
	}
	if g := h.granted(allowed); g.External.Port() != 20050 {
		t.Errorf("granted %+v", g)
	}
}

func TestUPnPDaemonOpensPinholes(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true, IPv6: true})
	c, events := h.client("a", portmap.UPnP)
	s := h.server("a", "udp6")
	m, err := c.Map(portmap.Request{
		Internal: netip.AddrPortFrom(netip.IPv6Unspecified(), portOf(s)), Lifetime: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := h.granted(m)
	if !g.Pinhole() || g.External.Addr() != h.Host("a").Addr6() {
		t.Errorf("granted %+v", g)
	}
	if !h.arrives(g.External, s) {
		t.Error("the router does not let it in")
	}
	awaitEvent(t, events, portmap.EventRenewed)
	h.stopDaemon()
	h.forget()
	drain(events)
	if h.arrives(g.External, s) {
		t.Error("the router lets in what its daemon forgot")
	}
	h.startDaemon()
	awaitEvent(t, events, portmap.EventRenewed)
	if !h.arrives(g.External, s) {
		t.Error("the router does not let it in after its restart")
	}
	_ = c.Close()
	if h.arrives(g.External, s) {
		t.Error("the router lets in what was deleted")
	}
}

func TestUPnPDaemonBehindAnotherNAT(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true, Inner: true})
	c, _ := h.client("a", portmap.UPnP)
	m, err := c.Map(portmap.Request{Internal: wildcard(27015)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	// The inner router speaks nothing, and what is beyond it is not on our link.
	if g, err := m.Wait(ctx); !errors.Is(err, portmap.ErrSilent) {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestUPnPDaemonOfVersion1(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true, Rules: []string{"force_igd_desc_v1=yes", "allow 1-65535 0.0.0.0/0 1-65535"}})
	a, _ := h.client("a", portmap.UPnP)
	b, _ := h.client("b", portmap.UPnP)
	first, err := a.Map(portmap.Request{Internal: wildcard(27015)})
	if err != nil {
		t.Fatal(err)
	}
	h.granted(first)
	s := h.server("b", "udp4")
	other, err := b.Map(portmap.Request{Internal: wildcard(portOf(s)), External: 27015})
	if err != nil {
		t.Fatal(err)
	}
	// The router does not choose a port: it is asked until one is free.
	if g := h.granted(other); g.External.Port() == 27015 || !h.arrives(g.External, s) {
		t.Errorf("granted %+v", g)
	}
}

// dialer is a host's network as package igd wants it.
type dialer struct{ *netbed.Host }

func (d dialer) Dial(ctx context.Context, network string, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
	return d.Host.Dial(ctx, network, to)
}

func TestUPnPDaemonTellsOfItsPinholes(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{UPnP: true, IPv6: true})
	gateways, err := h.gateways("a")()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(gateways, func(g portmap.Gateway) bool { return g.Addr.Is6() })
	if i < 0 {
		t.Fatalf("gateways %+v", gateways)
	}
	g := gateways[i]
	d, err := igd.Find(t.Context(), igd.Link{Network: dialer{h.Host("a")}, Interface: g.Interface, Local: g.Local, Gateway: g.Addr})
	if err != nil {
		t.Fatal(err)
	}
	if enabled, allowed, err := d.Firewall(t.Context()); err != nil || !enabled || !allowed {
		t.Errorf("firewall %v, %v, %v", enabled, allowed, err)
	}
	s := h.server("a", "udp6")
	to := netip.AddrPortFrom(g.Local.Addr(), portOf(s))
	id, lease, err := d.Open(t.Context(), igd.UDP, to, time.Hour)
	if err != nil || lease != time.Hour {
		t.Fatalf("pinhole %d for %v, %v", id, lease, err)
	}
	if n, err := d.Packets(t.Context(), id); err != nil || n != 0 {
		t.Errorf("%d packets, %v", n, err)
	}
	if ok, err := d.Working(t.Context(), id); ok || igd.Code(err) != igd.NoPacketSent {
		t.Errorf("works: %v, %v", ok, err)
	}
	if !h.arrives(to, s) {
		t.Fatal("the router does not let it in")
	}
	// The nftables of this daemon count nothing: that it works is not to be learnt.
	if _, err := d.Packets(t.Context(), id); err != nil {
		t.Error(err)
	}
	if _, err := d.Update(t.Context(), id+1, time.Hour); igd.Code(err) == 0 {
		t.Errorf("another one: %v", err)
	}
	if err := d.Shut(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := d.Shut(t.Context(), id); err != nil {
		t.Errorf("when it was gone: %v", err)
	}
	if status, up, err := d.Status(t.Context()); status != "Connected" || err != nil {
		t.Errorf("%q for %v, %v", status, up, err)
	}
}

// drain forgets what happened until now.
func drain(events <-chan portmap.Event) {
	for {
		select {
		case <-events:
		default:
			return
		}
	}
}
