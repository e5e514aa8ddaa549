package rendezvous

import "net/netip"

// none is the number of a socket that the server does not have.
const none = -1

// origin is one of the server's sockets as a plain Binding knows it (RFC 5780
// §6.1): where it is, and which others answer in its place. A server that lacks
// another address has none of those that need one, and no other to promise.
type origin struct {
	at         netip.AddrPort // as others know it; the address may be unspecified: not known
	port       int            // the same address, another port
	addr, both int            // another address, with the same port and with another
	other      netip.AddrPort // the endpoint of both; not valid if there is none
	ports      []uint16       // all other ports of the address
}

// known is at, or no endpoint where the address is not known.
func (o *origin) known() netip.AddrPort {
	if o.at.Addr().IsUnspecified() {
		return netip.AddrPort{}
	}
	return o.at
}

// originsOf finds out which sockets stand beside which. Two addresses count where
// both have the same two ports: "If a server cannot allocate the same ports on two
// different IP addresses, then it MUST NOT include an OTHER-ADDRESS" (RFC 5780 §6).
func originsOf(sockets []netip.AddrPort) []origin {
	number := make(map[netip.AddrPort]int)
	for i, e := range sockets {
		number[e] = i
	}
	all := make([]origin, len(sockets))
	for i, e := range sockets {
		o := &all[i]
		*o = origin{at: e, port: none, addr: none, both: none}
		// What comes behind it is asked first, so that each port is the other
		// of one.
		others := append(sockets[i+1:len(sockets):len(sockets)], sockets[:i]...)
		for _, p := range others {
			if p.Addr() != e.Addr() {
				continue
			}
			o.ports = append(o.ports, p.Port())
			if o.port == none {
				o.port = number[p]
			}
			o.pair(p, others, number)
		}
	}
	return all
}

// pair looks for another address with the ports of o and of beside, unless one was
// found before.
func (o *origin) pair(beside netip.AddrPort, others []netip.AddrPort, number map[netip.AddrPort]int) {
	for _, a := range others {
		both := netip.AddrPortFrom(a.Addr(), beside.Port())
		l, has := number[both]
		if o.other.IsValid() || !has || a.Port() != o.at.Port() || a.Addr() == o.at.Addr() ||
			a.Addr().Is4() != o.at.Addr().Is4() || a.Addr().IsUnspecified() || o.at.Addr().IsUnspecified() {
			continue
		}
		o.port, o.addr, o.both, o.other = number[beside], number[a], l, both
	}
}

// instead is the socket that answers a CHANGE-REQUEST, or none.
func (o *origin) instead(self int, changeIP, changePort bool) int {
	switch {
	case changeIP && changePort:
		return o.both
	case changeIP:
		return o.addr
	case changePort:
		return o.port
	}
	return self
}
