package netbed

import (
	"time"

	"bodkin/natlab"
)

// Tap sees packets that enter a link: when, on the link of which box or host,
// whether towards the core, and the packet, whose data is the tap's only until it
// returns. It must be quick, and not call the lab. See Lab.Observe for more.
type Tap func(when time.Time, link string, toCore bool, p natlab.Packet)
