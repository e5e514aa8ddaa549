package netbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"bodkin/natlab"
)

// chosen is a port or identifier of the box, and who it talks to from there.
type chosen struct {
	protocol byte
	port     uint16
	remote   netip.AddrPort
}

// boxPort finds the box's port, or the identifier of a query, in a packet.
func (b *bench) boxPort(ip []byte) ([]byte, chosen) {
	h := parse(ip)
	near, far, remote := h.body[:2], h.body[2:4], h.dst
	switch wan := b.at.wan.Addr(); {
	case h.dst == wan:
		near, far, remote = far, near, h.src
	case h.src != wan:
		return nil, chosen{}
	}
	switch {
	case h.protocol == natlab.ProtocolUDP || h.protocol == natlab.ProtocolTCP:
		return near, chosen{h.protocol, binary.BigEndian.Uint16(near), netip.AddrPortFrom(remote, binary.BigEndian.Uint16(far))}
	case h.isQuery():
		return h.body[4:6], chosen{h.protocol, binary.BigEndian.Uint16(h.body[4:]), netip.AddrPortFrom(remote, 0)}
	}
	return nil, chosen{}
}

// learn notes the ports that the two chose for the same thing.
func (b *bench) learn(kernel, model []byte) {
	k, _ := b.boxPort(kernel)
	m, key := b.boxPort(model)
	if k == nil || m == nil || parse(kernel).protocol != parse(model).protocol {
		return
	}
	if _, known := b.ports[key]; known || bytes.Equal(k, m) {
		return
	}
	b.ports[key] = binary.BigEndian.Uint16(k)
	b.void = b.void || slices.Contains(usedPorts, key.port) || slices.Contains(usedPorts, b.ports[key])
}

// translated is a packet of the model with the ports that the kernel chose.
func (b *bench) translated(ip []byte) []byte {
	ip = slices.Clone(ip)
	p, key := b.boxPort(ip)
	if k, ok := b.ports[key]; ok {
		binary.BigEndian.PutUint16(p, k)
	}
	return ip
}

// canonical is a packet without what a router may choose: the TTL, and of its
// own packets the rest of the header, and a reset's window. Checksums are left out:
// they differ with the ports.
func (b *bench) canonical(ip []byte, own bool) []byte {
	ip = slices.Clone(ip)
	h := parse(ip)
	if h.src.Is6() {
		ip[7] = 0
		if own {
			ip[0], ip[1], ip[2], ip[3] = 0x60, 0, 0, 0
		}
	} else {
		ip[8], ip[10], ip[11] = 0, 0, 0
		if own {
			ip[1], ip[4], ip[5], ip[6], ip[7] = 0, 0, 0, 0, 0
		}
	}
	switch {
	case h.protocol == natlab.ProtocolUDP:
		h.body[6], h.body[7] = 0, 0
	case h.protocol == natlab.ProtocolTCP && len(h.body) >= 20: // not cut
		h.body[16], h.body[17] = 0, 0
		if own {
			h.body[14], h.body[15] = 0, 0
		}
	case h.isICMP():
		h.body[2], h.body[3] = 0, 0
		if h.isError() {
			copy(h.body[8:], b.canonical(b.translated(h.body[8:]), true)) // it may be the box's own
		}
	}
	return ip
}

// left is how a connection is called, and the time that it has.
type left map[string]time.Duration

// compareStates compares the connections of both, with the time they have left.
func (b *bench) compareStates() {
	b.t.Helper()
	begin := time.Now()
	want, ok := b.kernelStates()
	if !ok {
		return
	}
	got := b.modelStates(time.Now())
	// The kernel rounds to seconds, and neither was asked when the other was.
	apart := 2*time.Second + b.slowest + time.Since(begin)
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			b.t.Errorf("the kernel has %s, %v, and the model does not", name, w)
		} else if d := g - w; d < -apart || d > apart {
			b.t.Errorf("%s has %v left in the kernel and %v in the model", name, w, g)
		}
		delete(got, name)
	}
	for name, g := range got {
		b.t.Errorf("the model has %s, %v, and the kernel does not", name, g)
	}
}

// stateLine is a line of nf_conntrack.
var stateLine = regexp.MustCompile(`(udp|tcp|icmp|icmpv6) +\d+ (\d+) .*?src=(\S+) dst=(\S+) (?:sport=(\d+) dport=(\d+)|type=(\d+) code=\d+ id=(\d+)).*?` +
	`src=\S+ dst=(\S+) (?:sport=\d+ dport=(\d+)|type=\d+ code=\d+ id=(\d+))`)

func (b *bench) kernelStates() (left, bool) {
	b.t.Helper()
	var table []byte
	err := b.box.do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/nf_conntrack")
		return err
	})
	if err != nil {
		b.t.Log("the kernel does not show its connections: ", err)
		return nil, false
	}
	out := make(left)
	for _, m := range stateLine.FindAllStringSubmatch(string(table), -1) {
		src, dst, mapped := netip.MustParseAddr(m[3]), netip.MustParseAddr(m[4]), netip.MustParseAddr(m[9])
		if dst == b.at.wan.Addr() && slices.Contains(b.at.insiders, src) {
			continue // between a host and the box: the model has no need of it
		}
		seconds, _ := strconv.Atoi(m[2])
		name := fmt.Sprintf("%s %v:%s %v:%s %v:%s", m[1], src, m[5]+m[8], dst, m[6]+m[7], mapped, m[10]+m[11])
		out[name] = time.Duration(seconds) * time.Second
	}
	return out, true
}

func (b *bench) modelStates(now time.Time) left {
	out := make(left)
	names := map[uint8]string{natlab.ProtocolICMP: "icmp", natlab.ProtocolTCP: "tcp", natlab.ProtocolUDP: "udp", natlab.ProtocolICMPv6: "icmpv6"}
	for _, m := range b.model.Mappings(now) {
		icmp := m.Protocol == natlab.ProtocolICMP || m.Protocol == natlab.ProtocolICMPv6
		inside, remote, mapped := m.Inside.Port(), m.Remote.Port(), m.Outside.Port()
		who, port := m.Remote, &mapped
		if m.Remote.Addr() == b.at.wan.Addr() { // a stranger's connection to the box
			if who, port = m.Inside, &remote; icmp {
				port = &inside
			}
		}
		if icmp {
			remote >>= 8 // the type
			who = netip.AddrPortFrom(who.Addr(), 0)
		}
		if k, ok := b.ports[chosen{m.Protocol, *port, who}]; ok {
			if *port = k; port == &inside {
				mapped = k
			}
		}
		name := fmt.Sprintf("%s %v:%d %v:%d %v:%d", names[m.Protocol], m.Inside.Addr(), inside, m.Remote.Addr(), remote, m.Outside.Addr(), mapped)
		out[name] = m.Expires.Sub(now)
	}
	return out
}
