package nat_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"bodkin/nat"
	"bodkin/natlab"
)

func TestLifetimes(t *testing.T) {
	t.Parallel()
	type times struct{ used, fresh time.Duration }
	for preset, want := range map[natlab.Preset]times{
		natlab.Open:                {0, 0}, // for good
		natlab.Linux:               {2 * time.Minute, 30 * time.Second},
		natlab.Firewall:            {2 * time.Minute, 30 * time.Second},
		natlab.ShortTimeout:        {20 * time.Second, 20 * time.Second},
		natlab.PortRestricted:      {5 * time.Minute, 5 * time.Minute},
		natlab.SymmetricSequential: {5 * time.Minute, 5 * time.Minute},
		natlab.SymmetricBusy:       {5 * time.Minute, 5 * time.Minute},
		natlab.SymmetricRandom:     {2 * time.Minute, 30 * time.Second},
		natlab.CGNAT:               {2 * time.Minute, 30 * time.Second},
		natlab.CGNATBlock:          {2 * time.Minute, 30 * time.Second},
	} {
		for _, loss := range []float64{0, 0.1} {
			for _, kind := range []serverKind{twoAddresses, oneAddress} {
				t.Run(fmt.Sprintf("%s, loss %v, kind %d", preset, loss, kind), func(t *testing.T) {
					t.Parallel()
					sim, err := natlab.NewSim(topology(preset.Boxes(), natlab.Link{Delay: 20 * time.Millisecond, Loss: loss}, 1))
					if err != nil {
						t.Fatal(err)
					}
					newStunServer(t, sim, []string{"server", "server2"}[:2-kind]...)
					l := newLab(sim, "a", 1, nat.Config{Lifetime: true, Server: []netip.AddrPort{netip.AddrPortFrom(sim.Host("server").Addr(), 3478)}})
					r := l.run(t, 15*time.Minute)
					for name, x := range map[string]struct {
						got  nat.Finding[nat.Span]
						want time.Duration
					}{"used": {r.Lifetime, want.used}, "fresh": {r.Fresh, want.fresh}} {
						got := x.got.Value
						switch {
						case x.want == 0:
							if got.Below != 0 || got.AtLeast < 5*time.Minute {
								t.Errorf("a mapping %s lives %v, for good is right", name, got)
							}
						case got.AtLeast > x.want || got.Below < x.want || got.Below > x.want*3/2:
							t.Errorf("a mapping %s lives %v, %v is right: %v", name, got, x.want, x.got.Evidence)
						}
					}
					if l.opened > 45 {
						t.Errorf("%d sockets were opened", l.opened)
					}
					t.Logf("%v used, %v fresh, after %v, %d sockets", r.Lifetime.Value, r.Fresh.Value, l.at[len(l.at)-1], l.opened)
				})
			}
		}
	}
}

// A node that stays asks later, when all the rest is long known.
func TestLifetimesLater(t *testing.T) {
	t.Parallel()
	for _, preset := range []natlab.Preset{natlab.Linux, natlab.SymmetricBusy} {
		sim, err := natlab.NewSim(topology(preset.Boxes(), natlab.Link{Delay: 20 * time.Millisecond}, 1))
		if err != nil {
			t.Fatal(err)
		}
		newStunServer(t, sim, "server")
		l := newLab(sim, "a", 1, nat.Config{Server: []netip.AddrPort{netip.AddrPortFrom(sim.Host("server").Addr(), 3478)}})
		before := l.run(t, time.Minute)
		l.step(nat.Input{Op: nat.StudyLifetime})
		sim.Run(20*time.Minute, func() bool { return l.m.Report().Fresh.Known() && len(l.sockets) == 0 })
		r := l.m.Report()
		if !r.Lifetime.Known() || r.Lifetime.Value.AtLeast < time.Minute || !r.Complete || r.Mapping.Value != before.Mapping.Value {
			t.Errorf("%s: %v, complete: %v, %v", preset, r.Lifetime, r.Complete, r.Mapping)
		}
		if len(l.sockets) > 0 {
			t.Errorf("%s: %d sockets remain open", preset, len(l.sockets))
		}
	}
}

func TestServerThatAnswersNowhereElse(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*stunServer){
		"refuses": func(s *stunServer) { s.plain = true },
		"ignores": func(s *stunServer) { s.deaf = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, err := natlab.NewSim(topology(natlab.Linux.Boxes(), natlab.Link{Delay: 20 * time.Millisecond}, 1))
			if err != nil {
				t.Fatal(err)
			}
			change(newStunServer(t, sim, "server", "server2"))
			l := newLab(sim, "a", 1, nat.Config{Lifetime: true, Server: []netip.AddrPort{netip.AddrPortFrom(sim.Host("server").Addr(), 3478)}})
			r := l.run(t, time.Minute)
			if r.Lifetime.Value != (nat.Span{}) || !r.Lifetime.Known() {
				t.Errorf("lifetime: %+v", r.Lifetime)
			}
			if r.Filtering.Value != nat.Unknown || !r.Filtering.Known() || r.KeepsEarly.Value != nat.NotMeasured {
				t.Errorf("filtering: %+v; early packets: %+v", r.Filtering, r.KeepsEarly)
			}
			if r.Mapping.Value != nat.EndpointIndependent {
				t.Errorf("mapping: %+v", r.Mapping) // both have a second port
			}
		})
	}
}
