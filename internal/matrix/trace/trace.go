// Package trace makes a sequence out of what happened to packets in a natlab
// network: each packet with every place that it came through, and what was done
// to it there.
//
//	trace.go   what a Trace is
//	record.go  makes one of natlab's events
//	name.go    names packets by what they carry
package trace

import "time"

// Trace is the packets of a run, in the order in which they set out.
type Trace struct {
	Lines   []Line
	Packets []Packet
	// Omitted counts, by class, packets that were seen but not kept: most of the
	// data, and the middle of a run with very many packets.
	Omitted map[Class]int
}

// Line is a place that packets come through: the lifelines of a diagram, from
// one host to the other.
type Line struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	Addr string `json:"addr,omitempty"` // of a host its own, of a box the one outside
}

// Kind is what a Line is.
type Kind string

// Kinds of lines.
const (
	Host   Kind = "host"
	NAT    Kind = "nat"
	Core   Kind = "core"
	Server Kind = "server"
)

// Class is what a packet is for.
type Class uint8

// Classes.
const (
	Control Class = iota // between a node and the server
	Probe                // between peers, to open or confirm a route
	Data                 // what programs send, by the relay or not
	ICMP
	Other
	classes
)

var classNames = [...]string{"control", "probe", "data", "icmp", "other"}

// String is the word in lower case.
func (c Class) String() string {
	if c < classes {
		return classNames[c]
	}
	return "unknown"
}

// Packet is one packet on its way.
type Packet struct {
	Name  string
	Class Class
	Bytes int   // of the IP packet
	TTL   uint8 // as it set out
	Stops []Stop
}

// Stop is a place on the way of a packet, and what happened there.
type Stop struct {
	Line int           // index of Trace.Lines
	At   time.Duration // since the trace's zero
	Fate Fate
	Text string
}

// Fate is what becomes of a packet at a stop.
type Fate uint8

// Fates.
const (
	Passed  Fate = iota // it goes on
	Changed             // it goes on with another source or destination
	Arrived
	Dropped
	Lost // on the way from the stop before, to this one
)
