package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Report is what a [Measurement] found out, with the evidence for it. A Finding
// whose Time is zero was not made yet.
type Report struct {
	Began    time.Time // when the measurement was begun
	Time     time.Time // the latest change
	Complete bool      // nothing more will come, but for Recount
	// Profile is what peers are told, as of Time.
	Profile Profile
	// Server is who was asked.
	Server Server

	// Blocked says that nothing answers over UDP: the network lets none pass, or
	// there is no such server.
	Blocked    Finding[Answer]
	Mapping    Finding[Behavior]
	Filtering  Finding[Behavior]
	KeepsEarly Finding[Answer]
	Hairpin    Finding[Answer]
	// Ports has Last and Age as of its Time.
	Ports Finding[Ports]
	// Samples are the mappings that Ports was concluded from, in the order in
	// which they were made.
	Samples []Sample
	// Pooled says that the mappings of this machine have several addresses outside
	// (RFC 4787 §4.1: a pooling behaviour of "arbitrary").
	Pooled Finding[Answer]
	// Levels is how many NATs there are, at the least.
	Levels Finding[int]
	// Lifetime is how long a mapping lives over which packets went back and forth
	// for some seconds; Fresh is how long one that saw one packet each way does.
	Lifetime Finding[Span]
	Fresh    Finding[Span]
	// Public are the addresses outside that the server saw of IPv4.
	Public []netip.Addr
	IPv6   IPv6
}

// Server is the endpoints of the STUN server that was asked; those that it does not
// have, or are not known, are not valid.
type Server struct {
	IPv4, IPv6 netip.AddrPort
	// OtherPort is of the same IPv4 address, OtherAddress has the other address and
	// the other port. Without the first hardly anything can be told, without the
	// second less.
	OtherPort, OtherAddress netip.AddrPort
}

// Finding is something that was found out.
type Finding[T any] struct {
	Value T
	Time  time.Time
	// Evidence are short sentences: what was seen.
	Evidence []string
}

// Sample is one mapping for which a fresh socket was opened, or a further
// destination of one.
type Sample struct {
	Time   time.Time      // when the packet left that made it
	Local  uint16         // the port inside
	To     netip.AddrPort // where to
	Mapped netip.AddrPort // the endpoint outside
}

// Span is between two times. Below is zero if there is no upper bound.
type Span struct{ AtLeast, Below time.Duration }

// String is "20s to 30s", or "at least 5m0s".
func (s Span) String() string {
	switch {
	case s.Below == 0:
		return fmt.Sprintf("at least %v", s.AtLeast)
	case s.AtLeast == 0:
		return fmt.Sprintf("less than %v", s.Below)
	}
	return fmt.Sprintf("%v to %v", s.AtLeast, s.Below)
}

// IPv6 is what is known of the way out by IPv6.
type IPv6 struct {
	// Works says that the server answers over it.
	Works Finding[Answer]
	// Address is what the server sees, Translated that it is not our own.
	Address    netip.Addr
	Translated Finding[Answer]
	// Filtering is whose packets come in: None means that there is no filter, at
	// least behind a packet that went out.
	Filtering Finding[Behavior]
}

// Known reports whether the finding was made.
func (f Finding[T]) Known() bool { return !f.Time.IsZero() }

// find makes a finding.
func find[T any](m *Measurement, f *Finding[T], value T, evidence ...string) {
	*f = Finding[T]{value, m.now, evidence}
	m.changed = true
}

// ProfileAt is the Profile at a later time, in which the port that a Sequential NAT
// gave last has grown older.
func (r Report) ProfileAt(now time.Time) Profile {
	p := r.Profile
	if p.Ports.Allocation == Sequential {
		p.Ports.Age = min(max(p.Ports.Age+now.Sub(r.Time), 0), maxAge)
	}
	return p
}

// conclude makes the Profile of the findings.
func (r *Report) conclude() {
	r.Profile = Profile{
		Mapping: r.Mapping.Value, Filtering: r.Filtering.Value,
		KeepsEarly: r.KeepsEarly.Value, Hairpin: r.Hairpin.Value, Ports: r.Ports.Value,
	}
	if r.Ports.Value.Allocation == Sequential {
		r.Profile.Ports.Age = min(r.Ports.Value.Age+r.Time.Sub(r.Ports.Time), maxAge)
	}
}

// clone shares nothing that grows.
func (r Report) clone() Report {
	r.Samples, r.Public = slices.Clone(r.Samples), slices.Clone(r.Public)
	return r
}
