package bodkin_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"bodkin/natlab"
	"bodkin/natlab/netbed"
	"bodkin/rendezvous"
)

// byAddress is the network of a machine that has the addresses of several hosts.
type byAddress map[netip.Addr]*netbed.Host

func (n byAddress) ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error) {
	if h := n[local.Addr()]; h != nil {
		return h.ListenPacket(ctx, network, local)
	}
	return nil, fmt.Errorf("no host has %v", local)
}

func (byAddress) Prefixes() ([]netip.Prefix, error) { return nil, nil }

// startTwoAddresses is a lab with a home behind a NAT and a server that has two
// ports of two addresses.
func startTwoAddresses(t *testing.T, bed netbed.Bed, preset natlab.Preset) (home *netbed.Host, server string) {
	t.Helper()
	netbed.Need(t)
	l, err := bed.Start(t.Context(), natlab.Topology{
		Boxes: []natlab.Box{{Name: "nat", Preset: preset}},
		Hosts: []natlab.Host{{Name: "home", Behind: "nat"}, {Name: "one"}, {Name: "two"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	network := make(byAddress)
	cfg := rendezvous.ServerConfig{Network: network}
	for _, name := range []string{"one", "two"} {
		h := l.Host(name)
		network[h.Addr()] = h
		cfg.Listen = append(cfg.Listen, netip.AddrPortFrom(h.Addr(), rendezvous.DefaultPort), netip.AddrPortFrom(h.Addr(), rendezvous.OtherPort))
	}
	startServer(t, cfg)
	return l.Host("home"), l.Host("one").Addr().String()
}

// What others' programs find out about known NATs by our server is right, in the
// words of RFC 5780 and in those of RFC 3489.
func TestOthersTellNATsByOurServer(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"turnutils_natdiscovery", "stun"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (Debian: apt-get install coturn stun-client)", program)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range []struct {
		bed                netbed.Bed
		preset             natlab.Preset
		mapping, filtering string // RFC 5780
		classic            string
	}{
		{netbed.Model, natlab.FullCone, "Endpoint Independent", "Endpoint Independent", "Independent Mapping, Independent Filter"},
		{netbed.Model, natlab.AddressRestricted, "Endpoint Independent", "Address Dependent", "Independent Mapping, Address Dependent Filter"},
		{netbed.Model, natlab.PortRestricted, "Endpoint Independent", "Address and Port Dependent", "Independent Mapping, Port Dependent Filter"},
		{netbed.Model, natlab.SymmetricSequential, "Address and Port Dependent", "Address and Port Dependent", "Dependent Mapping"},
		{netbed.Model, natlab.SymmetricRandom, "Address and Port Dependent", "Address and Port Dependent", "Dependent Mapping"},
		{netbed.Kernel, natlab.Linux, "Endpoint Independent", "Address and Port Dependent", "Independent Mapping, Port Dependent Filter"},
		{netbed.Kernel, natlab.SymmetricRandom, "Address and Port Dependent", "Address and Port Dependent", "Dependent Mapping"},
	} {
		home, server := startTwoAddresses(t, c.bed, c.preset)
		for _, run := range []struct {
			command string
			want    []string
		}{
			{"turnutils_natdiscovery -m -f " + server, []string{
				"NAT with " + c.mapping + " Mapping!", "NAT with " + c.filtering + " Filtering!",
			}},
			{"stun " + server, []string{"Primary: " + c.classic + ","}},
		} {
			// They wait for answers that do not come: all at the same time.
			wg.Go(func() {
				out := output(t, home, run.command)
				for _, want := range run.want {
					if !strings.Contains(out, want) {
						t.Errorf("%v, %v: %s does not say %q:\n%s", c.bed, c.preset, run.command, want, out)
					}
				}
			})
		}
	}
}

// output is what a command says on a host; its exit status may say something too.
func output(t *testing.T, host *netbed.Host, command string) string {
	t.Helper()
	args := strings.Fields(command)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := host.Start(cmd); err != nil {
		t.Error(err)
		return ""
	}
	_ = cmd.Wait()
	return out.String()
}
