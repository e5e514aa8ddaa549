package portmap_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
)

func TestDetachedMappingIsRenewedAndReturnedByAnother(t *testing.T) {
	t.Parallel()
	for _, by := range portmap.Protocols() {
		t.Run(string(by), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				only := func(c *portmap.Config) { c.Protocols = []portmap.Protocol{by} }
				w := begin(t, portmaptest.Options{}, only)
				m := w.want(t, game)
				grant(t, m)
				tickets := m.Detach()
				w.close(t)
				if len(tickets) != 1 || len(w.router.Mappings()) != 1 || !tickets[0].Until.Equal(time.Now().Add(time.Hour)) {
					t.Fatalf("tickets %+v, the router has %+v", tickets, w.router.Mappings())
				}
				b, err := json.Marshal(tickets[0])
				if err != nil {
					t.Fatal(err)
				}
				var ticket portmap.Ticket
				if err := json.Unmarshal(b, &ticket); err != nil || !ticket.Until.Equal(tickets[0].Until) || ticket.Nonce != tickets[0].Nonce {
					t.Fatalf("%s became %+v, %v", b, ticket, err)
				}

				config := portmap.Config{Network: w.router.Network(), Gateways: w.router.Gateways, Protocols: []portmap.Protocol{by}}
				time.Sleep(time.Minute)
				other := portmap.Start(t.Context(), config)
				r := game
				r.Nonce = ticket.Nonce
				again, err := other.Map(r)
				if err != nil {
					t.Fatal(err)
				}
				if g := grant(t, again); g.External != ticket.External {
					t.Errorf("granted %+v, before %+v", g, ticket)
				}
				again.Detach()
				_ = other.Close()
				if len(w.router.Mappings()) != 1 {
					t.Errorf("the router has %+v", w.router.Mappings())
				}
				if err := portmap.Return(t.Context(), config, ticket); err != nil {
					t.Error(err)
				}
				if len(w.router.Mappings()) != 0 {
					t.Errorf("left behind: %+v", w.router.Mappings())
				}
				if err := portmap.Return(t.Context(), config, ticket); err != nil {
					t.Errorf("when it was gone: %v", err)
				}
			})
		})
	}
}

func TestDetachedPinholeIsReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, dual, onlyUPnP)
		m := w.want(t, portmap.Request{Internal: netip.MustParseAddrPort("[::]:443")})
		grant(t, m)
		tickets := m.Detach()
		w.close(t)
		if len(tickets) != 1 || len(w.router.Mappings()) != 1 {
			t.Fatalf("tickets %+v, the router has %+v", tickets, w.router.Mappings())
		}
		config := portmap.Config{Network: w.router.Network(), Gateways: w.router.Gateways}
		if err := portmap.Return(t.Context(), config, tickets[0]); err != nil || len(w.router.Mappings()) != 0 {
			t.Errorf("%v, left behind: %+v", err, w.router.Mappings())
		}
	})
}

func TestReturnToARouterThatIsGone(t *testing.T) {
	t.Parallel()
	config := portmap.Config{Gateways: func() ([]portmap.Gateway, error) { return nil, nil }}
	ticket := portmap.Ticket{Grant: portmap.Grant{Protocol: portmap.PCP, Gateway: netip.MustParseAddr("192.168.1.1")}}
	if err := portmap.Return(t.Context(), config, ticket); !errors.Is(err, portmap.ErrNoGateway) {
		t.Error(err)
	}
}

func TestListShowsWhatTheRouterHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{}, onlyUPnP)
		r := game
		r.Name = "a game"
		grant(t, w.want(t, r))
		r.Transport = portmap.TCP
		grant(t, w.want(t, r))
		config := portmap.Config{Network: w.router.Network(), Gateways: w.router.Gateways}
		all, err := portmap.List(t.Context(), config)
		if err != nil || len(all) != 2 || all[0].Name != "a game" || all[0].External.String() != "203.0.113.1:27015" ||
			all[0].Transport == all[1].Transport || all[0].Lifetime != time.Hour {
			t.Errorf("%+v, %v", all, err)
		}
		w.router.Set(func(b *portmaptest.Behavior) { b.Silent = true })
		if all, err := portmap.List(t.Context(), config); !errors.Is(err, portmap.ErrSilent) {
			t.Errorf("%+v, %v", all, err)
		}
		w.router.Set(func(b *portmaptest.Behavior) { b.Silent = false })
		w.close(t)
	})
}
