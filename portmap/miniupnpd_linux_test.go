package portmap_test

import (
	"net/netip"
	"testing"

	"bodkin/portmap"
)

func wildcard(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

func TestDaemonMapsAndForwards(t *testing.T) {
	t.Parallel()
	for _, by := range []portmap.Protocol{portmap.PCP, portmap.NATPMP} {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			h := startHome(t, daemonOptions{NATPMP: true})
			c, _ := h.client("a", by)
			s := h.server("a", "udp4")
			m, err := c.Map(portmap.Request{Internal: wildcard(portOf(s))})
			if err != nil {
				t.Fatal(err)
			}
			g := h.granted(m)
			if g.External.Addr() != h.Box("home").Addr() || g.DoubleNAT() {
				t.Errorf("granted %+v", g)
			}
			if !h.arrives(g.External, s) {
				t.Error("the router does not forward")
			}
			_ = c.Close()
			if h.arrives(g.External, s) {
				t.Error("the router forwards what was deleted")
			}
		})
	}
}
