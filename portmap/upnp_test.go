package portmap_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
)

func onlyUPnP(c *portmap.Config) { c.Protocols = []portmap.Protocol{portmap.UPnP} }

func TestUPnPMapsRenewsAndGivesBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behavior portmaptest.Behavior
		external string
		lifetime time.Duration
	}{
		"version 2":            {portmaptest.Behavior{}, "203.0.113.1:27015", time.Hour},
		"version 1":            {portmaptest.Behavior{UPnP: portmaptest.UPnP{Version1: true}}, "203.0.113.1:27015", time.Hour},
		"PPP":                  {portmaptest.Behavior{UPnP: portmaptest.UPnP{PPP: true}}, "203.0.113.1:27015", time.Hour},
		"3 s late":             {portmaptest.Behavior{Delay: 3 * time.Second}, "203.0.113.1:27015", time.Hour},
		"permanent leases":     {portmaptest.Behavior{UPnP: portmaptest.UPnP{OnlyPermanent: true}}, "203.0.113.1:27015", 0},
		"shortened lease":      {portmaptest.Behavior{MaxLifetime: 10 * time.Minute}, "203.0.113.1:27015", 10 * time.Minute},
		"port in use":          {portmaptest.Behavior{InUse: []uint16{27015}}, "203.0.113.1:27016", time.Hour},
		"private address":      {portmaptest.Behavior{Says: netip.MustParseAddr("10.9.8.7")}, "10.9.8.7:27015", time.Hour},
		"no external address":  {portmaptest.Behavior{Offline: true}, "invalid AddrPort", time.Hour},
		"redirect on the spot": {portmaptest.Behavior{UPnP: portmaptest.UPnP{Redirect: "/moved.xml"}}, "203.0.113.1:27015", time.Hour},
	} {
		for _, transport := range []portmap.Transport{portmap.UDP, portmap.TCP} {
			t.Run(name+" "+transport.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := begin(t, portmaptest.Options{Behavior: c.behavior}, onlyUPnP)
					r := game
					r.Transport, r.Name = transport, "a game"
					m := w.want(t, r)
					g := grant(t, m)
					if g.Protocol != portmap.UPnP || g.External.String() != c.external || g.Lifetime != c.lifetime || g.Pinhole() {
						t.Errorf("granted %+v", g)
					}
					if g.DoubleNAT() != c.behavior.Says.IsValid() {
						t.Errorf("double NAT: %v", g.DoubleNAT())
					}
					has := w.router.Mappings()
					if len(has) != 1 || has[0].Transport != transport || has[0].Internal != g.Internal || has[0].Name != "a game" {
						t.Fatalf("the router has %+v", has)
					}
					if c.lifetime > 0 {
						time.Sleep(3 * c.lifetime)
						if len(m.Grants()) != 1 || len(w.router.Mappings()) != 1 || len(w.seen(portmap.EventRenewed)) < 3 {
							t.Errorf("after three lifetimes: %+v, events %+v", w.router.Mappings(), w.events)
						}
					}
					w.close(t)
					if left := w.router.Mappings(); len(left) != 0 && c.behavior.Delay == 0 {
						t.Errorf("left behind: %+v", left)
					}
				})
			})
		}
	}
}

func TestUPnPRefusalSaysWhatToDo(t *testing.T) {
	t.Parallel()
	exact := game
	exact.Exact = true
	low := game
	low.External, low.Exact = 80, true
	for name, c := range map[string]struct {
		behavior portmaptest.Behavior
		request  portmap.Request
		want     error
		code     int
	}{
		"port in use":     {portmaptest.Behavior{InUse: []uint16{27015}}, exact, portmap.ErrInUse, 718},
		"same port only":  {portmaptest.Behavior{UPnP: portmaptest.UPnP{SamePort: true}}, low, portmap.ErrUnsupported, 724},
		"denied":          {portmaptest.Behavior{Deny: true}, game, portmap.ErrDenied, 606},
		"full":            {portmaptest.Behavior{Full: true}, game, portmap.ErrResources, 728},
		"silent":          {portmaptest.Behavior{Silent: true}, game, portmap.ErrSilent, 0},
		"UPnP is off":     {portmaptest.Behavior{UPnP: portmaptest.UPnP{Off: true}}, game, portmap.ErrSilent, 0},
		"another machine": {portmaptest.Behavior{}, portmap.Request{Internal: netip.MustParseAddrPort("192.168.1.3:80")}, portmap.ErrDenied, 606},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: c.behavior}, onlyUPnP)
				m := w.want(t, c.request)
				time.Sleep(30 * time.Second)
				err := m.Err()
				var refused *portmap.RefusedError
				if !errors.Is(err, c.want) || errors.As(err, &refused) != (c.code != 0) || refused != nil && (refused.Code != c.code || refused.Hint == "") {
					t.Errorf("%v, want %v", err, c.want)
				}
				if len(m.Grants()) != 0 || len(w.router.Mappings()) != 0 {
					t.Errorf("granted %+v", m.Grants())
				}
				w.close(t)
			})
		})
	}
}

func TestUPnPOfVersion1TakesAnotherPort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{
			InUse: []uint16{27015}, UPnP: portmaptest.UPnP{Version1: true},
		}}, onlyUPnP)
		m := w.want(t, game)
		g := grant(t, m)
		if p := g.External.Port(); p == 27015 || p < 1024 {
			t.Errorf("granted %+v", g)
		}
		time.Sleep(2 * time.Hour)
		if now := m.Grants(); len(now) != 1 || now[0].External != g.External {
			t.Errorf("after two lifetimes %+v, at first %+v", now, g)
		}
		w.close(t)
	})
}

func TestUPnPNoticesRebootAndNewAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{}, onlyUPnP)
		m := w.want(t, game)
		grant(t, m)
		time.Sleep(100 * time.Second)
		w.router.Reboot(false)
		time.Sleep(70 * time.Second)
		if len(w.router.Mappings()) != 1 || len(w.seen(portmap.EventRebooted)) != 1 {
			t.Errorf("after a reboot the router has %+v; events %+v", w.router.Mappings(), w.events)
		}
		w.router.SetExternal(netip.MustParseAddr("203.0.113.99"))
		time.Sleep(70 * time.Second)
		if g := m.Grants(); len(g) != 1 || g[0].External.String() != "203.0.113.99:27015" {
			t.Errorf("after a new address: %+v", g)
		}
		w.close(t)
	})
}

var dual = portmaptest.Options{
	Inside6: netip.MustParseAddr("2001:db8:7::1"), Host6: netip.MustParseAddr("2001:db8:7::2"),
}

func TestUPnPOpensPinholes(t *testing.T) {
	t.Parallel()
	for _, transport := range []portmap.Transport{portmap.UDP, portmap.TCP} {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, dual, onlyUPnP)
				m := w.want(t, portmap.Request{Transport: transport, Internal: netip.MustParseAddrPort("[::]:443")})
				g := grant(t, m)
				if !g.Pinhole() || g.External.String() != "[2001:db8:7::2]:443" || g.Lifetime != time.Hour {
					t.Errorf("granted %+v", g)
				}
				time.Sleep(3 * time.Hour)
				has := w.router.Mappings()
				if len(has) != 1 || has[0].Transport != transport || has[0].External != g.External {
					t.Errorf("after three lifetimes the router has %+v", has)
				}
				w.router.Reboot(false)
				time.Sleep(70 * time.Second)
				if len(w.router.Mappings()) != 1 {
					t.Errorf("after a reboot the router has %+v", w.router.Mappings())
				}
				w.close(t)
				if left := w.router.Mappings(); len(left) != 0 {
					t.Errorf("left behind: %+v", left)
				}
			})
		})
	}
}

func TestUPnPPinholeThatNeedsNone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		upnp portmaptest.UPnP
		want error
	}{
		"no firewall":   {portmaptest.UPnP{NoFirewall: true}, nil},
		"shut firewall": {portmaptest.UPnP{ShutFirewall: true}, portmap.ErrDenied},
		"version 1":     {portmaptest.UPnP{Version1: true}, portmap.ErrCannot},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := dual
				o.Behavior.UPnP = c.upnp
				w := begin(t, o, onlyUPnP)
				m := w.want(t, portmap.Request{Internal: netip.MustParseAddrPort("[::]:443")})
				time.Sleep(30 * time.Second)
				if err := m.Err(); !errors.Is(err, c.want) || (err == nil) != (len(m.Grants()) == 1) {
					t.Errorf("%v with grants %+v", err, m.Grants())
				}
				if has := w.router.Mappings(); len(has) != 0 {
					t.Errorf("the router has %+v", has)
				}
				w.close(t)
			})
		})
	}
}

func TestAllProtocolsLeaveOneMapping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{}, func(c *portmap.Config) { c.Protocols = nil })
		m := w.want(t, game)
		grant(t, m)
		time.Sleep(time.Minute)
		if has := w.router.Mappings(); len(has) != 1 {
			t.Errorf("the router has %+v", has)
		}
		if found := w.seen(portmap.EventFound); len(found) != 3 {
			t.Errorf("found %+v", found)
		}
		w.close(t)
	})
}
