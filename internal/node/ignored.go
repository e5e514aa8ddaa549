package node

import (
	"sync/atomic"

	"bodkin/punch"
	"bodkin/rendezvous"
)

// reason says why a packet was ignored.
type reason uint8

const (
	malformedProbe reason = iota // not a probe, nor an answer to one
	unknownSession               // a probe of an introduction that we do not know
	forgedProbe                  // changed, our own, or not the peer's
	replayedProbe
	strangeAnswer  // to no probe that we sent there
	malformedOffer // the peer's, but not readable
	forgedOffer    // not sealed by who is said to have sealed it
	replayedOffer
	notAllowed       // an offer of a peer that the policy does not name
	malformedMessage // of the server
	forgedMessage    // changed, or not the server's
	replayedMessage
	strangeMessage // an answer to nothing that we asked the server
	staleHello     // of another time, by its sender's clock or ours
	tooManyHello   // more than are opened in that time
	strayLetter    // at a nameplate where we do not wait
	reasons
)

var reasonWords = [reasons]string{
	malformedProbe: "malformed-probe",
	unknownSession: "unknown-session",
	forgedProbe:    "forged-probe",
	replayedProbe:  "replayed-probe",
	strangeAnswer:  "strange-answer",

	malformedOffer: "malformed-offer",
	forgedOffer:    "forged-offer",
	replayedOffer:  "replayed-offer",
	notAllowed:     "not-allowed",

	malformedMessage: "malformed-server-message",
	forgedMessage:    "forged-server-message",
	replayedMessage:  "replayed-server-message",
	strangeMessage:   "strange-server-message",
	staleHello:       "stale-hello",
	tooManyHello:     "too-many-hellos",
	strayLetter:      "stray-letter",
}

// counters count what was ignored. The one who steps the Core writes them; anybody
// may read.
type counters [reasons]atomic.Uint64

func (c *counters) add(r reason, n uint64) {
	if n > 0 {
		c[r].Add(n)
	}
}

// probes adds what a peer ignored between two looks.
func (c *counters) probes(before, after punch.Stats) {
	c.add(malformedProbe, uint64(after.Malformed-before.Malformed))
	c.add(forgedProbe, uint64(after.Forged-before.Forged))
	c.add(replayedProbe, uint64(after.Replayed-before.Replayed))
	c.add(strangeAnswer, uint64(after.Strange-before.Strange))
}

// replies adds what the agent ignored between two looks.
func (c *counters) replies(before, after rendezvous.AgentStats) {
	c.add(malformedMessage, after.Malformed-before.Malformed)
	c.add(forgedMessage, after.Forged-before.Forged)
	c.add(replayedMessage, after.Replayed-before.Replayed)
	c.add(strangeMessage, after.Strange-before.Strange)
}

// Ignored counts the packets that were not believed, by the reason why. It may be
// called at any time, beside Step.
func (c *Core) Ignored() map[string]uint64 {
	out := make(map[string]uint64)
	for r := range c.ignored {
		if n := c.ignored[r].Load(); n > 0 {
			out[reasonWords[r]] = n
		}
	}
	return out
}
