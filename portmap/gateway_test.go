package portmap

import (
	"net/netip"
	"slices"
	"testing"
)

func TestOurAddressesThatARouterIsAskedAbout(t *testing.T) {
	t.Parallel()
	all := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.2/8"), netip.MustParsePrefix("192.168.1.2/24"), netip.MustParsePrefix("fe80::2/64"),
		netip.MustParsePrefix("fd00::2/64"), netip.MustParsePrefix("2001:db8::2/64"), netip.MustParsePrefix("2001:db8::3/64"),
	}
	for router, want := range map[string][]netip.Prefix{
		"192.168.1.1": all[1:2],
		"172.16.0.1":  all[:1],
		"fe80::1":     all[4:6],
	} {
		if got := ours(netip.MustParseAddr(router), all); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", router, got, want)
		}
	}
}
