package natlab

import "time"

// What says what an Event is about.
type What uint8

// What can happen to a packet.
const (
	// Entered: it entered the link Where, towards the core if Up, and will leave
	// it at Leaves; a zero Leaves is followed by the reason. A packet that a host
	// sends begins so.
	Entered What = iota + 1
	// Lost: the link lost it by chance.
	Lost
	// Overflowed: it found no room in the link's queue.
	Overflowed
	// Blocked: a filter of the core dropped it.
	Blocked
	// Translated: the box Where passed it on, as the Verdict says, and it is as
	// Packet says now; it was as Was says, the same where the box does not
	// translate.
	Translated
	// Dropped: the router Where did not pass it on, for the Reason; a box also
	// has a Verdict, which may be that it keeps it for later.
	Dropped
	// Answered: the router Where made it, because of the packet number Of.
	Answered
	// Delivered: the host Where received it.
	Delivered
)

var whatNames = [...]string{
	"", "entered", "lost", "overflowed", "blocked", "translated", "dropped", "answered", "delivered",
}

// String is the word in lower case.
func (w What) String() string {
	if int(w) < len(whatNames) {
		return whatNames[w]
	}
	return "unknown"
}

// Event is something that happened to a packet.
type Event struct {
	Time   time.Time
	What   What
	Where  string // a link, box or host by its name, or "core"
	Up     bool   // on a link: towards the core
	ID     uint64 // of the packet, kept through translation and duplication
	Of     uint64 // of the packet that was answered
	Packet Packet
	Was    Packet    // before a translation, without Data
	Leaves time.Time // when it will leave the link
	// Verdict is a box's, Reason what a router gives, a box's own included.
	Verdict Verdict
	Reason  string
}

// Observer is shown every event. The data of the packet is the observer's only
// until it returns. It must not call the network that it observes.
type Observer func(Event)
