package portmap

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Where the kernel shows its routes: of the calling thread's namespace, which
// the process's /proc/net need not be.
const (
	routes4 = "/proc/thread-self/net/route"
	routes6 = "/proc/thread-self/net/ipv6_route"
)

func defaultRoutes() ([]hop, error) {
	v4, err4 := os.ReadFile(routes4)
	v6, err6 := os.ReadFile(routes6) // absent on a kernel without IPv6
	if err4 != nil && err6 != nil {
		return nil, errors.Join(err4, err6)
	}
	return append(parseRoutes4(string(v4)), parseRoutes6(string(v6))...), nil
}

// Flags of a route: it is up, leads to a router, and must not be used.
const (
	routeUp      = 0x1
	routeGateway = 0x2
	routeReject  = 0x200
)

func usable(flags string) bool {
	f, err := strconv.ParseUint(flags, 16, 32)
	return err == nil && f&(routeUp|routeGateway|routeReject) == routeUp|routeGateway
}

// parseRoutes4 reads lines of interface, destination, gateway, flags, …, mask:
// addresses as numbers in the machine's byte order.
func parseRoutes4(s string) (out []hop) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" || !usable(f[3]) {
			continue
		}
		n, err := strconv.ParseUint(f[2], 16, 32)
		if err != nil || n == 0 {
			continue
		}
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], uint32(n))
		out = append(out, hop{f[0], netip.AddrFrom4(b)})
	}
	return out
}

// parseRoutes6 reads lines of destination, its length, source, its length, next
// hop, metric, two counters, flags, interface.
func parseRoutes6(s string) (out []hop) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 10 || strings.Trim(f[0], "0") != "" || f[1] != "00" || !usable(f[8]) {
			continue
		}
		b, err := hex.DecodeString(f[4])
		if err != nil || len(b) != 16 {
			continue
		}
		if a := netip.AddrFrom16([16]byte(b)); !a.IsUnspecified() {
			out = append(out, hop{f[9], zoned(a, f[9])})
		}
	}
	return out
}
