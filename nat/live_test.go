package nat_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/internal/sock"
	"bodkin/nat"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/peer"
	"bodkin/rendezvous"
)

func TestMain(m *testing.M) { netbed.Main(m) }

// serve runs a rendezvous server with two ports until stop is called.
func serve(ctx context.Context, t *testing.T, on sock.Network, at ...netip.Addr) (server netip.AddrPort, stop func()) {
	t.Helper()
	key, err := peer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	cfg := rendezvous.ServerConfig{Key: key, Network: on}
	for _, port := range []uint16{3478, 3479} {
		for _, a := range at {
			cfg.Listen = append(cfg.Listen, netip.AddrPortFrom(a, port))
		}
	}
	s, err := rendezvous.NewServer(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	return netip.AddrPortFrom(at[0], 3478), func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// expected of a server with one address.
func expected(preset natlab.Preset) nat.Profile {
	w := want(preset.Boxes())
	if w.Filtering == nat.None || w.Filtering == nat.EndpointIndependent {
		w.Filtering = nat.AddressDependent
	}
	if w.Mapping == nat.EndpointIndependent && w.Filtering == nat.AddressDependent {
		w.KeepsEarly = nat.NotMeasured
	}
	return w
}

// The whole way with goroutines, the real server, and in fake time.
func TestMeasureInMemory(t *testing.T) {
	t.Parallel()
	for _, preset := range natlab.Presets() {
		t.Run(string(preset), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				lab, err := natlab.NewLive(topology(preset.Boxes(), natlab.Link{Delay: 20 * time.Millisecond}, 1))
				if err != nil {
					t.Fatal(err)
				}
				defer lab.Close()
				server, stop := serve(t.Context(), t, lab.Host("server"), lab.Host("server").Addr())
				defer stop()
				var seen []nat.Report
				r, err := nat.Measure(t.Context(), nat.LiveConfig{
					Config:   nat.Config{Server: []netip.AddrPort{server}},
					Network:  lab.Host("a"),
					Progress: func(r nat.Report) { seen = append(seen, r) },
				})
				if err != nil || len(seen) == 0 || !seen[len(seen)-1].Complete {
					t.Fatalf("%v, %v", r, err)
				}
				if preset.Boxes()[0].Block.UDP {
					if r.Blocked.Value != nat.Yes {
						t.Errorf("%+v", r)
					}
					return
				}
				if d := differs(r.Profile, expected(preset), preset.Boxes()); d != "" {
					t.Errorf("%s\n%+v", d, r)
				}
			})
		})
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lab, err := natlab.NewLive(topology(natlab.UDPBlocked.Boxes(), natlab.Link{}, 1))
		if err != nil {
			t.Fatal(err)
		}
		defer lab.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = nat.Measure(ctx, nat.LiveConfig{
			Config: nat.Config{Server: []netip.AddrPort{netip.AddrPortFrom(lab.Host("server").Addr(), 3478)}}, Network: lab.Host("a"),
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Linux itself, as people have it at home.
func TestMeasureLinux(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	for _, preset := range []natlab.Preset{natlab.Linux, natlab.LinuxAccept, natlab.OpenWrt, natlab.SymmetricRandom, natlab.Firewall, natlab.CGNAT} {
		t.Run(string(preset), func(t *testing.T) {
			t.Parallel()
			lab, err := netbed.Kernel.Start(t.Context(), topology(preset.Boxes(), natlab.Link{Delay: 10 * time.Millisecond}, 1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(lab.Close)
			server, stop := serve(t.Context(), t, lab.Host("server"), lab.Host("server").Addr())
			defer stop()
			r, err := nat.Measure(t.Context(), nat.LiveConfig{Config: nat.Config{Server: []netip.AddrPort{server}}, Network: lab.Host("a")})
			if err != nil {
				t.Fatal(err)
			}
			if d := differs(r.Profile, expected(preset), preset.Boxes()); d != "" {
				t.Errorf("%s\n%+v", d, r)
			}
		})
	}
}

// machine is several hosts of a lab as one, with the addresses of all.
type machine []*netbed.Host

func (m machine) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	for _, h := range m {
		if h.Addr() == local.Addr() {
			return h.ListenPacket(ctx, network, local)
		}
	}
	return nil, fmt.Errorf("no host has %v", local)
}

func (m machine) Prefixes() ([]netip.Prefix, error) { return nil, nil }

// The model bed has every NAT, with real kernels at the ends, and here a server with
// two addresses.
func TestMeasureByTwoAddresses(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	for _, preset := range []natlab.Preset{
		natlab.Open, natlab.FullCone, natlab.AddressRestricted, natlab.SymmetricSequential, natlab.CGNATBlock, natlab.DoubleNAT, natlab.LinuxAccept,
	} {
		t.Run(string(preset), func(t *testing.T) {
			t.Parallel()
			lab, err := netbed.Model.Start(t.Context(), topology(preset.Boxes(), natlab.Link{Delay: 10 * time.Millisecond}, 1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(lab.Close)
			server, stop := serve(t.Context(), t, machine{lab.Host("server"), lab.Host("server2")}, lab.Host("server").Addr(), lab.Host("server2").Addr())
			defer stop()
			r, err := nat.Measure(t.Context(), nat.LiveConfig{Config: nat.Config{Server: []netip.AddrPort{server}}, Network: lab.Host("a")})
			if err != nil {
				t.Fatal(err)
			}
			if d := differs(r.Profile, want(preset.Boxes()), preset.Boxes()); d != "" {
				t.Errorf("%s\n%+v", d, r)
			}
		})
	}
}

// On this machine alone nothing is translated.
func TestMeasureLoopback(t *testing.T) {
	t.Parallel()
	s, err := sock.Open(t.Context(), sock.System{}, "udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	go func() {
		_ = s.Read(func(from netip.AddrPort, b []byte) { answerPlainly(s, from, b) })
	}()
	r, err := nat.Measure(t.Context(), nat.LiveConfig{Config: nat.Config{Server: []netip.AddrPort{s.Local()}}})
	if err != nil || r.Mapping.Value != nat.None || r.Ports.Value.Allocation != nat.Preserving || r.Levels.Value != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func ExampleMeasure() {
	server := netip.MustParseAddrPort("192.0.2.1:3478") // any STUN server's
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	report, err := nat.Measure(ctx, nat.LiveConfig{Config: nat.Config{Server: []netip.AddrPort{server}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("mapping:", report.Mapping.Value, report.Mapping.Evidence)
	fmt.Println("ports:", report.Ports.Value.Allocation)
}
