package conform

import (
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"

	"bodkin/nat"
	"bodkin/natlab"
)

// Measured is what boxes were seen to do. Two can be compared. What a box makes
// it impossible to see is zero.
type Measured struct {
	UDP   UDP
	Ports Ports
	TCP   TCP
	ICMP  ICMP
	IPv6  IPv6
	Times Times
	Rest  Rest
}

// UDP is what RFC 4787 names.
type UDP struct {
	Passes             bool // from inside
	Mapping, Filtering nat.Behavior
	Refusal            natlab.Refusal
	Hairpinning        natlab.Hairpinning
	EarlyPacketMoves   bool // the mapping of who inside has the same port
	RebootForgets      bool
}

// Ports is how endpoints outside are chosen.
type Ports struct {
	Allocation   natlab.Allocation
	Delta        int
	KeepsParity  bool
	SharedBySame bool // by two hosts with one port, to one destination
	SharedElse   bool // the same, to two destinations
	Pooling      natlab.Pooling
	BlockSize    int
	BlockStart   uint16
	// Others is how many ports others take in a second, to one digit.
	Others int
}

// TCP is what RFC 5382 names.
type TCP struct {
	Passes             bool
	PassesTo443        bool
	Mapping, Filtering nat.Behavior
	Refusal            natlab.Refusal
	SimultaneousOpen   bool
	Loose              bool
}

// ICMP is what RFC 5508 names.
type ICMP struct {
	Passes           bool
	TypeAgnostic     bool
	StrangersReplies bool // come in
	Errors           natlab.Errors
	Pings            bool // are answered
	Refusal          natlab.Refusal
	Leaks            bool // unsolicited replies, untranslated
}

// IPv6 is a firewall.
type IPv6 struct {
	Passes, Translated bool
	Filtering          nat.Behavior
}

// Times is how long states live, to the second; Never is for good.
type Times struct {
	UDPUnreplied, UDPReplied      time.Duration
	UDPRefreshOut, UDPRefreshIn   bool // who keeps it alive
	TCPTransitory, TCPEstablished time.Duration
	TCPAfterReset, TCPAfterFIN    time.Duration
	ICMPQuery                     time.Duration
}

// Never is the time of what does not end.
const Never time.Duration = 1<<63 - 1

// Rest is what has no other place.
type Rest struct {
	Fragments Fragments
	Rejoined  bool // small ones leave as one packet
	// HostSessions and BothSessions are how many one host may have, and two
	// together; 0 if no limit was met.
	HostSessions, BothSessions int
}

// Fragments is what becomes of a datagram in pieces.
type Fragments string

// What was seen of fragments.
const (
	Dropped  Fragments = "dropped"
	InOrder  Fragments = "passed in order"
	AnyOrder Fragments = "passed in any order"
)

// Differences says in words where what was measured is not what was expected.
func (m Measured) Differences(want Measured) (all []string) {
	got, should := reflect.ValueOf(m), reflect.ValueOf(want)
	for i := range got.NumField() {
		topic := got.Type().Field(i).Name
		for j := range got.Field(i).NumField() {
			if x, y := got.Field(i).Field(j).Interface(), should.Field(i).Field(j).Interface(); x != y {
				name := strings.TrimPrefix(got.Field(i).Type().Field(j).Name, topic)
				all = append(all, fmt.Sprintf("%s %s: measured %s, the NAT says %s", topic, words(name), word(x), word(y)))
			}
		}
	}
	return all
}

// words is a field's name as a person writes it: TCPAfterReset is "TCP after reset".
func words(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		upper := unicode.IsUpper(r)
		begins := upper && i+1 < len(runes) && unicode.IsLower(runes[i+1]) // a word, not an acronym
		if i > 0 && (upper && begins || (upper || unicode.IsDigit(r)) && unicode.IsLower(runes[i-1])) {
			b.WriteByte(' ')
		}
		if begins || upper && i+1 == len(runes) && i > 0 && unicode.IsLower(runes[i-1]) {
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// word is a value.
func word(x any) string {
	pick := func(i int, names ...string) string {
		if i < len(names) {
			return names[i]
		}
		return fmt.Sprint(i)
	}
	switch x := x.(type) {
	case time.Duration:
		if x == Never {
			return "never"
		}
	case natlab.Refusal:
		return pick(int(x), "silence", "an ICMP error", "a reset", "an ICMP error after 6s")
	case natlab.Hairpinning:
		return pick(int(x), "none", "internal source", "external source")
	case natlab.Allocation:
		return pick(int(x), "preserving", "sequential", "random")
	case natlab.Pooling:
		return pick(int(x), "paired", "arbitrary")
	case natlab.Errors:
		return pick(int(x), "from anybody", "from the peer", "none")
	}
	return fmt.Sprint(x)
}

// Quick leaves out what takes more time than a bed in real time has.
func (m Measured) Quick() Measured {
	m.Times, m.Rest.HostSessions, m.Rest.BothSessions = Times{}, 0, 0
	m.Ports.Pooling, m.Ports.BlockSize, m.Ports.BlockStart, m.Ports.Others = 0, 0, 0, 0
	if m.TCP.Refusal == natlab.RefuseLate {
		m.TCP.Refusal = natlab.RefuseSilently // so far
	}
	return m
}

func (s *suite) measure(m *Measured) {
	s.measureUDP(&m.UDP)
	s.measurePorts(&m.Ports, m.UDP)
	s.measureTCP(&m.TCP)
	s.measureICMP(&m.ICMP)
	s.measureIPv6(&m.IPv6)
	s.measureFragments(&m.Rest)
	if s.lab.Virtual() {
		s.measureTimes(&m.Times, *m)
		s.measureOthers(&m.Ports)
	}
	if m.UDP.Passes {
		m.UDP.RebootForgets = s.rebootForgets()
	}
	if s.lab.Virtual() && m.UDP.Passes {
		// Last, for it leaves the box full.
		s.measureBlock(&m.Ports)
		s.reboot()
		s.measureLimits(&m.Rest)
	}
}
