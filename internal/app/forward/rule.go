package forward

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"bodkin/peer"
)

// Rule allows a peer to reach something through us.
type Rule struct {
	// Peer is who may; the zero ID stands for everybody who may connect.
	Peer peer.ID
	// Reverse is for what we listen on for the peer; otherwise it is for what we
	// connect to.
	Reverse bool
	// Network is tcp, udp or unix.
	Network string
	// Host is a name or an address, or * for any; a name allows that name alone. The
	// names of this machine itself, localhost, 127.0.0.1 and ::1, are one.
	Host string
	// First and Last are the ports.
	First, Last uint16
	// Path is that of a Unix socket.
	Path string
}

// ParseRule reads [HOST:]PORT[-PORT][/udp] or unix:PATH, what a peer may reach. HOST is
// localhost if it is not given; * is any host, and * for PORT any port.
func ParseRule(text string) (r Rule, err error) {
	rest, ports := text, "0-65535"
	if !strings.HasPrefix(text, unixPrefix) {
		// What is not one port becomes one, for parse to look at the rest.
		network := ""
		if i := strings.LastIndex(rest, "/"); i >= 0 {
			rest, network = rest[:i], rest[i:]
		}
		at := strings.LastIndex(rest, ":") + 1
		if rest[at:] != "*" {
			ports = rest[at:]
		}
		rest = rest[:at] + "0" + network
	}
	e, err := parse(rest, "localhost")
	if err != nil {
		return Rule{}, fmt.Errorf("%q: %w", text, err)
	}
	r.Network = e.Network
	if e.Network == Unix {
		r.Path = e.Address
		return r, nil
	}
	if r.Host, _, _ = net.SplitHostPort(e.Address); r.Host == "" {
		r.Host = "localhost"
	}
	first, last, both := strings.Cut(ports, "-")
	if !both {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a > b {
		return Rule{}, fmt.Errorf("%q: %q is neither a port, nor a range of ports such as 8000-8010, nor *", text, ports)
	}
	r.First, r.Last = uint16(a), uint16(b)
	return r, nil
}

// String is the rule without its peer, as ParseRule takes it.
func (r Rule) String() string {
	if r.Network == Unix {
		return unixPrefix + r.Path
	}
	ports := fmt.Sprint(r.First)
	if r.Last != r.First {
		ports = fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	if r.First == 0 && r.Last == 65535 {
		ports = "*"
	}
	return Endpoint{r.Network, net.JoinHostPort(r.Host, ports)}.String()
}

// Rules are all that is allowed.
type Rules []Rule

// Allow reports whether one of the rules lets a peer reach what it asks for.
func (rs Rules) Allow(id peer.ID, w Wish) bool {
	return slices.ContainsFunc(rs, func(r Rule) bool { return (r.Peer.IsZero() || r.Peer == id) && r.match(w) })
}

// Wish is what a peer asks for.
type Wish struct {
	Endpoint
	Reverse bool // to listen there
}

func (r Rule) match(w Wish) bool {
	if r.Reverse != w.Reverse || r.Network != w.Network {
		return false
	}
	if r.Network == Unix {
		return r.Path == w.Address
	}
	host, port, err := net.SplitHostPort(w.Address)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || uint16(n) < r.First || uint16(n) > r.Last {
		return false
	}
	return r.Host == "*" || canonical(r.Host) == canonical(host)
}

// canonical brings the spellings of one host together.
func canonical(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		if a = a.Unmap(); a == netip.IPv6Loopback() || a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
			return "localhost"
		}
		return a.String()
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

var errNothing = errors.New("nothing is allowed")

// Check says what is wrong with rules: that there are none, or that one names nobody
// who can be.
func (rs Rules) Check() error {
	if len(rs) == 0 {
		return errNothing
	}
	for _, r := range rs {
		if r.Peer.IsZero() {
			continue
		}
		if err := r.Peer.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Peers are all that the rules name, or nil if one holds for everybody.
func (rs Rules) Peers() []peer.ID {
	out := []peer.ID{}
	for _, r := range rs {
		if r.Peer.IsZero() {
			return nil
		}
		if !slices.Contains(out, r.Peer) {
			out = append(out, r.Peer)
		}
	}
	return out
}
