package node

import (
	"net/netip"

	"bodkin/internal/path"
	"bodkin/nat"
	"bodkin/punch"
)

// A reserve is a second socket behind a NAT that keeps early packets. Where a
// peer's packet came too early, the mapping of the first one has moved, and stays
// where nobody finds it as long as the peer tries; the reserve has yet to meet that
// peer. It is told as a predicted candidate: such NATs keep ports.
type reserve struct {
	local punch.Local // 0: none
	port  uint16      // 0: not open yet
}

// keepReserve opens the reserve where it is needed.
func (c *Core) keepReserve() {
	if c.self.Side.Profile.KeepsEarly == nat.Yes && c.cfg.Abilities.Has(punch.ByUDP) && c.reserve.local == 0 {
		c.reserve.local = c.self.NewLocal(punch.UDP)
		c.emit(Action{Op: Bind, By: path.Key{Local: c.reserve.local, To: anyPort(true)}})
	}
}

// reserved takes the reserve in, or notes that there is none.
func (c *Core) reserved(bound netip.AddrPort) {
	if !bound.IsValid() {
		c.reserve = reserve{}
		return
	}
	c.reserve.port = bound.Port()
	c.gather()
	c.all(path.Input{Op: path.CandidatesChanged})
}

// gather brings together the sockets that punch, and tells the server the endpoints
// that they may be reached at.
func (c *Core) gather() {
	defer c.describe()
	c.self.Sockets, c.self.Side.Candidates = nil, nil
	defer c.gatherTCP() // after what is better
	c.gatherICMP()
	if !c.cfg.Abilities.Has(punch.ByUDP) {
		return
	}
	c.self.Sockets = append(c.self.Sockets, c.sockets...)
	c.self.Side.Candidates = append(hostCandidates(c.sockets, c.self.Links, punch.UDP), c.self.Side.Candidates...)
	c.addMapped()
	if c.reserve.port == 0 {
		return
	}
	c.self.Sockets = append(c.self.Sockets, path.LocalSocket{
		Local: c.reserve.local, Bound: netip.AddrPortFrom(netip.IPv4Unspecified(), c.reserve.port),
	})
	for _, e := range c.self.Side.Observed {
		if e.Addr().Is4() {
			c.self.Side.Candidates = append(c.self.Side.Candidates, punch.Candidate{
				Kind: punch.Predicted, Transport: punch.UDP, Endpoint: netip.AddrPortFrom(e.Addr(), c.reserve.port),
			})
		}
	}
}
