package bodkin_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin"
	"bodkin/natlab"
	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
)

// Whatever the router does, a dial takes as long as without one: in fake time, with
// whole nodes.
func TestNoRouterSlowsADial(t *testing.T) {
	t.Parallel()
	for name, behavior := range map[string]*portmaptest.Behavior{
		"nobody is asked": nil,
		"it maps":         {},
		"silent":          {Silent: true},
		"garbage":         {Garbage: true},
		"3 s late":        {Delay: 3 * time.Second},
		"denied":          {Deny: true},
		"it lies":         {Says: netip.MustParseAddr("198.51.100.250")},
		"a second NAT":    {Says: netip.MustParseAddr("100.64.0.9")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, url := inMemory(t, natlab.Options{})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				// Only what asks the router is in its network.
				ask := func(host string) *portmap.Config {
					if behavior == nil {
						return nil
					}
					o := portmaptest.Options{External: public(t, l, "home-"+host), Behavior: *behavior}
					router := portmaptest.NewRouter(o)
					return &portmap.Config{Network: router.Network(), Gateways: router.Gateways}
				}
				begin := time.Now()
				a := startNode(t, bodkin.Config{Server: url, Network: l.Host("a"), PortMap: ask("a")})
				b := startNode(t, bodkin.Config{Server: url, Network: l.Host("b"), PortMap: ask("b")})
				if d := time.Since(begin); d != 0 {
					t.Errorf("the start took %v", d)
				}
				echo(t, b, "echo")
				if err := a.WaitRegistered(ctx); err != nil {
					t.Fatal(err)
				}
				events := a.Events(ctx)
				begin = time.Now()
				c, err := a.Dial(ctx, b.ID(), "echo")
				if err != nil {
					t.Fatal(err)
				}
				echoes(t, c)
				if d := untilDirect(t, ctx, events).Sub(begin); d < 160*time.Millisecond || d > 170*time.Millisecond {
					t.Errorf("direct after %v; the limit is 160ms", d)
				}
			})
		})
	}
}
