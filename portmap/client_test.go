package portmap_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
)

// world is a client, a router, and what happened.
type world struct {
	*portmap.Client
	router *portmaptest.Router

	mu     sync.Mutex
	events []portmap.Event
}

// begin starts a client on a router's network. It is called in a bubble, and
// closed by the test: what is left running then fails it.
func begin(t *testing.T, o portmaptest.Options, change ...func(c *portmap.Config)) *world {
	t.Helper()
	w := &world{router: portmaptest.NewRouter(o)}
	config := portmap.Config{
		Network: w.router.Network(), Gateways: w.router.Gateways,
		Protocols: []portmap.Protocol{portmap.PCP, portmap.NATPMP},
		Observe: func(e portmap.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
	}
	for _, f := range change {
		f(&config)
	}
	w.Client = portmap.Start(t.Context(), config)
	return w
}

func (w *world) close(t *testing.T) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func (w *world) seen(kind portmap.EventKind) (out []portmap.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func (w *world) want(t *testing.T, r portmap.Request) *portmap.Mapping {
	t.Helper()
	m, err := w.Map(r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// grant waits for the first grant.
func grant(t *testing.T, m *portmap.Mapping) portmap.Grant {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, err := m.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var game = portmap.Request{Internal: netip.MustParseAddrPort("0.0.0.0:27015"), Lifetime: time.Hour}

func TestPortIsMappedAndGivenBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behavior portmaptest.Behavior
		by       portmap.Protocol
	}{
		"both":         {portmaptest.Behavior{}, portmap.PCP},
		"PCP only":     {portmaptest.Behavior{NoPMP: true}, portmap.PCP},
		"NAT-PMP only": {portmaptest.Behavior{NoPCP: true}, portmap.NATPMP},
		"3 s late":     {portmaptest.Behavior{NoPMP: true, Delay: 3 * time.Second}, portmap.PCP},
	} {
		for _, transport := range []portmap.Transport{portmap.UDP, portmap.TCP} {
			t.Run(name+" "+transport.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := begin(t, portmaptest.Options{Behavior: c.behavior})
					r := game
					r.Transport = transport
					g := grant(t, w.want(t, r))
					if g.Protocol != c.by || g.External.String() != "203.0.113.1:27015" ||
						g.Internal.String() != "192.168.1.2:27015" || g.Lifetime != time.Hour || g.DoubleNAT() || g.Pinhole() {
						t.Errorf("granted %+v", g)
					}
					ms := w.router.Mappings()
					if len(ms) != 1 || ms[0].Protocol != g.Protocol || ms[0].Transport != transport || ms[0].External != g.External {
						t.Errorf("the router has %+v", ms)
					}
					w.close(t)
					if ms := w.router.Mappings(); len(ms) != 0 {
						t.Errorf("left behind: %+v", ms)
					}
					if c.behavior.Delay == 0 && len(w.seen(portmap.EventDeleted)) != 1 {
						t.Errorf("events %+v", w.events)
					}
				})
			})
		}
	}
}

func TestMappingIsDeletedWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		router := portmaptest.NewRouter(portmaptest.Options{})
		c := portmap.Start(ctx, portmap.Config{Network: router.Network(), Gateways: router.Gateways})
		m, err := c.Map(game)
		if err != nil {
			t.Fatal(err)
		}
		grant(t, m)
		cancel()
		synctest.Wait()
		if ms := router.Mappings(); len(ms) != 0 {
			t.Errorf("left behind: %+v", ms)
		}
		if _, err := c.Map(game); !errors.Is(err, portmap.ErrClosed) {
			t.Errorf("a closed client maps: %v", err)
		}
	})
}

// The router granted, and its answer was on the way when the client was closed.
func TestMappingWhoseAnswerIsStillToComeIsDeleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{NoPMP: true}})
		synctest.Wait() // it was found
		w.router.Set(func(b *portmaptest.Behavior) { b.Delay = time.Second / 2 })
		w.want(t, game)
		synctest.Wait()
		if len(w.router.Mappings()) != 1 {
			t.Fatal("not asked")
		}
		w.close(t)
		if ms := w.router.Mappings(); len(ms) != 0 {
			t.Errorf("left behind: %+v", ms)
		}
	})
}

func TestOneMappingOfSeveralIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{})
		defer w.close(t)
		a, b := w.want(t, game), w.want(t, portmap.Request{Internal: netip.MustParseAddrPort("0.0.0.0:80"), Transport: portmap.TCP})
		grant(t, a)
		grant(t, b)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if ms := w.router.Mappings(); len(ms) != 1 || ms[0].Internal.Port() != 80 {
			t.Errorf("left: %+v", ms)
		}
		if _, err := a.Wait(t.Context()); !errors.Is(err, portmap.ErrClosed) {
			t.Errorf("a closed mapping waits: %v", err)
		}
	})
}

func TestMappingIsRenewedAtHalfOfWhatTheRouterGranted(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]portmaptest.Behavior{
		"PCP":     {MaxLifetime: 2 * time.Minute},
		"NAT-PMP": {MaxLifetime: 2 * time.Minute, NoPCP: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: b})
				defer w.close(t)
				if g := grant(t, w.want(t, game)); g.Lifetime != 2*time.Minute {
					t.Errorf("granted %+v", g)
				}
				for range 60 {
					time.Sleep(time.Minute)
					if len(w.router.Mappings()) != 1 {
						t.Fatal("the mapping expired")
					}
				}
				// RFC 6887 §11.2.1: between 1/2 and 5/8 of the lifetime.
				if n := len(w.seen(portmap.EventRenewed)); n < 48 || n > 60 {
					t.Errorf("renewed %d times in an hour", n)
				}
				if n := len(w.seen(portmap.EventGranted)); n != 1 {
					t.Errorf("granted anew %d times", n)
				}
			})
		})
	}
}

func TestMappingComesBackAfterAReboot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behavior portmaptest.Behavior
		loud     bool
		within   time.Duration
	}{
		"PCP, announced":     {portmaptest.Behavior{NoPMP: true}, true, 6 * time.Second},
		"NAT-PMP, announced": {portmaptest.Behavior{NoPCP: true}, true, 6 * time.Second},
		"PCP, silent":        {portmaptest.Behavior{NoPMP: true}, false, 40 * time.Minute},
		"NAT-PMP, silent":    {portmaptest.Behavior{NoPCP: true}, false, 40 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: c.behavior})
				defer w.close(t)
				first := grant(t, w.want(t, game))
				time.Sleep(10 * time.Minute)
				w.router.Reboot(c.loud)
				time.Sleep(c.within)
				ms := w.router.Mappings()
				if len(ms) != 1 || ms[0].External != first.External {
					t.Errorf("after the reboot: %+v", ms)
				}
				if c.loud && len(w.seen(portmap.EventRebooted)) == 0 {
					t.Error("the reboot was not told of")
				}
			})
		})
	}
}

// RFC 6887 §8.5: a clock that went back is found at any answer, and everything
// else is asked for again as well.
func TestRebootFoundAtOneRenewalBringsTheOthersBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{NoPMP: true}})
		defer w.close(t)
		long := game
		long.Lifetime = 24 * time.Hour
		grant(t, w.want(t, long))
		grant(t, w.want(t, portmap.Request{Internal: netip.MustParseAddrPort("0.0.0.0:80"), Lifetime: 10 * time.Minute}))
		time.Sleep(time.Minute)
		w.router.Reboot(false)
		time.Sleep(7 * time.Minute)
		if ms := w.router.Mappings(); len(ms) != 2 {
			t.Errorf("after the reboot: %+v", ms)
		}
	})
}

func TestAnotherAddressOutsideIsNoticed(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]portmaptest.Behavior{"PCP": {NoPMP: true}, "NAT-PMP": {NoPCP: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: b})
				defer w.close(t)
				m := w.want(t, game)
				grant(t, m)
				w.router.SetExternal(netip.MustParseAddr("203.0.113.99"))
				time.Sleep(time.Hour)
				if g := m.Grants(); len(g) != 1 || g[0].External.String() != "203.0.113.99:27015" {
					t.Errorf("grants %+v", g)
				}
				if len(w.seen(portmap.EventGranted)) != 2 {
					t.Errorf("events %+v", w.events)
				}
			})
		})
	}
}

func TestPolicyIsSaidAndAskedAgainSlowly(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]portmaptest.Behavior{
		"PCP": {Deny: true, NoPMP: true}, "NAT-PMP": {Deny: true, NoPCP: true}, "both": {Deny: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: b})
				defer w.close(t)
				m := w.want(t, game)
				time.Sleep(time.Minute)
				var refused *portmap.RefusedError
				if err := m.Err(); !errors.Is(err, portmap.ErrDenied) || !errors.As(err, &refused) || refused.Code != 2 {
					t.Errorf("error %v", err)
				}
				time.Sleep(24 * time.Hour)
				if n := len(w.seen(portmap.EventRefused)); n < 5 || n > 60 {
					t.Errorf("asked %d times in a day", n)
				}
				w.router.Set(func(b *portmaptest.Behavior) { b.Deny = false })
				time.Sleep(time.Hour)
				if m.Err() != nil || len(m.Grants()) != 1 {
					t.Errorf("allowed in the end, but: %v", m.Err())
				}
			})
		})
	}
}

func TestEachRefusalHasItsError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behavior portmaptest.Behavior
		want     error
	}{
		"full":              {portmaptest.Behavior{Full: true, NoPMP: true}, portmap.ErrResources},
		"full, NAT-PMP":     {portmaptest.Behavior{Full: true, NoPCP: true}, portmap.ErrResources},
		"offline":           {portmaptest.Behavior{Offline: true, NoPMP: true}, portmap.ErrNetwork},
		"offline, NAT-PMP":  {portmaptest.Behavior{Offline: true, NoPCP: true}, portmap.ErrNetwork},
		"silent":            {portmaptest.Behavior{Silent: true}, portmap.ErrSilent},
		"garbage":           {portmaptest.Behavior{Garbage: true}, portmap.ErrSilent},
		"speaks no such":    {portmaptest.Behavior{NoPCP: true, NoPMP: true}, portmap.ErrSilent},
		"denied by policy":  {portmaptest.Behavior{Deny: true}, portmap.ErrDenied},
		"not what we speak": {portmaptest.Behavior{NoPCP: true, Silent: false, Deny: true}, portmap.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: c.behavior})
				defer w.close(t)
				m := w.want(t, game)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := m.Wait(ctx)
				if !errors.Is(err, c.want) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want %v", err, c.want)
				}
			})
		})
	}
}

func TestSilentRouterIsFoundWhenItSpeaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{Silent: true}})
		defer w.close(t)
		begun := time.Now()
		m := w.want(t, game)
		if time.Since(begun) != 0 {
			t.Error("Map waited")
		}
		time.Sleep(time.Hour)
		// A silent router costs next to nothing.
		if n := w.router.Heard(); n > 60 {
			t.Errorf("a silent router was asked %d times in an hour", n)
		}
		w.router.Set(func(b *portmaptest.Behavior) { b.Silent = false })
		time.Sleep(40 * time.Minute)
		if len(m.Grants()) != 1 {
			t.Error("not found")
		}
	})
}

func TestPortInUseBecomesAnother(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]portmaptest.Behavior{"PCP": {NoPMP: true}, "NAT-PMP": {NoPCP: true}} {
		b.InUse = []uint16{27015}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: b})
				defer w.close(t)
				if g := grant(t, w.want(t, game)); g.External.Port() != 27016 {
					t.Errorf("granted %+v", g)
				}
			})
		})
		t.Run(name+", exactly", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: b})
				defer w.close(t)
				r := game
				r.Exact = true
				m := w.want(t, r)
				time.Sleep(20 * time.Second)
				if err := m.Err(); !errors.Is(err, portmap.ErrInUse) {
					t.Errorf("error %v", err)
				}
				if ms := w.router.Mappings(); len(ms) != 0 {
					t.Errorf("the router has %+v", ms)
				}
			})
		})
	}
}

func TestRouterThatGoesSilentIsLostWhenTheLifetimeEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{NoPMP: true}})
		defer w.close(t)
		m := w.want(t, game)
		grant(t, m)
		w.router.Set(func(b *portmaptest.Behavior) { b.Silent = true })
		time.Sleep(59 * time.Minute)
		if len(m.Grants()) != 1 {
			t.Error("given up before its time")
		}
		time.Sleep(2 * time.Minute)
		if len(m.Grants()) != 0 || len(w.seen(portmap.EventLost)) != 1 {
			t.Errorf("grants %+v after the lifetime", m.Grants())
		}
		w.router.Set(func(b *portmaptest.Behavior) { b.Silent = false })
		time.Sleep(40 * time.Minute)
		if len(m.Grants()) != 1 {
			t.Errorf("not taken up again: %v", m.Err())
		}
	})
}

func TestIPv6PinholeIsOpenedBesideTheIPv4Mapping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Inside6: netip.MustParseAddr("2001:db8::1"), Host6: netip.MustParseAddr("2001:db8::2")})
		m := w.want(t, portmap.Request{Internal: netip.AddrPortFrom(netip.Addr{}, 27015)})
		synctest.Wait()
		g := m.Grants()
		if len(g) != 2 || !g[1].Pinhole() || g[1].External.String() != "[2001:db8::2]:27015" || g[0].Pinhole() {
			t.Errorf("grants %+v", g)
		}
		six := w.want(t, portmap.Request{Internal: netip.MustParseAddrPort("[::]:80"), Transport: portmap.TCP})
		if g := grant(t, six); !g.Pinhole() || len(six.Grants()) != 1 {
			t.Errorf("grants %+v", six.Grants())
		}
		w.close(t)
		if ms := w.router.Mappings(); len(ms) != 0 {
			t.Errorf("left behind: %+v", ms)
		}
	})
}

func TestRemotesAndPeersAreAskedByPCPAlone(t *testing.T) {
	t.Parallel()
	friend := []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Port: 53}}
	flow := netip.MustParseAddrPort("198.51.100.9:443")
	for name, r := range map[string]portmap.Request{
		"remotes": {Internal: game.Internal, Remotes: friend},
		"peer":    {Internal: game.Internal, Peer: flow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{})
				defer w.close(t)
				grant(t, w.want(t, r))
				ms := w.router.Mappings()
				if len(ms) != 1 || !slices.Equal(ms[0].Remotes, r.Remotes) || r.Peer.IsValid() && ms[0].Peer != r.Peer {
					t.Errorf("the router has %+v", ms)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{NoPCP: true}})
				defer w.close(t)
				m := w.want(t, r)
				time.Sleep(time.Minute)
				if err := m.Err(); !errors.Is(err, portmap.ErrCannot) || len(w.router.Mappings()) != 0 {
					t.Errorf("error %v, the router has %+v", err, w.router.Mappings())
				}
			})
		})
	}
}

// RFC 6887 §13.1: THIRD_PARTY is not for us to ask.
func TestNobodyElsesPortIsAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{})
		defer w.close(t)
		m := w.want(t, portmap.Request{Internal: netip.MustParseAddrPort("192.168.1.77:80")})
		time.Sleep(time.Minute)
		if err := m.Err(); !errors.Is(err, portmap.ErrCannot) || len(w.router.Mappings()) != 0 {
			t.Errorf("error %v, the router has %+v", err, w.router.Mappings())
		}
	})
}

func TestRouterThatLiesIsFoundOut(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"another's address": "198.51.100.77", "an address of a second NAT": "10.0.0.5"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				check := func(_ context.Context, g portmap.Grant) portmap.Verdict {
					if g.External.Addr() != netip.MustParseAddr("203.0.113.1") {
						return portmap.NotOurs
					}
					return portmap.Reachable
				}
				w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{Says: netip.MustParseAddr(says)}},
					func(c *portmap.Config) { c.Check = check })
				defer w.close(t)
				m := w.want(t, game)
				synctest.Wait()
				g := m.Grants()
				if len(g) != 1 || g[0].Verdict != portmap.NotOurs || g[0].DoubleNAT() != (says == "10.0.0.5") {
					t.Errorf("grants %+v", g)
				}
				if len(w.seen(portmap.EventChecked)) != 1 {
					t.Errorf("events %+v", w.events)
				}
			})
		})
	}
}

func TestCheckThatHangsDelaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		check := func(ctx context.Context, _ portmap.Grant) portmap.Verdict {
			<-ctx.Done()
			return ""
		}
		w := begin(t, portmaptest.Options{}, func(c *portmap.Config) { c.Check = check })
		begun := time.Now()
		grant(t, w.want(t, game))
		w.close(t)
		if time.Since(begun) != 0 {
			t.Errorf("took %v", time.Since(begun))
		}
	})
}

func TestGatewaysComeAndGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		here := false
		router := portmaptest.NewRouter(portmaptest.Options{})
		w := begin(t, portmaptest.Options{}, func(c *portmap.Config) {
			c.Network = router.Network()
			c.Gateways = func() ([]portmap.Gateway, error) {
				mu.Lock()
				defer mu.Unlock()
				if !here {
					return nil, nil
				}
				return router.Gateways()
			}
		})
		defer w.close(t)
		set := func(x bool) {
			mu.Lock()
			here = x
			mu.Unlock()
			time.Sleep(11 * time.Second)
		}
		m := w.want(t, game)
		synctest.Wait()
		if err := m.Err(); !errors.Is(err, portmap.ErrNoGateway) {
			t.Errorf("without a gateway: %v", err)
		}
		for range 3 {
			set(true)
			if len(m.Grants()) != 1 || len(w.Routers()) != 1 {
				t.Errorf("not mapped: %v", m.Err())
			}
			set(false)
			if len(m.Grants()) != 0 || len(w.Routers()) != 0 {
				t.Errorf("grants %+v", m.Grants())
			}
		}
	})
}

func TestSeveralGatewaysAreAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := portmap.Gateway{Interface: "wlan", Addr: netip.MustParseAddr("192.168.9.1"), Local: netip.MustParsePrefix("192.168.9.2/24")}
		w := begin(t, portmaptest.Options{}, func(c *portmap.Config) {
			one := c.Gateways
			c.Gateways = func() ([]portmap.Gateway, error) {
				g, err := one()
				return append([]portmap.Gateway{silent}, g...), err
			}
		})
		defer w.close(t)
		m := w.want(t, game)
		synctest.Wait() // no time passes
		if len(m.Grants()) != 1 {
			t.Error("the silent gateway was waited for")
		}
		routers := w.Routers()
		if len(routers) != 2 || !routers[0].Protocols[0].Found || routers[1].Protocols[0].Found {
			t.Errorf("routers %+v", routers)
		}
	})
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{})
		defer w.close(t)
		at := netip.MustParseAddrPort
		for name, r := range map[string]portmap.Request{
			"no port":            {},
			"loopback":           {Internal: at("127.0.0.1:80")},
			"lifetime":           {Internal: at("0.0.0.0:80"), Lifetime: time.Millisecond},
			"peer and exact":     {Internal: at("0.0.0.0:80"), Peer: at("198.51.100.9:443"), Exact: true},
			"remote of anybody":  {Internal: at("[::]:80"), Remotes: []portmap.Remote{{Prefix: netip.MustParsePrefix("::/0")}}},
			"too many remotes":   {Internal: at("0.0.0.0:80"), Remotes: make([]portmap.Remote, 17)},
			"remote of nowhere":  {Internal: at("0.0.0.0:80"), Remotes: make([]portmap.Remote, 1)},
			"multicast internal": {Internal: at("224.0.0.1:80")},
		} {
			if _, err := w.Map(r); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}

// PCP gives a mapping to nobody but who asked for it (RFC 6887 §11.3), and a program
// that was killed cannot say who that was. NAT-PMP does not ask.
func TestPortOfAKilledProgramIsMappedByAnotherProtocol(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, portmaptest.Options{Behavior: portmaptest.Behavior{NoPMP: true}})
		defer w.close(t)
		killed := w.want(t, game)
		grant(t, killed)
		killed.Detach()
		m := w.want(t, game)
		time.Sleep(time.Second)
		if err := m.Err(); !errors.Is(err, portmap.ErrDenied) {
			t.Errorf("by PCP: %v", err)
		}
		w.router.Set(func(b *portmaptest.Behavior) { b.NoPMP = false })
		time.Sleep(30 * time.Minute)
		if g := m.Grants(); len(g) != 1 || g[0].Protocol != portmap.NATPMP {
			t.Errorf("grants %+v, error %v", g, m.Err())
		}
	})
}
