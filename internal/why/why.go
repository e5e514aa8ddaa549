// Package why says why a peer is reached directly, over the relay, or not at all:
// a pure function of what one node knows, which is its own side, what the peer says
// of itself, and what came back. What it says of the other side, or of the network
// between, is the most probable explanation and not a proof.
//
//	why.go   what is known, and the verdict
//	relay.go the verdict where only a hole is missing
//	tcp.go   the same where TCP is the best that there may be
//	icmp.go  the same where ICMP is all that may be used
//	words.go what people are told, and what would help them
package why

import (
	"errors"
	"net"

	"bodkin/punch"
	"bodkin/rendezvous"
)

// Facts are what a node knows when it is asked.
type Facts struct {
	// Server is why the server does not know us; nil if it does.
	Server error
	// Failed is why the server did not introduce us the last time that it was asked;
	// nil if it did.
	Failed error
	// Silent says that the peer was asked and answers by no route.
	Silent bool
	// Route is the transport of the route in use; 0: there is none.
	Route punch.Transport
	// RelayOnly says that this node was told to punch no holes.
	RelayOnly bool
	// Introduced says that there has been an introduction, with Self and Other as both
	// sides, and Report what came of the attempt.
	Introduced  bool
	Self, Other punch.Side
	Report      punch.Report
}

// Way is how a peer is reached.
type Way string

// Ways.
const (
	Direct  Way = "direct"
	Relayed Way = "relay"
	None    Way = "none"
)

// Side says whose network or machine it is.
type Side string

// Sides.
const (
	Ours    Side = "ours"
	Theirs  Side = "theirs"
	Both    Side = "both"    // it takes the two together
	Between Side = "between" // the network between the two sides
	Server  Side = "server"
)

// Layer says what it is there.
type Layer string

// Layers.
const (
	UDP        Layer = "udp"        // no UDP passes
	Filtering  Layer = "filtering"  // what should come in is dropped
	Mapping    Layer = "mapping"    // the port towards a peer cannot be known before
	Early      Layer = "early"      // a packet that comes too early moves the mapping
	Hairpin    Layer = "hairpin"    // the NAT does not send back in what is meant for it
	Family     Layer = "family"     // no address family in common
	Policy     Layer = "policy"     // somebody decided so
	Offline    Layer = "offline"    // nobody is there
	Key        Layer = "key"        // another server than the URL names
	Name       Layer = "name"       // the server's name leads nowhere
	Unmeasured Layer = "unmeasured" // it is not known yet what the NAT does
)

// Blame is one explanation of what is in the way.
type Blame struct {
	Side  Side  `json:"side"`
	Layer Layer `json:"layer"`
}

// Verdict is why a peer is reached the way it is.
type Verdict struct {
	Way Way
	// Pending says that tactics are still under way.
	Pending bool
	// Blame are the explanations, the most probable first, of what is not direct.
	Blame []Blame
	// Certain says that a node can know it, as little of this is.
	Certain bool
	Reason  string   // a sentence without its first capital and full stop
	Help    []string // what would help
}

// Explain judges.
func Explain(f Facts) Verdict {
	switch {
	case f.Route > punch.Relay:
		return direct(f)
	case f.Server != nil:
		return noServer(f.Server)
	case f.Failed != nil && (!f.Introduced || f.Silent || f.Route == 0):
		return notIntroduced(f.Failed)
	case f.Silent || f.Route == 0:
		return silent(f)
	}
	v := relayed(f)
	v.Way = Relayed
	return v
}

func noServer(err error) Verdict {
	v := Verdict{Way: None, Reason: "the rendezvous server does not know this node: " + err.Error()}
	name := (*net.DNSError)(nil)
	switch {
	case errors.Is(err, rendezvous.ErrWrongServer):
		v.Blame, v.Certain = []Blame{{Server, Key}}, true
		v.Help = []string{"the URL of the server that runs there, from its owner"}
	case errors.Is(err, rendezvous.ErrServerFull):
		v.Blame, v.Certain = []Blame{{Server, Policy}}, true
		v.Help = []string{"another server, or larger limits for this one"}
	case errors.As(err, &name):
		v.Blame = []Blame{{Ours, Name}}
		v.Help = []string{"a look at the server's name in its URL, and at this machine's name resolution"}
	default:
		v.Blame = []Blame{{Ours, UDP}, {Server, Offline}}
		v.Help = []string{
			"a look whether the server runs and its port is open to everybody; `bodkin check --server stun:HOST` asks another one",
			"on our side: a network that lets UDP out; company and guest networks often do not",
		}
	}
	return v
}

func notIntroduced(err error) Verdict {
	v := Verdict{Way: None, Reason: err.Error()}
	switch {
	case errors.Is(err, rendezvous.ErrNotReachable):
		v.Blame = []Blame{{Theirs, Offline}, {Theirs, Policy}, {Theirs, UDP}}
		v.Reason = "the server does not introduce us, and does not say why: the peer is not registered there, or does not allow this node"
		v.Help = []string{
			"on their side: `bodkin listen` running with this server, in a network that lets UDP out",
			"on their side: this node's ID in --allow, if that is used",
		}
	case errors.Is(err, rendezvous.ErrTooMany):
		v.Blame, v.Certain = []Blame{{Server, Policy}}, true
		v.Help = []string{"asking again in some seconds"}
	case errors.Is(err, rendezvous.ErrNoIntroduction):
		v.Blame = []Blame{{Server, Offline}, {Ours, UDP}}
		v.Help = []string{"asking again; the server may just have gone"}
	default:
		v.Blame, v.Certain = []Blame{{Ours, Policy}}, true
	}
	return v
}

// silent is about a peer that the server knows and that says nothing, by no route.
func silent(f Facts) Verdict {
	if !f.Introduced {
		return Verdict{Way: None, Pending: true, Reason: "there has been no introduction yet"}
	}
	return Verdict{
		Way: None, Blame: []Blame{{Theirs, Offline}, {Theirs, UDP}, {Server, Policy}},
		Reason: "the server introduced us, and the peer does not answer, not even over the relay: it has probably just gone, or its network has",
		Help:   []string{"asking again in a minute, when the server has forgotten a peer that is gone"},
	}
}
