package natlab

import (
	"errors"
	"fmt"
	"net/netip"
)

// forwards are the ports that a box was asked to forward, as PCP, NAT-PMP and UPnP
// ask for, and the flows that came by them.
type forwards struct {
	ports map[outKey]endpoint // to whom inside
	flows map[forwarded]endpoint
}

// forwarded names a flow from inside; its packets leave from the endpoint outside
// that it came in by.
type forwarded struct {
	protocol   uint8
	in, remote endpoint
}

// maxForwarded bounds the flows. A box that has more forwards no new ones.
const maxForwarded = 1 << 16

func (f *forwards) reset() { *f = forwards{} }

// Forward has the box pass what comes to a UDP or TCP port of its first IPv4 address
// outside, from whomever, to an endpoint inside, whatever it does otherwise. With
// no valid endpoint it no longer does. Reboot forgets it.
func (t *Translator) Forward(protocol uint8, port uint16, inside netip.AddrPort) error {
	switch {
	case protocol != ProtocolUDP && protocol != ProtocolTCP:
		return fmt.Errorf("forward of protocol %d: only UDP and TCP have ports", protocol)
	case len(t.outside) == 0 || port == 0:
		return errors.New("forward: the box has no such port outside")
	}
	k := outKey{protocol, endpoint{key(t.outside[0]), port}}
	in := endpoint{key(inside.Addr()), inside.Port()}
	for m := t.mapper.byOutside[k]; m != nil; m = m.older {
		if inside.IsValid() && m.key.in != in {
			return fmt.Errorf("forward: port %d is in use; choose another", port)
		}
	}
	if t.forwards.ports == nil {
		t.forwards = forwards{ports: make(map[outKey]endpoint), flows: make(map[forwarded]endpoint)}
	}
	delete(t.forwards.ports, k)
	for f, out := range t.forwards.flows {
		if f.protocol == protocol && out == k.out {
			delete(t.forwards.flows, f)
		}
	}
	if inside.IsValid() {
		t.forwards.ports[k] = in
	}
	return nil
}

// forward passes a packet by a forwarded port, in either direction. It is not ok
// if the packet has nothing to do with one.
func (t *Translator) forward(from Side, v view, out []Sent) (_ []Sent, ok bool) {
	if len(t.forwards.ports) == 0 || v.v6 || v.protocol != ProtocolUDP && v.protocol != ProtocolTCP {
		return out, false
	}
	if from == Inside {
		mapped, ok := t.forwards.flows[forwarded{v.protocol, v.src, v.dst}]
		if !ok {
			return out, false
		}
		v.from(mapped)
		return append(out, Sent{To: Outside, Data: v.b}), true
	}
	if x, ok := tupleOf(v); ok && t.nat.Conntrack && t.tracker.connections[x] != nil {
		return out, false // a flow from inside that has the same port
	}
	in, ok := t.forwards.ports[outKey{v.protocol, v.dst}]
	if !ok {
		return out, false
	}
	f := forwarded{v.protocol, in, v.src}
	if _, known := t.forwards.flows[f]; !known && len(t.forwards.flows) == maxForwarded {
		return out, false
	}
	t.forwards.flows[f] = v.dst
	v.to(in)
	return append(out, Sent{To: Inside, Data: v.b}), true
}
