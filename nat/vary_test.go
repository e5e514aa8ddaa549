package nat_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/natlab"
)

// variations are boxes with every mapping, filter, allocation and so on that go
// together.
func variations() map[string]natlab.NAT {
	behaviors := []nat.Behavior{nat.EndpointIndependent, nat.AddressDependent, nat.AddressAndPortDependent}
	ports := []natlab.Ports{
		{},
		{Allocation: natlab.Sequential},
		{Allocation: natlab.Sequential, Delta: 2},
		{Allocation: natlab.Sequential, Delta: -3},
		{Allocation: natlab.Sequential, Delta: 64},
		{Allocation: natlab.Random},
		{Allocation: natlab.Random, BlockSize: 256},
		{Allocation: natlab.Random, BlockSize: 512, BlockStart: 5000},
		{Allocation: natlab.Random, BlockSize: 4096},
	}
	all := make(map[string]natlab.NAT)
	for _, m := range behaviors {
		for _, f := range behaviors {
			for _, p := range ports {
				for _, h := range []natlab.Hairpinning{natlab.NoHairpinning, natlab.InternalSource, natlab.ExternalSource} {
					n := natlab.NAT{Mapping: m, Filtering: f, Ports: p, Hairpinning: h}
					all[fmt.Sprintf("%v, %v, %+v, hairpinning %d", m, f, p, h)] = n
				}
				busy := natlab.NAT{Mapping: m, Filtering: f, Ports: p, Busy: 20}
				all[fmt.Sprintf("%v, %v, %+v, busy", m, f, p)] = busy
			}
		}
	}
	for _, keeps := range []bool{false, true} {
		for _, m := range []nat.Behavior{nat.None, nat.EndpointIndependent, nat.AddressAndPortDependent} {
			for _, refusal := range []natlab.Refusal{natlab.RefuseSilently, natlab.RefuseWithError} {
				n := natlab.NAT{Mapping: m, Filtering: nat.AddressAndPortDependent, Conntrack: true, KeepsEarly: keeps, Fragments: natlab.FragmentsReassembled}
				n.UDP.Refusal = refusal
				all[fmt.Sprintf("conntrack, %v, keeps early %v, refusal %d", m, keeps, refusal)] = n
			}
		}
	}
	return all
}

func TestVariations(t *testing.T) {
	t.Parallel()
	for name, box := range variations() {
		if box.Check() != nil {
			continue // there is no such box
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, loss := range []float64{0, 0.1} {
				seed := uint64(1)
				boxes := []natlab.NAT{box}
				r, l := measure(t, topology(boxes, natlab.Link{Delay: 20 * time.Millisecond, Loss: loss}, seed), twoAddresses, seed)
				w := want(boxes)
				if d := differs(r.Profile, w, boxes); d != "" {
					t.Errorf("loss %v: %s\n%+v", loss, d, r)
				}
				if l.opened > 40 {
					t.Errorf("%d sockets were opened", l.opened)
				}
			}
		})
	}
}

// The mappings that a measurement makes must leave a subscriber most of his ports.
func TestFewMappings(t *testing.T) {
	t.Parallel()
	for _, preset := range natlab.Presets() {
		sim, err := natlab.NewSim(topology(preset.Boxes(), natlab.Link{Delay: 20 * time.Millisecond}, 1))
		if err != nil {
			t.Fatal(err)
		}
		newStunServer(t, sim, "server", "server2")
		outside := map[netip.AddrPort]bool{}
		sim.Observe(func(e natlab.Event) {
			if e.Where == "core" && e.Packet.Protocol == natlab.ProtocolUDP && e.Packet.To.Port()/2 == 3478/2 {
				outside[e.Packet.From] = true
			}
		})
		l := newLab(sim, "a", 1, nat.Config{Server: []netip.AddrPort{netip.AddrPortFrom(sim.Host("server").Addr(), 3478)}})
		l.run(t, time.Minute)
		if len(outside) > 32 {
			t.Errorf("%s: %d mappings", preset, len(outside))
		}
	}
}

func TestNoiseIsFollowed(t *testing.T) {
	t.Parallel()
	box := natlab.SymmetricBusy.NAT()
	sim, err := natlab.NewSim(topology([]natlab.NAT{box}, natlab.Link{Delay: 20 * time.Millisecond, Loss: 0.02}, 3))
	if err != nil {
		t.Fatal(err)
	}
	newStunServer(t, sim, "server", "server2")
	l := newLab(sim, "a", 3, nat.Config{Server: []netip.AddrPort{netip.AddrPortFrom(sim.Host("server").Addr(), 3478)}})
	l.run(t, time.Minute)
	for range 300 {
		sim.Run(15*time.Second, nil)
		l.step(nat.Input{Op: nat.Recount})
		before := len(l.reports)
		if !sim.Run(10*time.Second, func() bool { return len(l.reports) > before }) {
			t.Fatal("no report after a recount")
		}
		r := l.m.Report()
		if noise := float64(r.Profile.Ports.Noise) / 100; noise < 14 || noise > 27 {
			for _, x := range l.reports[max(0, len(l.reports)-4):] {
				t.Logf("%v %v", x.Ports.Value, x.Ports.Time)
			}
			t.Errorf("%v ports a second are taken by others, of 20", noise)
		}
		if !r.Complete || r.Ports.Value.Allocation != nat.Sequential || r.Profile.Ports.Age > 2*time.Second {
			t.Errorf("%+v", r)
		}
		if len(l.sockets) > 0 {
			t.Fatalf("%d sockets remain open", len(l.sockets))
		}
	}
}

// What comes from elsewhere, or knows no transaction ID, changes nothing.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	boxes := natlab.FullCone.Boxes()
	var clean nat.Report
	for _, forge := range []bool{false, true} {
		sim, err := natlab.NewSim(topology(boxes, natlab.Link{Delay: 20 * time.Millisecond}, 1))
		if err != nil {
			t.Fatal(err)
		}
		newStunServer(t, sim, "server", "server2")
		server := netip.AddrPortFrom(sim.Host("server").Addr(), 3478)
		l := newLab(sim, "a", 1, nat.Config{Server: []netip.AddrPort{server}})
		lie := netip.MustParseAddrPort("198.18.0.1:7")
		if forge {
			forger, err := sim.Host("b").Bind(7, func(time.Time, netip.AddrPort, []byte) {})
			if err != nil {
				t.Fatal(err)
			}
			sim.Observe(func(e natlab.Event) {
				data, ok := e.Packet.Datagram()
				if e.Where != "home" || !e.Up || !ok || len(data) < 20 {
					return
				}
				// From somebody else with the right ID, and from the right place with a wrong one.
				id := wire.TransactionID(data[8:20])
				answer := wire.BindingAnswer{ID: id, Mapped: lie}.Append(nil)
				to := netip.AddrPortFrom(sim.Host("a").Addr(), e.Was.From.Port())
				sim.After(0, func() { _ = forger.Send(to, 0, answer) })
				id[3] ^= 1
				wrong := natlab.AppendUDP(nil, server, to, 64, wire.BindingAnswer{ID: id, Mapped: lie}.Append(nil))
				sim.After(0, func() { sim.Host("b").SendIP(wrong) })
			})
		}
		r := l.run(t, time.Minute)
		if !forge {
			clean = r
		} else if r.Profile != clean.Profile || len(r.Public) != 1 || r.Public[0] != clean.Public[0] {
			t.Errorf("%+v became %+v", clean.Profile, r.Profile)
		}
	}
}

// After a change of network all begins anew, with what is known of the server.
func TestStartAgain(t *testing.T) {
	t.Parallel()
	sim, err := natlab.NewSim(topology(natlab.AddressRestricted.Boxes(), natlab.Link{Delay: 20 * time.Millisecond}, 1))
	if err != nil {
		t.Fatal(err)
	}
	newStunServer(t, sim, "server", "server2")
	l := newLab(sim, "a", 1, nat.Config{Server: []netip.AddrPort{netip.AddrPortFrom(sim.Host("server").Addr(), 3478)}})
	first := l.run(t, time.Minute)
	if err := sim.Reboot("home", true); err != nil {
		t.Fatal(err)
	}
	l.reports, l.at = nil, nil
	again := l.run(t, time.Minute)
	if first.Profile != again.Profile || first.Public[0] == again.Public[0] {
		t.Errorf("%+v, then %+v", first, again)
	}
	for i, at := range l.at {
		if r := l.reports[i]; at > 61*time.Millisecond && (r.Mapping.Value != nat.EndpointIndependent || !r.Ports.Known()) && at > 70*time.Millisecond {
			t.Errorf("after %v: %+v", at, r)
		}
	}
	l.step(nat.Input{Op: nat.Start})
	sim.Run(50*time.Millisecond, nil)
	l.step(nat.Input{Op: nat.Stop})
	if len(l.sockets) > 0 {
		t.Errorf("%d sockets remain open", len(l.sockets))
	}
	sent := l.sent
	sim.Run(time.Minute, nil)
	if l.sent != sent {
		t.Error("something is sent after Stop")
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	box := natlab.NAT{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, Pooling: natlab.Arbitrary}
	top := topology([]natlab.NAT{box}, natlab.Link{Delay: 20 * time.Millisecond}, 1)
	top.Boxes[0].Addresses = 4
	r, _ := measure(t, top, twoAddresses, 1)
	if r.Pooled.Value != nat.Yes || len(r.Public) < 2 || r.Mapping.Value != nat.EndpointIndependent || r.Ports.Value.Allocation != nat.Preserving {
		t.Errorf("%+v", r)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		box  natlab.NAT
		want nat.Behavior
	}{
		{natlab.NAT{}, nat.None},
		{natlab.V6Firewall.NAT(), nat.AddressAndPortDependent},
		{natlab.AddressRestricted.NAT(), nat.AddressDependent},
		{natlab.FullCone.NAT(), nat.None}, // behind a packet that went out there is none
		{natlab.SymmetricSequential.NAT(), nat.AddressAndPortDependent},
	} {
		for _, loss := range []float64{0, 0.1} {
			r, _ := measure(t, topology([]natlab.NAT{c.box}, natlab.Link{Delay: 20 * time.Millisecond, Loss: loss}, 1), twoAddresses, 1)
			if v := r.IPv6; v.Works.Value != nat.Yes || v.Translated.Value != nat.No || v.Filtering.Value != c.want {
				t.Errorf("want %v: %+v", c.want, v)
			}
		}
	}
	four := topology(natlab.Linux.Boxes(), natlab.Link{}, 1)
	four.IPv6 = false
	sim, err := natlab.NewSim(four)
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(sim, "a", 1, nat.Config{Server: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:3478")}})
	if r := l.run(t, time.Minute); r.IPv6.Works.Value != nat.No {
		t.Errorf("%+v", r)
	}
}
