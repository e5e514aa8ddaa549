package portmap

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Transport is what a port is a port of.
type Transport uint8

// Transports.
const (
	UDP Transport = iota
	TCP
)

// String is udp or tcp.
func (t Transport) String() string {
	if t == TCP {
		return "tcp"
	}
	return "udp"
}

// Protocol is how a router is asked.
type Protocol string

// Protocols, in the order in which they are preferred.
const (
	PCP    Protocol = "pcp"
	NATPMP Protocol = "nat-pmp"
	UPnP   Protocol = "upnp"
)

// Protocols are all of them.
func Protocols() []Protocol { return []Protocol{PCP, NATPMP, UPnP} }

// Config says how a Client is. The zero Config is good.
type Config struct {
	// Protocols are those to ask by; all with nil.
	Protocols []Protocol
	// Network makes the sockets: the system's if nil.
	Network Network
	// Gateways finds the routers to ask: those of the system if nil. It is called
	// again and again, since gateways and addresses change.
	Gateways func() ([]Gateway, error)
	// Observe, if not nil, is told what happens, one event at a time. It must be
	// quick, and not call the Client.
	Observe func(Event)
	// Check, if not nil, finds out what a grant is worth, with somebody outside.
	// It is called for each new external endpoint, beside everything else, and
	// may take its time until ctx ends.
	Check func(ctx context.Context, g Grant) Verdict
}

// Network makes a Client's sockets. A lab host's in tests.
type Network interface {
	// ListenPacket opens a UDP socket; network is udp4 or udp6.
	ListenPacket(ctx context.Context, network string, local netip.AddrPort) (net.PacketConn, error)
	// Dial connects by IP address; network is tcp4 or tcp6.
	Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
}

// Gateway is a router that packets leave by, and an address of ours from which
// they do. An interface with several addresses has several Gateways.
type Gateway struct {
	Interface string
	Addr      netip.Addr   // the router's; link-local ones have their zone
	Local     netip.Prefix // our address, with the length of its link's prefix
}

// Request is a mapping or pinhole that is wanted.
type Request struct {
	Transport Transport
	// Internal is the port to be reached, and may have an address: with none, or
	// 0.0.0.0 or ::, the port is mapped at each address that has a gateway (0.0.0.0
	// at IPv4 ones, :: at IPv6 ones only). One that is not this machine's is of
	// another host in our network, for whom most routers let nobody ask: neither
	// PCP, whose option THIRD_PARTY is never sent, nor NAT-PMP.
	Internal netip.AddrPort
	// External is the external port that would be liked, Internal's if 0.
	External uint16
	// Exact refuses every other external port than External (RFC 6887 §13.2,
	// PREFER_FAILURE).
	Exact bool
	// Lifetime is how long the mapping should survive us, an hour if 0. It is
	// renewed for as long as the Client runs.
	Lifetime time.Duration
	// Remotes are those who may use the mapping (RFC 6887 §13.3, FILTER); with
	// none, everybody. Only PCP can restrict it so. Routers that cannot are not
	// asked, but some that can in theory let in everybody all the same (miniupnpd
	// 2.3): a program must not rely on it alone.
	Remotes []Remote
	// Peer, if valid, asks not for a mapping that serves all, but that the one of
	// our flow to this endpoint be kept (RFC 6887 §12, PEER): keepalives can then
	// be rare. Only by PCP.
	Peer netip.AddrPort
	// Name is what the router's page calls the mapping, "bodkin" if empty. Only UPnP
	// carries it.
	Name string
	// Nonce, if not zero, is that of a mapping which a [Ticket] speaks of: PCP
	// renews it then, and would refuse it to anybody else.
	Nonce Nonce
}

// Remote is a part of the world: its addresses, and its port, 0 for all.
type Remote struct {
	Prefix netip.Prefix
	Port   uint16
}

// Grant is what a router granted.
type Grant struct {
	Protocol  Protocol       `json:"protocol"`
	Interface string         `json:"interface,omitempty"`
	Gateway   netip.Addr     `json:"gateway"`
	Transport Transport      `json:"transport"`
	Internal  netip.AddrPort `json:"internal"`
	// External is where the world reaches Internal. For a pinhole they are the
	// same. Its address is not valid if the router does not know its own.
	External netip.AddrPort `json:"external"`
	// Lifetime is how long the router keeps it if we do not renew it. Zero is for
	// ever: a router that takes no other leases.
	Lifetime time.Duration `json:"lifetime_ns"`
	// Since is when it was first granted so.
	Since   time.Time `json:"since"`
	Verdict Verdict   `json:"verdict,omitempty"`
}

// DoubleNAT reports whether the external address is one that the internet does
// not reach: RFC 1918, RFC 6598 or link-local. There is another NAT outside of
// this router then, or no internet.
func (g Grant) DoubleNAT() bool { return !g.Pinhole() && private(g.External.Addr()) }

// Pinhole reports whether nothing is translated, and only a firewall opened.
func (g Grant) Pinhole() bool { return g.Internal.Addr().Is6() && g.Internal == g.External }

// Verdict is what a check from outside found of a Grant.
type Verdict string

// Verdicts. The empty one says that nobody checked.
const (
	// Reachable: a packet from outside to the external endpoint arrived.
	Reachable Verdict = "reachable"
	// Unreachable: none did. The router, or another one further out, does not
	// forward what it said it would.
	Unreachable Verdict = "unreachable"
	// NotOurs: the world sees us at another address than the router's.
	NotOurs Verdict = "not ours"
)

// EventKind says what happened.
type EventKind string

// Kinds of events.
const (
	// EventFound: Gateway speaks Protocol; External is its address outside, if it
	// said so.
	EventFound EventKind = "found"
	// EventGranted: Grant is there, or has changed.
	EventGranted EventKind = "granted"
	// EventRenewed: Grant holds for another lifetime.
	EventRenewed EventKind = "renewed"
	// EventRefused: the router does not grant it, for Err. It is asked again later.
	EventRefused EventKind = "refused"
	// EventLost: Grant is no longer one, for Err.
	EventLost EventKind = "lost"
	// EventRebooted: the router lost its state; mappings are asked for again.
	EventRebooted EventKind = "rebooted"
	// EventChecked: Grant has a Verdict.
	EventChecked EventKind = "checked"
	// EventDeleted: Grant was given back.
	EventDeleted EventKind = "deleted"
)

// Event is something that happened to a Client.
type Event struct {
	Time     time.Time
	Kind     EventKind
	Protocol Protocol
	Gateway  netip.Addr
	External netip.Addr
	Grant    Grant
	Err      error
}

const (
	defaultLifetime = time.Hour
	defaultName     = "bodkin"
)

var carrierGrade = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// private reports whether an address is one that the internet does not reach.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || carrierGrade.Contains(a)
}
