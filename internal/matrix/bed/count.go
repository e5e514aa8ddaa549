package bed

import (
	"slices"
	"sync/atomic"

	"bodkin/internal/matrix"
	"bodkin/internal/wire"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// count counts packets where they leave the hosts: on the model bed on the hosts'
// own links, on the kernel bed on those of the boxes that they are behind.
type count struct {
	links            []string
	server           []string // addresses
	on               atomic.Bool
	packets, control atomic.Int64
	drops            matrix.Drops // the observer's, until it has stopped
	stop             func()
}

func newCount(on netbed.Bed, lab *netbed.Lab, t natlab.Topology) *count {
	c := &count{}
	for _, h := range t.Hosts {
		switch {
		case h.Name == "server":
			c.server = append(c.server, lab.Host(h.Name).Addr().String(), lab.Host(h.Name).Addr6().String())
		case on == netbed.Model || h.Behind == "":
			c.links = append(c.links, h.Name)
		default:
			c.links = append(c.links, h.Behind)
		}
	}
	c.stop = lab.Observe(c.observe)
	return c
}

// begin makes packets count.
func (c *count) begin() { c.on.Store(true) }

func (c *count) observe(e natlab.Event) {
	if !c.on.Load() {
		return
	}
	c.drops.Watch(e)
	if e.What != natlab.Entered || !e.Up || !slices.Contains(c.links, e.Where) {
		return
	}
	if d, ok := e.Packet.Datagram(); !isSYN(e.Packet) && (!ok || wire.Classify(d, false) != wire.ClassSTUN) {
		return
	}
	if slices.Contains(c.server, e.Packet.To.Addr().String()) {
		c.control.Add(1)
	} else {
		c.packets.Add(1)
	}
}

// isSYN reports whether a packet asks for a connection: what opens holes by TCP.
func isSYN(p natlab.Packet) bool {
	header := 40
	if p.From.Addr().Is4() && len(p.Data) > 0 {
		header = int(p.Data[0]&15) * 4
	}
	const flags, syn, ack = 13, 2, 16
	return p.Protocol == natlab.ProtocolTCP && len(p.Data) > header+flags && p.Data[header+flags]&(syn|ack) == syn
}

// result is what was counted, and ends it.
func (c *count) result() matrix.Result {
	c.stop()
	return matrix.Result{Packets: int(c.packets.Load()), Control: int(c.control.Load())}
}

// why is what was in the way; the kernel does not say what it drops.
func (c *count) why() string { return c.drops.Most() }
