package cli

import (
	"net/netip"
	"time"

	"bodkin/nat"
	"bodkin/portmap"
)

// diagnose makes a checkup of what was measured.
func diagnose(server string, r nat.Report, asked *routers, hops []netip.Addr) checkup {
	// What says nothing at the end is further on than the server, or nothing.
	for len(hops) > 0 && !hops[len(hops)-1].IsValid() {
		hops = hops[:len(hops)-1]
	}
	r.Levels = levels(r, asked, hops)
	c := checkup{Hops: hops, Version: checkVersion, Server: server, NAT: r, Routers: asked, Class: classOf(r)}
	c.Summary = summary(c.Class, r)
	c.Peers = append([]meeting{}, meetings(r)...)
	c.Advice = append([]string{}, advice(c)...)
	return c
}

// shortLife is a lifetime that costs keepalives: RFC 4787 REQ-5 wants two minutes at
// the least.
const shortLife = 30 * time.Second

// advice is what could be changed so that more connections are direct.
func advice(c checkup) (out []string) {
	say := func(is bool, text string) {
		if is {
			out = append(out, text)
		}
	}
	r := c.NAT
	mapped := c.Routers.works(r)
	carrier := r.Levels.Value > 1 || r.Ports.Value.Allocation == nat.Block
	hard := c.Class == symmetric
	say(c.Class == udpBlocked, "Allow UDP to leave this network, at the least to the server's port. If other programs reach it, see whether the server runs.")
	say(hard && r.Ports.Value.Allocation != nat.Block,
		"Let the router keep ports: \"endpoint-independent NAT\" or \"full cone NAT\" in its settings; on pfSense and OPNsense an outbound NAT rule (hybrid mode) with \"static port\"; on Linux `masquerade` without `fully-random`.")
	say(c.Routers != nil && len(c.Routers.Grants) == 0 && !carrier && len(c.Routers.Speak) == 0,
		"Turn on UPnP, or PCP and NAT-PMP, in the router: with a mapped port this machine can be reached from everywhere.")
	say(c.Routers != nil && len(c.Routers.Grants) == 0 && len(c.Routers.Speak) > 0,
		"Let this machine map ports in the router's settings: it speaks a protocol for that, and refuses.")
	say(hard && mapped, "Nothing has to be done for bodkin: the router grants ports, and nodes ask for them. (`bodkin map` does for other programs.)")
	say(c.Routers != nil && c.Routers.Checked != nil && c.Routers.Checked.Check == portmap.Unreachable,
		"The router grants a port, but nothing from outside arrives on it: look for a firewall on this machine, on the router, or at the provider.")
	say(carrier, "There is another NAT outside of the router's, a carrier's most likely: ask for a public IPv4 address, or for IPv6.")
	say(r.KeepsEarly.Value == nat.Yes,
		"Let the router drop what comes to itself from outside (policy drop of the INPUT chain): strangers' packets move ports now, and peers have to be careful.")
	say(r.IPv6.Works.Known() && r.IPv6.Works.Value == nat.No && c.Class != udpBlocked && c.Class != noNAT,
		"Turn on IPv6, in the router or at the carrier: peers that have it too are reached without any NAT.")
	life := r.Lifetime.Value
	say(life.Below > 0 && life.Below <= shortLife,
		"Let UDP mappings live longer, two minutes at the least (RFC 4787): now keepalives are needed more often than every half minute.")
	return out
}
