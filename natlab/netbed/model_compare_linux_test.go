package netbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
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
func boxPort(ip []byte) ([]byte, chosen) {
	src, dst := addrs(ip)
	body := ip[int(ip[0]&15)*4:]
	near, far, remote := body[:2], body[2:4], dst
	switch {
	case dst == wanAddr:
		near, far, remote = far, near, src
	case src != wanAddr:
		return nil, chosen{}
	}
	switch ip[9] {
	case natlab.ProtocolUDP, natlab.ProtocolTCP:
		return near, chosen{ip[9], binary.BigEndian.Uint16(near), netip.AddrPortFrom(remote, binary.BigEndian.Uint16(far))}
	case natlab.ProtocolICMP:
		if slices.Contains([]byte{8, 0, 13, 14}, body[0]) {
			return body[4:6], chosen{ip[9], binary.BigEndian.Uint16(body[4:]), netip.AddrPortFrom(remote, 0)}
		}
	}
	return nil, chosen{}
}

// learn notes the ports that the two chose for the same thing.
func (b *bench) learn(kernel, model []byte) {
	k, _ := boxPort(kernel)
	m, key := boxPort(model)
	if k == nil || m == nil || kernel[9] != model[9] {
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
	p, key := boxPort(ip)
	if k, ok := b.ports[key]; ok {
		binary.BigEndian.PutUint16(p, k)
	}
	return ip
}

// canonical is a packet without what a router may choose: the TTL, and of its
// own packets the identifier, type of service and flags. Checksums are checked
// and left out.
func (b *bench) canonical(ip []byte) []byte {
	ip = slices.Clone(ip)
	header := int(ip[0]&15) * 4
	body := ip[header:]
	ip[8], ip[10], ip[11] = 0, 0, 0
	ip[1], ip[4], ip[5], ip[6], ip[7] = 0, 0, 0, 0, 0
	switch ip[9] {
	case natlab.ProtocolUDP:
		body[6], body[7] = 0, 0
	case natlab.ProtocolTCP:
		if len(body) >= 20 { // not cut
			body[16], body[17] = 0, 0
			body[14], body[15] = 0, 0 // the window
		}
	case natlab.ProtocolICMP:
		body[2], body[3] = 0, 0
		if !isError(ip) {
			break
		}
		quoted := body[8:]
		if len(quoted) < 28 {
			break
		}
		copy(quoted, b.canonical(b.translated(quoted)))
	}
	return ip
}

// compareStates compares the connections of both, with the time they have left.
func (b *bench) compareStates() {
	b.t.Helper()
	var table []byte
	err := b.box.do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/nf_conntrack")
		return err
	})
	if err != nil {
		b.t.Skip("the kernel does not show its connections: ", err)
	}
	want := map[string]int{}
	line := regexp.MustCompile(`(udp|tcp|icmp) +\d+ (\d+) .*?src=(\S+) dst=(\S+) (?:sport=(\d+) dport=(\d+)|type=(\d+) code=\d+ id=(\d+)).*?src=\S+ dst=(\S+) (?:sport=\d+ dport=(\d+)|type=\d+ code=\d+ id=(\d+))`)
	var left int
	for _, m := range line.FindAllStringSubmatch(string(table), -1) {
		if m[4] == wanAddr.String() && slices.Contains(insiders, netip.MustParseAddr(m[3])) {
			continue // between a host and the box: the model has no need of it
		}
		_, _ = fmt.Sscan(m[2], &left)
		want[fmt.Sprint(m[1], " ", m[3], ":", m[5], m[8], " ", m[4], ":", m[6], m[7], " ", m[9], ":", m[10], m[11])] = left
	}
	now := time.Now()
	got := map[string]int{}
	names := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp"}
	for _, m := range b.model.Mappings(now) {
		remote, mapped := m.Remote.Port(), m.Outside.Port()
		if m.Protocol == 1 {
			remote >>= 8
		}
		inside := m.Inside.Port()
		who, at := m.Remote, &mapped
		if m.Remote.Addr() == wanAddr { // a stranger's connection to the box
			if who, at = m.Inside, &remote; m.Protocol == 1 {
				at = &inside
			}
		}
		if m.Protocol == 1 {
			who = netip.AddrPortFrom(who.Addr(), 0)
		}
		if k, ok := b.ports[chosen{m.Protocol, *at, who}]; ok {
			if *at = k; at == &inside {
				mapped = k
			}
		}
		name := fmt.Sprintf("%s %v:%d %v:%d %v:%d", names[m.Protocol], m.Inside.Addr(), inside, m.Remote.Addr(), remote, m.Outside.Addr(), mapped)
		got[name] = int(m.Expires.Sub(now) / time.Second)
	}
	for name, left := range want {
		g, ok := got[name]
		if !ok {
			b.t.Errorf("the kernel has %s, %d s, and the model does not", name, left)
		} else if d := g - left; d < -3 || d > 3 {
			b.t.Errorf("%s has %d s left in the kernel and %d s in the model", name, left, g)
		}
		delete(got, name)
	}
	for name, left := range got {
		b.t.Errorf("the model has %s, %d s, and the kernel does not", name, left)
	}
}
