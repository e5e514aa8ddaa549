package conform

import (
	"context"
	"net/netip"
	"time"

	"bodkin/natlab"
)

// Bed builds topologies.
type Bed interface {
	Start(ctx context.Context, t natlab.Topology) (Lab, error)
}

// Lab is a topology at work. It is used by one goroutine.
type Lab interface {
	Host(name string) Host
	// Outside is a box's first address outside.
	Outside(box string) netip.Addr
	Reboot(box string) error
	// Until takes in what arrives until the condition holds, or for that long,
	// and reports whether it held. With a nil condition it lets that time pass.
	Until(cond func() bool, d time.Duration) bool
	// Virtual says that time costs nothing, and that nothing arrives later than
	// at once.
	Virtual() bool
	Close()
}

// Host is a machine in a Lab. It answers nothing by itself but what comes to a
// UDP port that is not open, if at all.
type Host interface {
	Addr() netip.Addr
	Addr6() netip.Addr
	// Listen opens a UDP port, of IPv4 and IPv6.
	Listen(port uint16) error
	// Send sends a datagram from an open port.
	Send(port uint16, to netip.AddrPort, data []byte) error
	// SendIP sends an IP packet, whatever is in it.
	SendIP(ip []byte) error
	// Arrived is what has come so far: datagrams to open ports, TCP, ICMP and
	// fragments.
	Arrived() []Arrival
}

// Arrival is a packet that came to a host. Data is nil for a datagram, Payload
// for all else.
type Arrival struct {
	natlab.Packet
	Payload []byte
}
