package punch

import (
	"errors"
	"fmt"
	"net/netip"

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
	ID         peer.ID
	Profile    nat.Profile
	Candidates []Candidate // what the side says of itself
	// Observed are the endpoints at which the server sees the side, one an
	// address family. Only the server can say these.
	Observed []netip.AddrPort
}

// MaxCandidates is how many candidates a description holds at the most.
const MaxCandidates = 16

var errDescription = errors.New("malformed description")

// AppendDescription encodes what a side says of itself, as it travels in
// registrations and offers: the profile's length and bytes, then kind,
// transport and endpoint of each candidate. Candidates above MaxCandidates, or
// above the size that a message carries, are left out.
func (s Side) AppendDescription(b []byte) []byte {
	start := len(b)
	b = append(b, nat.ProfileSize)
	b = s.Profile.Append(b)
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
func ParseDescription(b []byte) (nat.Profile, []Candidate, error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nat.Profile{}, nil, errDescription
	}
	profile, err := nat.ParseProfile(b[1 : 1+int(b[0])])
	if err != nil {
		return nat.Profile{}, nil, err
	}
	var cs []Candidate
	for b = b[1+int(b[0]):]; len(b) > 0; {
		if len(b) < 2 || len(cs) == MaxCandidates {
			return nat.Profile{}, nil, errDescription
		}
		c := Candidate{Kind: Kind(b[0]), Transport: Transport(b[1])}
		if c.Endpoint, b, err = wire.CutEndpoint(b[2:]); err != nil {
			return nat.Profile{}, nil, fmt.Errorf("%w: %w", errDescription, err)
		}
		if c.Kind >= Host && c.Kind <= Predicted && c.Transport >= ICMP && c.Transport <= UDP {
			cs = append(cs, c)
		}
	}
	return profile, cs, nil
}
