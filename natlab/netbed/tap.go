package netbed

import (
	"time"

	"bodkin/natlab"
)

// Tap sees packets: when, on the link of which box or host, whether towards the
// core, and the packet, whose data is the tap's only until it returns. Packets
// towards the core are seen before it drops any, those from the core before their
// link does. It is called from several goroutines at once, and must be quick.
type Tap func(when time.Time, link string, toCore bool, p natlab.Packet)
