package portmap_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"bodkin/portmap"
)

// PCP and NAT-PMP against the real daemon, each alone.

func wildcard(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

// each runs a test with each of the protocols.
func each(t *testing.T, o daemonOptions, f func(t *testing.T, h *home, by portmap.Protocol)) {
	t.Helper()
	o.NATPMP = true
	for _, by := range []portmap.Protocol{portmap.PCP, portmap.NATPMP} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			f(t, startHome(t, o), by)
		})
	}
}

func want(t *testing.T, c *portmap.Client, r portmap.Request) *portmap.Mapping {
	t.Helper()
	m, err := c.Map(r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDaemonMapsAndForwards(t *testing.T) {
	t.Parallel()
	each(t, daemonOptions{}, func(t *testing.T, h *home, by portmap.Protocol) {
		c, _ := h.client("a", by)
		s := h.server("a", "udp4")
		g := h.granted(want(t, c, portmap.Request{Internal: wildcard(portOf(s))}))
		if g.External.Addr() != h.Box("home").Addr() || g.DoubleNAT() || g.Lifetime != time.Hour {
			t.Errorf("granted %+v", g)
		}
		if !h.arrives(g.External, s) {
			t.Error("the router does not forward")
		}
		// NAT-PMP's own program sees the same mapping, at the same port.
		out := h.program("a", "natpmpc", "-g", h.gateway(), "-a", "0", strconv.Itoa(int(portOf(s))), "udp", "3600")
		if by == portmap.NATPMP && !strings.Contains(out, "Mapped public port "+strconv.Itoa(int(g.External.Port()))) {
			t.Errorf("natpmpc says:\n%s", out)
		}
		_ = c.Close()
		if h.program("a", "natpmpc", "-g", h.gateway(), "-a", "0", strconv.Itoa(int(portOf(s))), "udp", "0"); h.arrives(g.External, s) {
			t.Error("the router forwards what was deleted")
		}
	})
}

func TestDaemonForwardsTCP(t *testing.T) {
	t.Parallel()
	each(t, daemonOptions{}, func(t *testing.T, h *home, by portmap.Protocol) {
		l, err := h.Host("a").Listen(t.Context(), "tcp4", wildcard(8080))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		c, _ := h.client("a", by)
		g := h.granted(want(t, c, portmap.Request{Internal: wildcard(8080), External: 9090, Transport: portmap.TCP}))
		if g.External.Port() != 9090 {
			t.Errorf("granted %+v", g)
		}
		go func() {
			if in, err := l.Accept(); err == nil {
				_, _ = in.Write([]byte("hello"))
				_ = in.Close()
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := h.Host("world").Dial(ctx, "tcp4", g.External)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = out.Close() }()
		if b, err := io.ReadAll(out); string(b) != "hello" {
			t.Errorf("read %q, %v", b, err)
		}
	})
}

// The daemon shortens what PCP asks for, and not what NAT-PMP does.
func TestDaemonShortensTheLifetimeAndRenews(t *testing.T) {
	t.Parallel()
	each(t, daemonOptions{MaxLifetime: 8 * time.Second}, func(t *testing.T, h *home, by portmap.Protocol) {
		c, events := h.client("a", by)
		s := h.server("a", "udp4")
		r := portmap.Request{Internal: wildcard(portOf(s))}
		if by == portmap.NATPMP {
			r.Lifetime = 8 * time.Second
		}
		m := want(t, c, r)
		g := h.granted(m)
		if g.Lifetime != 8*time.Second {
			t.Errorf("granted %+v", g)
		}
		for range 2 { // beyond the first lifetime
			awaitEvent(t, events, portmap.EventRenewed)
		}
		if gs := m.Grants(); len(gs) != 1 || gs[0].External != g.External {
			t.Errorf("grants %+v, began as %v", gs, g.External)
		}
		if !h.arrives(g.External, s) {
			t.Error("the router does not forward any more")
		}
	})
}

func TestDaemonThatRestartsIsAskedAgain(t *testing.T) {
	t.Parallel()
	each(t, daemonOptions{}, func(t *testing.T, h *home, by portmap.Protocol) {
		c, events := h.client("a", by)
		s := h.server("a", "udp4")
		m := want(t, c, portmap.Request{Internal: wildcard(portOf(s))})
		g := h.granted(m)
		h.age() // else its new epoch is no news: RFC 6886 §3.6 and RFC 6887 §8.5 allow for two seconds
		h.stopDaemon()
		h.forget()
		if h.arrives(g.External, s) {
			t.Error("the router forwards although its daemon forgot")
		}
		h.startDaemon()
		awaitEvent(t, events, portmap.EventRebooted)
		awaitEvent(t, events, portmap.EventRenewed)
		if gs := m.Grants(); len(gs) != 1 || gs[0].External != g.External {
			t.Errorf("grants %+v, were %v", gs, g.External)
		}
		if !h.arrives(g.External, s) {
			t.Error("the router does not forward after its restart")
		}
	})
}

func TestDaemonWhosePortIsInUse(t *testing.T) {
	t.Parallel()
	each(t, daemonOptions{}, func(t *testing.T, h *home, by portmap.Protocol) {
		b, _ := h.client("b", by)
		taken := h.granted(want(t, b, portmap.Request{Internal: wildcard(5000), External: 7000}))
		c, _ := h.client("a", by)
		s := h.server("a", "udp4")
		g := h.granted(want(t, c, portmap.Request{Internal: wildcard(portOf(s)), External: taken.External.Port()}))
		if g.External == taken.External {
			t.Errorf("granted %v twice", g.External)
		}
		if !h.arrives(g.External, s) {
			t.Error("the router does not forward")
		}
		exact := want(t, c, portmap.Request{Internal: wildcard(6001), External: taken.External.Port(), Exact: true})
		if err := h.refused(exact); !errors.Is(err, portmap.ErrInUse) {
			t.Errorf("refused with %v", err)
		}
	})
}

func TestDaemonThatDeniesByPolicy(t *testing.T) {
	t.Parallel()
	rules := []string{"allow 7000-7999 0.0.0.0/0 7000-7999", "deny 0-65535 0.0.0.0/0 0-65535"}
	each(t, daemonOptions{Rules: rules, Quiet: true}, func(t *testing.T, h *home, by portmap.Protocol) {
		c, _ := h.client("a", by)
		if g := h.granted(want(t, c, portmap.Request{Internal: wildcard(7000)})); g.External.Port() != 7000 {
			t.Errorf("granted %+v", g)
		}
		err := h.refused(want(t, c, portmap.Request{Internal: wildcard(6000)}))
		if !errors.Is(err, portmap.ErrDenied) {
			t.Errorf("refused with %v", err)
		}
	})
}

func TestDaemonOpensIPv6Pinholes(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{NATPMP: true, IPv6: true})
	c, _ := h.client("a", portmap.PCP)
	s := h.server("a", "udp6")
	at := netip.AddrPortFrom(h.Host("a").Addr6(), portOf(s))
	if h.arrives(at, s) {
		t.Fatal("the firewall is open before it was asked")
	}
	g := h.granted(want(t, c, portmap.Request{Internal: netip.AddrPortFrom(netip.IPv6Unspecified(), portOf(s))}))
	if !g.Pinhole() || g.External != at {
		t.Errorf("granted %+v", g)
	}
	if !h.arrives(g.External, s) {
		t.Error("the firewall is closed")
	}
	_ = c.Close()
	h.reset()
	if h.arrives(at, s) {
		t.Error("the firewall is open after the pinhole was given back")
	}
}

// RFC 6887 §12: the daemon keeps the mapping of a flow.
func TestDaemonKeepsTheMappingOfAFlow(t *testing.T) {
	t.Parallel()
	h := startHome(t, daemonOptions{NATPMP: true})
	c, _ := h.client("a", portmap.PCP)
	s := h.server("a", "udp4")
	flow := netip.AddrPortFrom(h.Host("world").Addr(), 9)
	g := h.granted(want(t, c, portmap.Request{Internal: wildcard(portOf(s)), Peer: flow}))
	if g.Protocol != portmap.PCP || g.External.Addr() != h.Box("home").Addr() || g.External.Port() == 0 {
		t.Errorf("granted %+v", g)
	}
}

func TestDaemonMapsThePortOfAKilledProgramAgain(t *testing.T) {
	t.Parallel()
	each(t, daemonOptions{}, func(t *testing.T, h *home, by portmap.Protocol) {
		s := h.server("a", "udp4")
		r := portmap.Request{Internal: wildcard(portOf(s))}
		killed, _ := h.client("a", by)
		old := want(t, killed, r)
		before := h.granted(old)
		old.Detach()
		c, _ := h.client("a", by)
		if g := h.granted(want(t, c, r)); g.External != before.External || !h.arrives(g.External, s) {
			t.Errorf("granted %+v, before %v", g, before.External)
		}
	})
}
