package portmap_test

import (
	"context"
	"fmt"
	"net/netip"

	"bodkin/portmap"
	"bodkin/portmap/portmaptest"
)

// A game server asks the router for its port. The router here is a fake one; with
// the zero Config it is that of the machine.
func Example() {
	router := portmaptest.NewRouter(portmaptest.Options{Behavior: portmaptest.Behavior{InUse: []uint16{27015}}})
	ctx := context.Background()
	client := portmap.Start(ctx, portmap.Config{Network: router.Network(), Gateways: router.Gateways})
	mapping, err := client.Map(portmap.Request{Internal: netip.MustParseAddrPort("0.0.0.0:27015")})
	if err != nil {
		fmt.Println(err)
		return
	}
	grant, err := mapping.Wait(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("reach me at", grant.External, "for", grant.Lifetime)
	_ = client.Close()
	fmt.Println("left on the router:", len(router.Mappings()))
	// Output:
	// reach me at 203.0.113.1:27016 for 1h0m0s
	// left on the router: 0
}
