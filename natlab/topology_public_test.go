package natlab

import (
	"net/netip"
	"testing"
)

func TestPublicNetworkIsTheTopologys(t *testing.T) {
	t.Parallel()
	topology := TwoHomes(Options{})
	topology.Public = netip.MustParsePrefix("11.5.0.0/16")
	if err := topology.Check(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[netip.Prefix]bool)
	for _, p := range topology.Places() {
		if p.Behind != "" {
			continue
		}
		link := p.Addr[0].Masked()
		if !topology.Public.Contains(link.Addr()) || link.Bits() != 24 || seen[link] {
			t.Errorf("%s is at %v", p.Name, p.Addr[0])
		}
		seen[link] = true
	}
	for _, bad := range []string{"11.5.0.0/24", "2001:db8::/32"} {
		topology.Public = netip.MustParsePrefix(bad)
		if err := topology.Check(); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
