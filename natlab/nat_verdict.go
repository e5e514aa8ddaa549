package natlab

// Verdict is what a box did with a packet and why. Two can be compared.
type Verdict struct {
	Action Action
	Reason Reason // of what was not simply forwarded or translated
}

// Action is what a box does with a packet.
type Action uint8

// Actions.
const (
	Forward   Action = iota // it passes as it was
	Translate               // it passes with another source or destination
	Hairpin                 // it came from inside and goes back inside
	Answer                  // it is dropped, and the box answers
	Hold                    // it is kept: a SYN or fragment that may matter later
	Drop
)

var actionNames = [...]string{"forward", "translate", "hairpin", "answer", "hold", "drop"}

// String is the word in lower case.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown"
}

// Reason is why, in a few words for people.
type Reason string

// Reasons.
const (
	NoMapping        Reason = "no mapping"
	FilteredAddress  Reason = "filtered: address"
	FilteredPort     Reason = "filtered: address and port"
	FilteredType     Reason = "filtered: no query of that type"
	PortTaken        Reason = "port taken: moved to another"
	NoPort           Reason = "no free port"
	NoBlock          Reason = "no port block for this host"
	HostLimit        Reason = "session limit of the host"
	BoxLimit         Reason = "session limit of the box"
	EarlyKept        Reason = "early packet kept"
	ForBox           Reason = "for the box itself"
	NotOurs          Reason = "not for an address of the box"
	OtherHost        Reason = "port of another host"
	NoHairpin        Reason = "no hairpinning"
	BeginsNothing    Reason = "begins no session"
	Leaked           Reason = "begins no session: leaked untranslated"
	NoSimultaneous   Reason = "no simultaneous open"
	HeldSYN          Reason = "unsolicited SYN held for 6 s"
	HeldTooMany      Reason = "too many SYNs held"
	UnknownFlow      Reason = "ICMP error about no mapping"
	FromStranger     Reason = "ICMP error from a stranger"
	ErrorsOff        Reason = "ICMP errors do not pass"
	RedirectOff      Reason = "ICMP redirect about a translated flow"
	Invalid          Reason = "out of state"
	BlockedProtocol  Reason = "protocol blocked"
	NotTranslatable  Reason = "protocol without ports"
	Malformed        Reason = "malformed"
	BadChecksum      Reason = "bad checksum"
	FragmentHeld     Reason = "fragment waits for the others"
	FragmentOrphan   Reason = "fragment without its first"
	FragmentsBlocked Reason = "fragments do not pass"
)
