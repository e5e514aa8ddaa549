// Package portmap asks routers for ports: by PCP (RFC 6887), NAT-PMP (RFC 6886)
// and UPnP IGD, all of them at once. It maps UDP and TCP ports through NATs and
// opens pinholes in IPv6 firewalls, renews them, keeps them through reboots of the
// router and changes of address, and deletes them at the end.
//
//	client := portmap.Start(ctx, portmap.Config{})
//	defer client.Close()
//	mapping, err := client.Map(portmap.Request{Internal: netip.MustParseAddrPort("0.0.0.0:27015")})
//	if err != nil { … }
//	grant, err := mapping.Wait(ctx)
//	fmt.Println("reach me at", grant.External)
//
// Map returns at once, and nothing ever waits for a router that is silent: a
// program that would use a mapping looks at [Mapping.Grants] when it needs one. A
// router promises only that it will forward; whether it does, and whether its
// address is the one that the world sees, [Config].Check can find out with
// somebody outside. Package portmaptest has a router to test against.
//
//	portmap.go    what is asked for and what is granted
//	client.go     Client: the gateways of this machine, and what they speak
//	mapping.go    Mapping: a request, at all our addresses
//	lane.go       one mapping at one address of ours: asked, renewed, deleted
//	protocol.go   what a protocol must do
//	pcp.go        PCP
//	natpmp.go     NAT-PMP
//	upnp.go       UPnP IGD
//	ticket.go     mappings that outlive their program, and lists of all
//	link.go       the socket that either of them uses with one gateway
//	schedule.go   when something is sent again, and when renewed
//	epoch.go      has the router lost its state?
//	gateway.go    default gateways; gateway_*.go read them from the system
//	errors.go     what routers refuse, and what to do about it
package portmap
