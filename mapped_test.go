package bodkin

import (
	"net/netip"
	"slices"
	"testing"

	"bodkin/portmap"
)

func TestMappingsWorthTellingPeers(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort
	grant := func(gateway, internal, external string) portmap.Grant {
		return portmap.Grant{Gateway: netip.MustParseAddr(gateway), Internal: at(internal), External: at(external)}
	}
	good := grant("192.168.1.1", "192.168.1.2:6000", "203.0.113.1:7000")
	wrong := grant("192.168.1.1", "192.168.1.2:6000", "198.51.100.9:7000")
	nested := grant("192.168.1.1", "192.168.1.2:6000", "100.64.0.5:7000")
	hole := grant("fe80::1", "[2001:db8::2]:6000", "[2001:db8::2]:6000")
	silent := good
	silent.External = netip.AddrPortFrom(netip.Addr{}, 7000)
	second := grant("192.168.9.1", "192.168.9.2:6000", "198.51.100.9:7001")
	ours := []netip.AddrPort{at("203.0.113.1:40000"), at("[2001:db8::2]:6000")}
	for name, c := range map[string]struct {
		grants   []portmap.Grant
		observed []netip.AddrPort
		want     []netip.AddrPort
		foreign  bool
	}{
		"good":                       {[]portmap.Grant{good, hole}, ours, []netip.AddrPort{good.External, hole.External}, false},
		"before the server is known": {[]portmap.Grant{wrong}, nil, []netip.AddrPort{wrong.External}, false},
		"another's address":          {[]portmap.Grant{wrong}, ours, nil, true},
		"behind a second NAT":        {[]portmap.Grant{nested}, ours, []netip.AddrPort{nested.External}, false},
		"without an address":         {[]portmap.Grant{silent}, ours, []netip.AddrPort{good.External}, false},
		"nothing known at all":       {[]portmap.Grant{silent}, nil, nil, false},
		"another way out":            {[]portmap.Grant{good, second}, ours, []netip.AddrPort{good.External, second.External}, false},
		"the same twice":             {[]portmap.Grant{good, good}, ours, []netip.AddrPort{good.External}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, foreign := mappedEndpoints(c.grants, c.observed)
			if !slices.Equal(got, c.want) || foreign.IsValid() != c.foreign {
				t.Errorf("%v, foreign %v; want %v", got, foreign, c.want)
			}
		})
	}
}
