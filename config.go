package bodkin

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"bodkin/internal/node"
	"bodkin/internal/session"
	"bodkin/internal/sock"
	"bodkin/internal/tunnel"
	"bodkin/peer"
	"bodkin/portmap"
	"bodkin/punch"
	"bodkin/rendezvous"
)

// Config says how a node is. Key is needed, and Server but for a node that is Serverless;
// every other zero value is a default.
type Config struct {
	// Key is who this node is.
	Key peer.Key
	// Server is the URL that `bodkin serve` prints: bodkin://host:port/SERVERID.
	Server string
	// Serverless, if not nil, does without a server: then there is no Server, no relay and no
	// way but UDP, and it takes the right to open raw sockets.
	Serverless *Serverless

	// Peers are those who may connect to this node, and learn its addresses
	// from the server. With nil, everybody who knows this node's ID may. There
	// can be [rendezvous.MaxPeers] of them. [Node.SetPeers] changes them, and
	// [Node.Admit] adds one for a while.
	Peers []peer.ID
	// Allow, if not nil, decides about each connection that has been
	// authenticated: this peer, to this service.
	Allow func(id peer.ID, service string) bool

	// Transports are the kinds of holes to punch: "udp", "tcp" and "icmp". With nil, all.
	// The relay is always there.
	Transports []string
	// ServerVia is the way to the server: [ViaUDP], [ViaTCP], [ViaTLS] or [ViaICMP]. If empty, all
	// are tried, UDP a moment before the others, and UDP is taken whenever it works.
	ServerVia string
	// Proxy says through which proxy to connect to the server over TCP or TLS, if any:
	// with nil, as the environment has it (HTTPS_PROXY, ALL_PROXY, NO_PROXY; http, https
	// and socks5).
	Proxy func(target *url.URL) (*url.URL, error)
	// Port is the local port, of UDP and of TCP; 0 lets the system choose.
	Port uint16
	// NoPortMap leaves the routers alone. Otherwise they are asked, beside everything
	// else, to map the node's ports (PCP, NAT-PMP, UPnP), and peers are told where.
	NoPortMap bool
	// PortMap says how routers are asked; with nil, as package portmap does by
	// itself. Then, nobody is asked if Network is not the system's, or if the server
	// is on this machine.
	PortMap *portmap.Config
	// Network makes the sockets: the system's if nil. A lab host's in tests.
	Network Network
	// Logger is told what happens; with nil, nobody is.
	Logger *slog.Logger
}

// Ways to the server.
const (
	ViaUDP = string(node.ViaUDP)
	ViaTCP = string(node.ViaTCP)
	ViaTLS = string(node.ViaTLS)
	// ViaICMP is by pings, of a server that speaks ICMP.
	ViaICMP = string(node.ViaICMP)
)

// Network makes a node's sockets and knows its addresses.
type Network = sock.Network

// Transports are the kinds of holes that this version can punch.
func Transports() []string { return []string{"udp", "tcp", "icmp"} }

// abilities are the kinds of holes to punch.
func (c Config) abilities() (a punch.Abilities) {
	words := c.Transports
	if words == nil {
		words = Transports()
	}
	for _, t := range words {
		a |= map[string]punch.Abilities{"udp": punch.ByUDP, "tcp": punch.ByTCP, "icmp": punch.ByEcho | punch.ByError}[t]
	}
	return a
}

var errNoKey = errors.New("bodkin: Config.Key is the zero key; make one with peer.GenerateKey or read one with peer.LoadKey")

// Check finds what is wrong with a Config; Start does the same first.
func (c Config) Check() error {
	_, _, err := c.check()
	return err
}

// check completes a Config and finds what is wrong with it.
func (c Config) check() (Config, rendezvous.URL, error) {
	if c.Key.IsZero() {
		return c, rendezvous.URL{}, errNoKey
	}
	var server rendezvous.URL
	var err error
	if c.Serverless != nil {
		err = c.checkServerless()
	} else if server, err = rendezvous.ParseURL(c.Server); err != nil {
		err = fmt.Errorf("bodkin: server: %w", err)
	}
	if err != nil {
		return c, server, err
	}
	for _, t := range c.Transports {
		if !slices.Contains(Transports(), t) {
			return c, server, fmt.Errorf("bodkin: no transport %q; there are: %s", t, strings.Join(Transports(), ", "))
		}
	}
	if v := c.ServerVia; v != "" && v != ViaUDP && v != ViaTCP && v != ViaTLS && v != ViaICMP {
		return c, server, fmt.Errorf("bodkin: no way to the server %q; there are: %s, %s, %s, %s", v, ViaUDP, ViaTCP, ViaTLS, ViaICMP)
	}
	if err := checkPeers(c.Peers); err != nil {
		return c, server, err
	}
	if c.Network == nil {
		c.Network = sock.System{}
	}
	if c.Proxy == nil {
		c.Proxy = tunnel.FromEnvironment
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, server, nil
}

// CheckService says what is wrong with the name of a service, if anything: it
// has 1 to 255 bytes.
func CheckService(name string) error { return session.CheckService(name) }

// MaxDatagram is the largest payload of a datagram between peers, in bytes.
const MaxDatagram = session.MaxDatagram

// bindAddrs are where the two sockets bind.
func (c Config) bindAddrs() (v4, v6 netip.AddrPort) {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), c.Port), netip.AddrPortFrom(netip.IPv6Unspecified(), c.Port)
}
