package rendezvous

import (
	"crypto/tls"
	"log/slog"
	"net/netip"

	"bodkin/internal/sock"
	"bodkin/peer"
)

// ServerConfig says how a server is. Key is needed.
type ServerConfig struct {
	Key peer.Key
	// Listen are the endpoints to bind, UDP; none means ports 3478 and 3479 of all
	// addresses, IPv4 and IPv6, or of those of Public where it has several of a
	// family. On a machine with several addresses name each: answers leave from
	// the address that was asked. What the server can tell others about their NATs
	// depends on these: with two ports a part, with the same two ports of two
	// addresses everything (RFC 5780).
	Listen []netip.AddrPort
	// Public are the addresses by which others know those of Listen: the first of
	// a family is that of the first in Listen, and so on. It is needed where those
	// are unspecified, or where a NAT translates them, each to one and no port.
	Public []netip.Addr
	// ListenTCP and ListenTLS are endpoints at which the server takes connections, over
	// TCP and over TLS, for nodes whose network blocks UDP (RFC 8489 §6.2.2). If
	// ListenTCP is nil, they are those of UDP, but for spare ones, where they are free;
	// none if it is empty. ListenTLS has no default. It needs the configuration TLS: with
	// any certificate, that of [Certificate] for example.
	ListenTCP, ListenTLS []netip.AddrPort
	TLS                  *tls.Config
	// ICMP has the server speak by echo requests and replies too: for nodes whose network
	// lets nothing out but pings, and to say how NATs translate those. It takes a raw
	// socket, and is an error where there is none.
	ICMP   bool
	Limits Limits
	// Network makes the sockets: the system's if nil. For TCP it needs
	// a method Listen, as netbed.Host has it; without one there is no default.
	Network sock.Network
	Logger  *slog.Logger
}

// OtherPort is the port that a server has beside DefaultPort if it can: to be seen
// from two ports says how a NAT behaves (RFC 5780 §4).
const OtherPort = DefaultPort + 1

// endpoint is one to bind; a server does without a spare one.
type endpoint struct {
	netip.AddrPort
	spare bool
}

// endpoints are those to bind, the ones that nodes are told first.
func (c *ServerConfig) endpoints() (out []endpoint) {
	for _, l := range c.Listen {
		out = append(out, endpoint{l, false})
	}
	if len(out) > 0 {
		return out
	}
	var addrs []netip.Addr
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if public := c.public(all.Is4()); len(public) > 1 {
			addrs = append(addrs, public...)
		} else {
			addrs = append(addrs, all)
		}
	}
	for _, port := range []uint16{DefaultPort, OtherPort} {
		for _, a := range addrs {
			out = append(out, endpoint{netip.AddrPortFrom(a, port), port != DefaultPort})
		}
	}
	return out
}

// public are the addresses of one family in Public.
func (c *ServerConfig) public(is4 bool) (out []netip.Addr) {
	for _, a := range c.Public {
		if a = a.Unmap(); a.Is4() == is4 {
			out = append(out, a)
		}
	}
	return out
}

// known are the endpoints by which others know the bound ones: with the n-th
// public address of the family for the n-th bound one.
func (c *ServerConfig) known(bound []netip.AddrPort) (out []netip.AddrPort) {
	public := make(map[netip.Addr]netip.Addr)
	used := make(map[bool]int) // by family
	for _, b := range bound {
		a, is4 := b.Addr(), b.Addr().Is4()
		if _, has := public[a]; !has {
			public[a] = a
			if all := c.public(is4); used[is4] < len(all) {
				public[a] = all[used[is4]]
			}
			used[is4]++
		}
		out = append(out, netip.AddrPortFrom(public[a], b.Port()))
	}
	return out
}
