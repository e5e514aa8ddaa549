package bodkin

import (
	"net/netip"
	"time"

	"bodkin/peer"
)

// EventKind says what happened.
type EventKind string

// Kinds of events.
const (
	// EventRegistered: the server knows this node, at Endpoint.
	EventRegistered EventKind = "registered"
	// EventServerLost: the server does not answer. Direct connections go on.
	EventServerLost EventKind = "server-lost"
	// EventDisplaced: another process with the same key accepts connections
	// now, in this one's place.
	EventDisplaced EventKind = "displaced"
	// EventMapped: a router forwards from Endpoint to this node.
	EventMapped EventKind = "mapped"
	// EventNAT: more is known of the NAT that this node is behind; see Node.NAT.
	EventNAT EventKind = "nat"
	// EventIntroduced: the server told this node and Peer of each other.
	EventIntroduced EventKind = "introduced"
	// EventRouteConfirmed: Route is a way to Peer.
	EventRouteConfirmed EventKind = "route-confirmed"
	// EventRouteLost: Route is no longer one, for Reason.
	EventRouteLost EventKind = "route-lost"
	// EventSwitched: traffic with Peer takes Route now.
	EventSwitched EventKind = "switched"
	// EventFailed: Peer could not be introduced, for Reason.
	EventFailed EventKind = "failed"
	// EventAttemptEnded: the attempt to punch a hole to Peer is over; Tactics say
	// what came of it.
	EventAttemptEnded EventKind = "attempt-ended"
)

// Event is something that happened to a node.
type Event struct {
	Time     time.Time      `json:"time"`
	Kind     EventKind      `json:"kind"`
	Peer     peer.ID        `json:"peer,omitzero"`
	Endpoint netip.AddrPort `json:"endpoint,omitzero"` // ours, as the server sees it, or a router maps it
	// Via is the way to the server of a registration: udp, tcp, tls or icmp.
	Via    string `json:"via,omitempty"`
	Route  Route  `json:"route,omitzero"`
	Reason string `json:"reason,omitempty"`
	// Probes is how many an attempt sent.
	Probes int `json:"probes,omitempty"`
	// Tactics are those of an attempt, in the order of the plan.
	Tactics []Tactic `json:"tactics,omitempty"`
}

// Route is a way to a peer.
type Route struct {
	// Transport is relay, udp, tcp or icmp.
	Transport string `json:"transport"`
	// Endpoint is where its packets go: the peer's, or the server's for a relay.
	Endpoint netip.AddrPort `json:"endpoint"`
	// Kind is how the endpoint was found (RFC 8445): host, server-reflexive,
	// peer-reflexive, mapped, predicted.
	Kind string `json:"candidate,omitempty"`
	// RTT is the smoothed round trip of the route's probes; 0 for a relay.
	RTT time.Duration `json:"rtt_ns,omitempty"`
	// Loss is the share, of 1, that got lost lately of the route's probes and answers, or
	// of the data that left by it, whichever is more.
	Loss float64 `json:"loss,omitempty"`
	// Sent and Received are the bytes of packets by this route; only a Status tells.
	Sent     uint64 `json:"sent,omitempty"`
	Received uint64 `json:"received,omitempty"`
}

// Direct reports whether the route runs through a hole and not over the relay.
func (r Route) Direct() bool { return r.Transport != "" && r.Transport != "relay" }

// Status is what a node knows at one moment.
type Status struct {
	ID         peer.ID          `json:"id"`
	Server     string           `json:"server"`
	Registered bool             `json:"registered"`
	ServerVia  string           `json:"server_via,omitempty"` // how the server is reached: udp, tcp or tls
	Displaced  bool             `json:"displaced"`
	Since      time.Time        `json:"since"`    // when the node started
	Local      []netip.AddrPort `json:"local"`    // where its sockets are bound
	Private    []netip.AddrPort `json:"private"`  // its endpoints as it sees them
	Observed   []netip.AddrPort `json:"observed"` // its endpoints as the server sees them
	// ObservedTCP are those of its connections to the server.
	ObservedTCP []netip.AddrPort `json:"observed_tcp,omitempty"`
	Mapped      []netip.AddrPort `json:"mapped"` // its endpoints that routers forward from
	Services    []string         `json:"services"`
	Peers       []PeerStatus     `json:"peers"`
	// Ignored counts packets that were not believed, by reason: a word such as
	// forged-probe, replayed-offer or stray (data from a source that is no route).
	Ignored map[string]uint64 `json:"ignored,omitempty"`
}

// PeerStatus is what a node knows of a peer.
type PeerStatus struct {
	ID      peer.ID            `json:"id"`
	Routes  []Route            `json:"routes"`  // the one in use first
	Traffic map[string]Traffic `json:"traffic"` // by transport
	// Changes are the latest of the routes, the oldest first: what became one, what
	// is none any more, and which one traffic took, with the reason.
	Changes []Event `json:"changes,omitempty"`
	// Attempt is the one that found the latest hole, or else the latest; nil before
	// the first introduction.
	Attempt *Attempt `json:"attempt,omitempty"`
}

// Traffic counts the bytes of packets with a peer by one transport.
type Traffic struct {
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
}

// Pong is the answer to a ping.
type Pong struct {
	RTT   time.Duration `json:"rtt_ns"`
	Route Route         `json:"route"` // the one in use when the answer came
}
