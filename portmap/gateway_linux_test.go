package portmap

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const procRoute = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0101A8C0	0003	0	0	100	00000000	0	0	0
wlan0	00000000	FE01A8C0	0003	0	0	600	00000000	0	0	0
tun0	00000000	00000000	0001	0	0	50	00000000	0	0	0
tun0	00000000	0100000A	0003	0	0	0	00000080	0	0	0
eth0	0001A8C0	00000000	0001	0	0	100	00FFFFFF	0	0	0
eth9	00000000	0101A8C0	0203	0	0	100	00000000	0	0	0
`

const procRoute6 = `20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000003 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 00000003 00000000 00000003    wlan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`

func TestRoutesOfLinuxAreRead(t *testing.T) {
	t.Parallel()
	router := netip.MustParseAddr
	if got, want := parseRoutes4(procRoute), []hop{{"eth0", router("192.168.1.1")}, {"wlan0", router("192.168.1.254")}}; !slices.Equal(got, want) {
		t.Errorf("IPv4: %v, want %v", got, want)
	}
	if got, want := parseRoutes6(procRoute6), []hop{{"eth0", router("fe80::1%eth0")}, {"wlan0", router("2001:db8::1")}}; !slices.Equal(got, want) {
		t.Errorf("IPv6: %v, want %v", got, want)
	}
}

func TestRoutesThatAreCutOffAreLeftOut(t *testing.T) {
	t.Parallel()
	for n := range len(procRoute) {
		for _, h := range parseRoutes4(procRoute[:n]) {
			if !h.router.Is4() {
				t.Errorf("after %d bytes: %v", n, h)
			}
		}
	}
	if got := parseRoutes6(strings.ReplaceAll(procRoute6, "fe80", "xyzw")); len(got) != 1 {
		t.Errorf("routes %v", got)
	}
}
