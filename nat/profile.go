// Package nat says which kind of NAT a node is behind, in the words of RFC 4787
// and RFC 5780, and finds out.
//
// [Measure] asks a STUN server from sockets of its own, and says what it found in a
// [Report], with the evidence. The first round trip tells mapping and allocation; the
// rest takes a second or two. [Measurement] is the same without I/O, for programs
// that have loops of their own.
//
//	profile.go      what two peers tell each other of their NATs
//	report.go       what was found out, for people; report_json.go: for programs
//	measurement.go  the state machine
//	query.go        requests, and who may answer them
//	mapping.go      RFC 4787 §4.1, RFC 5780 §4.3
//	ports.go        how ports are chosen; allocation.go: concluded from samples
//	filtering.go    RFC 4787 §5, RFC 5780 §4.4
//	early.go        what a stranger's packet does to a mapping
//	hairpin.go      RFC 4787 §6
//	lifetime.go     RFC 4787 §4.3
//	ipv6.go         the same for IPv6, where there is only a filter
//	live.go         Measure: the state machine on real sockets
//	hops_linux.go   the routers on the way
package nat

import (
	"encoding/binary"
	"errors"
	"time"
)

// Behavior is how a NAT treats endpoints, on the way out (mapping, RFC 4787 §4.1)
// or on the way in (filtering, RFC 4787 §5).
type Behavior uint8

// Behaviors. Unknown is the zero value: nothing was measured, nothing is assumed.
const (
	Unknown                 Behavior = iota
	None                             // no translation, no filter
	EndpointIndependent              // EIM, EIF
	AddressDependent                 // ADM, ADF
	AddressAndPortDependent          // APDM, APDF
)

var behaviorNames = [...]string{"unknown", "none", "endpoint-independent", "address-dependent", "address-and-port-dependent"}

// String is the RFC's word in lower case.
func (b Behavior) String() string { return word(behaviorNames[:], b) }

// Answer is yes, no, or not measured.
type Answer uint8

// Answers.
const (
	NotMeasured Answer = iota
	No
	Yes
)

var answerNames = [...]string{"not measured", "no", "yes"}

// String is the answer in lower case.
func (a Answer) String() string { return word(answerNames[:], a) }

// Allocation is how a NAT chooses the port of a new mapping (RFC 4787 §4.2).
type Allocation uint8

// Allocations. UnknownAllocation is the zero value.
const (
	UnknownAllocation Allocation = iota
	Preserving                   // the port inside, where it is free
	Sequential                   // the next free one
	Random                       // any
	Block                        // any of a block that is this customer's (RFC 6888 REQ-14, RFC 7422)
)

var allocationNames = [...]string{"unknown", "preserving", "sequential", "random", "random in a block"}

// String is the allocation in lower case.
func (a Allocation) String() string { return word(allocationNames[:], a) }

func word[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return names[0]
}

// Ports is how a NAT chooses ports, and what it takes to guess the next.
type Ports struct {
	Allocation Allocation
	// Low and High are the first and the last port of a Block.
	Low, High uint16
	// Delta is the step of Sequential, often 1; it may be negative.
	Delta int16
	// Noise is how many ports of a Sequential NAT others take, in mappings per
	// 100 seconds.
	Noise uint16
	// Last is the port that a Sequential NAT gave last, Age before this was said,
	// in whole milliseconds and 65.535 s at the most.
	Last uint16
	Age  time.Duration
}

// Profile is what is known of the NAT that a node is behind, for IPv4 and UDP,
// as far as a peer needs it. The zero Profile knows nothing, and everything works
// with it, only slower. Profiles can be compared.
type Profile struct {
	Mapping   Behavior
	Filtering Behavior
	// KeepsEarly says that a stranger's packet which comes before our own
	// leaves state behind in the NAT and moves our mapping to another port, as
	// Linux does where its INPUT chain accepts.
	KeepsEarly Answer
	// Hairpin says that a packet from inside to a mapping of the same NAT arrives
	// (RFC 4787 §6).
	Hairpin Answer
	Ports   Ports
}

const profileVersion = 1

// maxAge is the longest Ports.Age that can be said.
const maxAge = 65535 * time.Millisecond

// Append encodes p: a version byte, a byte for each of mapping, filtering,
// KeepsEarly, Hairpin and allocation, and 16-bit numbers for the rest of Ports in
// their order.
func (p Profile) Append(b []byte) []byte {
	b = append(b, profileVersion, byte(p.Mapping), byte(p.Filtering), byte(p.KeepsEarly), byte(p.Hairpin), byte(p.Ports.Allocation))
	age := min(max(p.Ports.Age, 0), maxAge) / time.Millisecond
	for _, v := range [...]uint16{p.Ports.Low, p.Ports.High, uint16(p.Ports.Delta), p.Ports.Noise, p.Ports.Last, uint16(age)} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

// ProfileSize is how many bytes Append writes.
const ProfileSize = 18

// ParseProfile decodes what Append encoded, and what a later version appended to
// it. Values that this version does not know count as unknown.
func ParseProfile(b []byte) (Profile, error) {
	if len(b) < ProfileSize || b[0] < profileVersion {
		return Profile{}, errors.New("malformed NAT profile")
	}
	number := func(i int) uint16 { return binary.BigEndian.Uint16(b[6+2*i:]) }
	return Profile{
		Mapping:    known(Behavior(b[1]), AddressAndPortDependent),
		Filtering:  known(Behavior(b[2]), AddressAndPortDependent),
		KeepsEarly: known(Answer(b[3]), Yes),
		Hairpin:    known(Answer(b[4]), Yes),
		Ports: Ports{
			Allocation: known(Allocation(b[5]), Block),
			Low:        number(0), High: number(1),
			Delta: int16(number(2)), Noise: number(3),
			Last: number(4), Age: time.Duration(number(5)) * time.Millisecond,
		},
	}, nil
}

// known is v, or the zero value if v is above what this version knows.
func known[T ~uint8](v, highest T) T {
	if v > highest {
		return 0
	}
	return v
}
