package punch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"bodkin/internal/wire"
	"bodkin/nat"
	"bodkin/peer"
)

// Transport is what a route runs over.
type Transport uint8

// Transports, worst first: a better one has the higher number.
const (
	Relay Transport = iota + 1
	ICMP
	TCP
	UDP
)

var transportNames = [...]string{"none", "relay", "icmp", "tcp", "udp"}

// String is the word that the command line uses.
func (t Transport) String() string {
	if int(t) < len(transportNames) {
		return transportNames[t]
	}
	return "none"
}

// Abilities are the ways in which a side can punch holes, and wants to.
type Abilities uint8

// Abilities. ByEcho takes a socket for ICMP echo, ByError a raw one.
const (
	ByUDP Abilities = 1 << iota
	ByTCP
	ByEcho
	ByError
)

// Has reports whether all of some abilities are there.
func (a Abilities) Has(b Abilities) bool { return a&b == b }

// Carries reports whether a transport is of use to a side.
func (a Abilities) Carries(t Transport) bool {
	switch t {
	case UDP:
		return a.Has(ByUDP)
	case TCP:
		return a.Has(ByTCP)
	case ICMP:
		return a&(ByEcho|ByError) != 0
	default:
		return false
	}
}

// Kind is the type of a candidate (RFC 8445 §5.1.1), with two of ours: mapped by
// the router on request, and predicted.
type Kind uint8

// Kinds of candidates.
const (
	Host Kind = iota + 1
	ServerReflexive
	PeerReflexive
	Mapped
	Predicted
)

var kindNames = [...]string{"none", "host", "server-reflexive", "peer-reflexive", "mapped", "predicted"}

// String is the RFC's word.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "none"
}

// Candidate is an endpoint at which a peer may be reachable.
type Candidate struct {
	Kind      Kind
	Transport Transport
	Endpoint  netip.AddrPort
}

// Side is what is known of one of the two peers.
type Side struct {
	ID peer.ID
	// What the side says of itself: how it can punch, how its NAT treats UDP and TCP,
	// how long a round trip to the server takes (0 if not known), and candidates.
	Abilities  Abilities
	Profile    nat.Profile
	TCP        nat.Profile
	ServerRTT  time.Duration
	Candidates []Candidate
	// Observed are the endpoints at which the server sees the side, one an
	// address family, and ObservedTCP those of its TCP. Only the server can say these.
	Observed, ObservedTCP []netip.AddrPort
}

// MaxCandidates is how many candidates a description holds at the most.
const MaxCandidates = 16

var errDescription = errors.New("malformed description")

// maxServerRTT is the longest that can be said.
const maxServerRTT = 65535 * time.Millisecond

// AppendDescription encodes what a side says of itself, as it travels in
// registrations and offers: a byte of abilities, the round trip to the server in
// 16 bits of milliseconds, length and bytes of the profile of UDP and of that of TCP,
// which is empty if nothing is known, then kind, transport and endpoint of each
// candidate. Candidates above MaxCandidates, or above the size that a message
// carries, are left out.
func (s Side) AppendDescription(b []byte) []byte {
	start := len(b)
	rtt := min(max(s.ServerRTT, 0), maxServerRTT).Round(time.Millisecond) / time.Millisecond
	b = binary.BigEndian.AppendUint16(append(b, byte(s.Abilities)), uint16(rtt))
	b = s.Profile.Append(append(b, nat.ProfileSize))
	if s.TCP == (nat.Profile{}) {
		b = append(b, 0)
	} else {
		b = s.TCP.Append(append(b, nat.ProfileSize))
	}
	for i, c := range s.Candidates {
		if i == MaxCandidates || len(b)-start+21 > wire.MaxDescription {
			break
		}
		b = wire.AppendEndpoint(append(b, byte(c.Kind), byte(c.Transport)), c.Endpoint)
	}
	return b
}

// ParseDescription decodes what AppendDescription encoded. Candidates of kinds
// and transports that this version does not know are left out.
func ParseDescription(b []byte) (s Side, err error) {
	if len(b) < 3 {
		return Side{}, errDescription
	}
	s.Abilities = Abilities(b[0])
	s.ServerRTT = time.Duration(binary.BigEndian.Uint16(b[1:])) * time.Millisecond
	if s.Profile, b, err = cutProfile(b[3:]); err != nil {
		return Side{}, err
	}
	if s.TCP, b, err = cutProfile(b); err != nil {
		return Side{}, err
	}
	for n := 0; len(b) > 0; n++ {
		if len(b) < 2 || n == MaxCandidates {
			return Side{}, errDescription
		}
		c := Candidate{Kind: Kind(b[0]), Transport: Transport(b[1])}
		if c.Endpoint, b, err = wire.CutEndpoint(b[2:]); err != nil {
			return Side{}, fmt.Errorf("%w: %w", errDescription, err)
		}
		if c.Kind >= Host && c.Kind <= Predicted && c.Transport >= ICMP && c.Transport <= UDP {
			s.Candidates = append(s.Candidates, c)
		}
	}
	return s, nil
}

// cutProfile takes a profile with its length from the front of b. None is the zero
// Profile.
func cutProfile(b []byte) (p nat.Profile, rest []byte, err error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nat.Profile{}, nil, errDescription
	}
	if b[0] > 0 {
		p, err = nat.ParseProfile(b[1 : 1+int(b[0])])
	}
	return p, b[1+int(b[0]):], err
}
