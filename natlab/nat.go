package natlab

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"bodkin/nat"
)

// NAT says how a box treats packets, a field for each behaviour, in the words of
// RFC 4787 (UDP), RFC 5382 (TCP) and RFC 5508 (ICMP). Two NATs can be compared. A
// zero duration is what the RFC recommends, or with Conntrack the kernel's own.
// The zero NAT forwards everything untouched: a plain router.
//
// IPv6 is filtered and never translated.
type NAT struct {
	// Mapping is how UDP from inside is mapped to endpoints outside (RFC 4787
	// §4.1); without one (nat.None or nat.Unknown) the box is a firewall and
	// translates nothing.
	Mapping nat.Behavior
	// Filtering is whose UDP is let in (RFC 4787 §5), of IPv4 and IPv6. Without a
	// mapping and a filter everything passes.
	Filtering nat.Behavior
	// Conntrack keeps a state for each pair of endpoints, as Linux's nf_conntrack
	// does, instead of mappings. Mapping EndpointIndependent is then `masquerade`,
	// which keeps the port unless that very pair of endpoints is taken, and
	// AddressAndPortDependent is `masquerade fully-random`.
	Conntrack bool
	Ports     Ports
	// Pooling is how one of several addresses outside is chosen (RFC 4787 §4.1).
	Pooling Pooling
	// Hairpinning is what becomes of packets from inside to an endpoint outside
	// that belongs to another host inside (RFC 4787 §6).
	Hairpinning Hairpinning
	UDP         UDP
	TCP         TCP
	ICMP        ICMP
	Limits      Limits
	Fragments   Fragments
	Block       Block
	// KeepsEarly says that a stranger's packet to the box itself leaves state
	// behind, as it does where Linux's INPUT chain accepts: who is inside, and
	// sends to that stranger from the port that he tried, gets another port.
	// Only with Conntrack.
	KeepsEarly bool
	// Leaks says that packets from inside that can begin nothing (an echo reply, a
	// SYN-ACK or an ICMP error that belong to nothing known) leave untranslated.
	// Otherwise they are dropped.
	Leaks bool
	// Busy is how many mappings of each transport protocol the other hosts inside
	// make, a second on average, at random times (a Poisson process). Each takes
	// a port for the time that a UDP mapping without a reply has.
	Busy float64
}

// Ports is how a port, or an ICMP query identifier, is chosen for a mapping.
type Ports struct {
	Allocation Allocation
	// Delta is the step of Sequential; 1 if 0.
	Delta int
	// Parity keeps even ports even and odd ones odd (RFC 4787 §4.2.2).
	Parity bool
	// Overloading gives two hosts the same port, with Preserving: what comes back
	// is for the host that sent to its source, or else for the latest (RFC 4787
	// §4.2.1; REQ-3 forbids it).
	Overloading bool
	// BlockSize gives every host inside that many ports of its own: the n-th
	// address of the network inside has the n-th block from BlockStart on, over
	// all addresses outside (deterministic, RFC 7422). 0: no blocks.
	BlockSize int
	// BlockStart is the first port of the first block; 1024 if 0.
	BlockStart uint16
}

// Allocation is the order in which ports are given (RFC 4787 §4.2).
type Allocation uint8

// Allocations.
const (
	// Preserving keeps the port of the host inside, if that is free outside; else
	// it takes a random one.
	Preserving Allocation = iota
	// Sequential takes the next free port, Delta from the last.
	Sequential
	// Random takes any free port.
	Random
)

// Pooling is how an address outside is chosen (RFC 4787 §4.1, REQ-2).
type Pooling uint8

// Poolings.
const (
	// Paired: all mappings of a host inside have the same address outside.
	Paired Pooling = iota
	// Arbitrary: each mapping has any of them.
	Arbitrary
)

// Hairpinning is what a box does with a packet from inside to its own outside
// (RFC 4787 §6, REQ-9).
type Hairpinning uint8

// Hairpinnings.
const (
	// NoHairpinning: such a packet reaches nobody.
	NoHairpinning Hairpinning = iota
	// InternalSource: it arrives from the sender's endpoint inside.
	InternalSource
	// ExternalSource: it arrives from the sender's endpoint outside, as REQ-9
	// wants.
	ExternalSource
)

// UDP is what concerns UDP alone.
type UDP struct {
	// Unreplied is how long a mapping lives to whose packets nobody has replied.
	// 5 minutes if 0 (RFC 4787 REQ-5); 30 s with Conntrack.
	Unreplied time.Duration
	// Replied is the same after a reply. 5 minutes if 0; with Conntrack 120 s, for
	// flows that are older than two seconds.
	Replied time.Duration
	// Refresh is which direction's packets keep a mapping alive (REQ-6).
	Refresh Refresh
	// Refusal is what answers a packet that is not let in.
	Refusal Refusal
}

// Refresh is a direction of packets that keep a mapping alive.
type Refresh uint8

// Refreshes.
const (
	RefreshOutbound Refresh = iota // as REQ-6 demands
	RefreshBoth                    // as REQ-6a allows
	RefreshInbound                 // some do so, against the RFC
)

// Refusal is the answer to a packet from outside that is not let in.
type Refusal uint8

// Refusals.
const (
	// RefuseSilently drops.
	RefuseSilently Refusal = iota
	// RefuseWithError answers with ICMP port unreachable.
	RefuseWithError
	// RefuseWithReset answers with a RST. Only TCP.
	RefuseWithReset
	// RefuseLate holds a SYN for 6 seconds and then answers with ICMP port
	// unreachable, unless the connection was opened from inside meanwhile (RFC
	// 5382 REQ-4). What is not a SYN is dropped. Only TCP.
	RefuseLate
)

// TCP is what concerns TCP alone.
type TCP struct {
	// Mapping and Filtering are those of UDP if nat.Unknown (RFC 5382 §4).
	Mapping, Filtering nat.Behavior
	// Refusal is what answers a SYN that is not let in (RFC 5382 §4.3).
	Refusal Refusal
	// NoSimultaneousOpen refuses a SYN that answers a SYN, against REQ-2.
	NoSimultaneousOpen bool
	// Loose lets a segment that is not a SYN begin a state, as after a reboot.
	Loose bool
	// OnReset and OnFIN are what a RST or FIN does to the state.
	OnReset, OnFIN Closing
	// Established is how long an idle connection lives; 2 h 4 min if 0 (RFC 5382
	// REQ-5), 5 days with Conntrack.
	Established time.Duration
	// Transitory is how long one lives that is being opened or closed; 4 minutes
	// if 0 (REQ-5). With Conntrack it stands for all the states that the kernel
	// tells apart, and 0 leaves each its own time.
	Transitory time.Duration
}

// Closing is what a RST or FIN does to a TCP state.
type Closing uint8

// Closings.
const (
	// CloseTransitory leaves it the transitory time: after a RST, or a FIN from
	// either side.
	CloseTransitory Closing = iota
	// CloseAtOnce removes it, already after the first FIN.
	CloseAtOnce
	// CloseIgnored does nothing.
	CloseIgnored
)

// ICMP is what concerns ICMP alone.
type ICMP struct {
	// TypeAgnostic maps queries by their identifier alone: any query type may
	// come in on it. Otherwise only replies to the type that was sent do.
	TypeAgnostic bool
	// Timeout is how long a query's mapping lives; 60 s if 0 (RFC 5508 REQ-2),
	// 30 s with Conntrack.
	Timeout time.Duration
	// Errors is which ICMP errors come in.
	Errors Errors
	// Pings says that the box itself answers echo requests.
	Pings bool
	// Refusal is what answers a query that is not let in.
	Refusal Refusal
}

// Errors is which ICMP errors from outside are translated (RFC 5508 §4).
type Errors uint8

// Errors.
const (
	// ErrorsMapped: those about a packet of a known mapping, from anybody, as the
	// routers on the way are (RFC 5508 REQ-4).
	ErrorsMapped Errors = iota
	// ErrorsFromPeer: of these only those from who the packet was for.
	ErrorsFromPeer
	// ErrorsNone: none.
	ErrorsNone
)

// Limits bound the state of a box: sessions, which are pairs of endpoints. What
// would begin one too many is dropped.
type Limits struct {
	Host int // for each host inside; 0: no limit
	Box  int // 65536 if 0
}

// Fragments is what a box does with IP fragments (RFC 4787 §11).
type Fragments uint8

// What becomes of fragments.
const (
	// FragmentsInOrder: later fragments follow the first one by the IP identifier;
	// those that come before it are dropped.
	FragmentsInOrder Fragments = iota
	// FragmentsReassembled: all of them wait until the packet is whole, as in
	// Linux with connection tracking.
	FragmentsReassembled
	// FragmentsDropped: none pass.
	FragmentsDropped
)

// Block is what a box lets pass in neither direction.
type Block struct {
	UDP, TCP, ICMP bool
	// TCPBut is a TCP port outside that stays open from inside though TCP is
	// blocked; 0: none.
	TCPBut uint16
}

// Side is a side of a box.
type Side uint8

// Sides.
const (
	Inside Side = iota
	Outside
)

// String is "inside" or "outside".
func (s Side) String() string {
	if s == Inside {
		return "inside"
	}
	return "outside"
}

// Sent is a packet that leaves a box.
type Sent struct {
	To   Side
	Data []byte // the whole IP packet
	// Own says that the box itself made it, as an answer.
	Own bool
}

// Mapping is a snapshot of a box's state for one pair of endpoints.
type Mapping struct {
	Protocol uint8
	// Inside is the host's endpoint, Outside what it is mapped to and Remote the
	// endpoint at the other side. The port of an ICMP query is its identifier.
	Inside, Outside, Remote netip.AddrPort
	Expires                 time.Time
}

// Translator makes a box at work out of what n says. Outside are the box's
// addresses outside: translation uses all of its IPv4 addresses. Inside are the
// networks behind it. All choices are made with r, and so are the same for the
// same seed. It panics if n.Check finds something.
func (n NAT) Translator(outside []netip.Addr, inside []netip.Prefix, r *rand.Rand) *Translator {
	if err := n.Check(); err != nil {
		panic("natlab: " + err.Error())
	}
	t := &Translator{nat: n, inside: inside, r: r}
	t.reset(outside)
	return t
}

// Translates reports whether the box hides the IPv4 network inside behind its
// own addresses.
func (n NAT) Translates() bool { return n.Mapping > nat.None }
