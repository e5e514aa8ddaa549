package bodkin

import (
	"net/netip"
	"slices"
	"time"

	"bodkin/internal/node"
	"bodkin/internal/sock"
	"bodkin/portmap"
)

// mappedLifetime is how long a mapping outlives a node that was killed.
const mappedLifetime = 20 * time.Minute

// mapPorts begins to ask the routers for the node's ports, once; the server is at
// one of these addresses. Nothing waits for it.
func (n *Node) mapPorts(server []netip.Addr) {
	if n.cfg.NoPortMap || n.cfg.Transports != nil && len(n.cfg.Transports) == 0 {
		return
	}
	if n.cfg.PortMap == nil {
		_, systems := n.cfg.Network.(sock.System)
		if !systems || !slices.ContainsFunc(server, func(a netip.Addr) bool { return !a.Unmap().IsLoopback() }) {
			return
		}
	}
	n.mapping.Do(func() { n.wg.Go(n.keepMapped) })
}

// keepMapped keeps the mappings until the node ends, and tells the loop of them.
func (n *Node) keepMapped() {
	var config portmap.Config
	if n.cfg.PortMap != nil {
		config = *n.cfg.PortMap
	}
	if config.Observe == nil {
		config.Observe = n.routerSaid
	}
	client := portmap.Start(n.ctx, config)
	defer func() { _ = client.Close() }()
	var mappings []*portmap.Mapping
	for _, s := range n.sockets {
		wildcard := netip.IPv6Unspecified()
		if s.Is4() {
			wildcard = netip.IPv4Unspecified()
		}
		m, err := client.Map(portmap.Request{Internal: netip.AddrPortFrom(wildcard, s.Local().Port()), Lifetime: mappedLifetime})
		if err == nil { // else the node is being closed
			mappings = append(mappings, m)
		}
	}
	if len(mappings) > 0 {
		n.followMappings(mappings)
	}
}

// followMappings tells the loop what is mapped, as it changes.
func (n *Node) followMappings(mappings []*portmap.Mapping) {
	for {
		var grants []portmap.Grant
		first, last := mappings[0].Changed(), mappings[len(mappings)-1].Changed()
		for _, m := range mappings {
			grants = append(grants, m.Grants()...)
		}
		observed, changed := n.known.observed()
		endpoints, foreign := mappedEndpoints(grants, observed)
		if fresh, different := n.known.maps(endpoints); different {
			n.tell(node.Input{Op: node.Mapped, Mapped: endpoints})
			for _, e := range fresh {
				n.emit(Event{Kind: EventMapped, Endpoint: e})
			}
			if foreign.IsValid() {
				n.cfg.Logger.Warn("a router's address is not ours: there is another NAT outside of it, or it is wrong",
					"router", foreign, "observed", observed)
			}
		}
		select {
		case <-first:
		case <-last:
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

// mappedEndpoints are the endpoints that are worth telling peers. A router that
// does not know its address has the one that the server observes. One that names
// another public address, foreign, forwards from nowhere, unless it is not the
// router that we reach the server by.
func mappedEndpoints(grants []portmap.Grant, observed []netip.AddrPort) (out []netip.AddrPort, foreign netip.Addr) {
	var ours netip.Addr // IPv4
	for _, e := range observed {
		if e.Addr().Is4() {
			ours = e.Addr()
		}
	}
	routers := make(map[netip.Addr]bool) // of IPv4
	for _, g := range grants {
		if g.Internal.Addr().Is4() {
			routers[g.Gateway] = true
		}
	}
	for _, g := range grants {
		e := g.External
		if !e.Addr().IsValid() {
			e = netip.AddrPortFrom(ours, e.Port())
		}
		switch {
		case !e.IsValid():
			continue
		case e.Addr().Is4() && ours.IsValid() && e.Addr() != ours && !g.DoubleNAT() && len(routers) == 1:
			foreign = e.Addr()
			continue
		}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out, foreign
}

// routerSaid logs what happens to the mappings.
func (n *Node) routerSaid(e portmap.Event) {
	n.cfg.Logger.Debug("port mapping", "event", string(e.Kind), "protocol", string(e.Protocol), "router", e.Gateway,
		"internal", e.Grant.Internal, "external", e.Grant.External, "error", e.Err)
}

// observed is where the server sees us, and a channel that is closed when anything
// changes.
func (k *known) observed() (endpoints []netip.AddrPort, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return slices.Clone(k.server.Observed), k.changed
}

// maps notes what is mapped, and says which of it is new.
func (k *known) maps(endpoints []netip.AddrPort) (fresh []netip.AddrPort, different bool) {
	k.mu.Lock()
	before := k.mapped
	k.mu.Unlock()
	if slices.Equal(before, endpoints) {
		return nil, false
	}
	k.change(func() { k.mapped = endpoints })
	for _, e := range endpoints {
		if !slices.Contains(before, e) {
			fresh = append(fresh, e)
		}
	}
	return fresh, true
}
