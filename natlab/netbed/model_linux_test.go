package netbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The model of a preset that Linux can be is Linux: on the same packets from
// both sides, in random order, both send the same packets, but for what the
// random numbers of either chose, and keep the same connections.
func TestModelIsLinux(t *testing.T) {
	Need(t)
	for _, preset := range natlab.KernelPresets() {
		boxes := preset.Boxes()
		if len(boxes) > 1 {
			continue // of those that are compared anyway
		}
		t.Run(string(preset), func(t *testing.T) {
			for seed := range uint64(rounds) {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { compare(t, boxes[0], seed) })
			}
		})
	}
}

const (
	rounds = 200 // boxes for each preset
	steps  = 60 // packets for each box
	shown  = 40 // lines of a failure
)

// bench is a box of the kernel and its model, with two wires.
type bench struct {
	t     *testing.T
	box   *ns
	wires [2]*wire // by natlab.Side
	model *natlab.Translator
	r     *rand.Rand
	log   []string
	// forwards says that the box is a plain router.
	forwards bool

	// What each has sent: pairs of the same packet.
	sent [2][]pair
	// ports are those that the kernel chose, with the model's.
	ports map[uint32]uint16
}

// pair is a packet as the kernel and as the model has it.
type pair struct{ kernel, model []byte }

// wire is an end of a link to the kernel's box.
type wire struct {
	fd       int
	mac, far net.HardwareAddr
	ask      []byte // an ARP request that the box answers
}

var (
	wanAddr  = netip.MustParseAddr("203.0.113.10")
	wanNet   = netip.MustParsePrefix("203.0.113.10/24")
	lanNet   = netip.MustParsePrefix("198.19.0.1/24")
	insiders = []netip.Addr{netip.MustParseAddr("198.19.0.2"), netip.MustParseAddr("198.19.0.3")}
	// The router outside is the one who sends errors.
	router    = netip.MustParseAddr("203.0.113.1")
	outsiders = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
)

func compare(t *testing.T, box natlab.NAT, seed uint64) {
	t.Helper()
	runtime.LockOSThread() // the wires' packets stay in order on one CPU
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if before.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()

	b := newBench(t, box, seed)
	for range steps {
		b.step()
		if t.Failed() {
			break
		}
	}
	if !t.Failed() {
		b.compareStates()
	}
	if t.Failed() {
		t.Log("\n" + strings.Join(b.log[max(0, len(b.log)-shown):], "\n"))
	}
}

func newBench(t *testing.T, nat natlab.NAT, seed uint64) *bench {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	box, err := newNS()
	must(err)
	t.Cleanup(box.close)
	ours, err := newNS()
	must(err)
	t.Cleanup(ours.close)
	r := rand.New(rand.NewPCG(seed, 0))
	b := &bench{
		t: t, box: box, r: r, ports: make(map[uint32]uint16), forwards: !nat.Conntrack,
		model: nat.Translator([]netip.Addr{wanAddr}, []netip.Prefix{lanNet.Masked()}, rand.New(rand.NewPCG(seed, 1))),
	}
	for side, name := range []string{"lan", "wan"} {
		mac := net.HardwareAddr{2, 0, 0, 0, byte(side), 1}
		far := net.HardwareAddr{2, 0, 0, 0, byte(side), 2}
		must(ours.sysctl("ipv6/conf/default/disable_ipv6", "1"))
		must(box.sysctl("ipv6/conf/default/disable_ipv6", "1"))
		must(veth(ours, name, mac, box, name, far))
		prefix := []netip.Prefix{lanNet, wanNet}[side]
		must(up(ours, name, [2]netip.Prefix{}))
		must(up(box, name, [2]netip.Prefix{prefix}))
		must(plain(box, name))
		neighbours := [][]netip.Addr{insiders, {router}}[side]
		for _, a := range neighbours {
			must(addNeighbour(box, name, a, mac))
		}
		b.wires[side], err = newWire(ours, name, mac, far, neighbours[0], prefix.Addr())
		must(err)
		t.Cleanup(func() { _ = unix.Close(b.wires[side].fd) })
	}
	must(addRoute(box, "wan", netip.Prefix{}, router))
	must(box.sysctl("ipv4/ip_forward", "1"))
	must(box.sysctl("ipv4/icmp_ratelimit", "0"))
	must(rules(box, nat))
	must(awaitUp(ours)) // packets before that are lost
	must(awaitUp(box))
	return b
}

// awaitUp waits until both wires carry.
func awaitUp(n *ns) error {
	for _, name := range []string{"lan", "wan"} {
		for {
			l, err := n.links.LinkByName(name)
			if err != nil {
				return err
			}
			if l.Attrs().OperState == netlink.OperUp {
				break
			}
			runtime.Gosched()
		}
	}
	return nil
}

func newWire(n *ns, name string, mac, far net.HardwareAddr, us, box netip.Addr) (*wire, error) {
	w := &wire{mac: mac, far: far}
	// Ethernet, then ARP: who has box? Tell us.
	w.ask = slices.Concat(far, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, us.AsSlice(), make([]byte, 6), box.AsSlice())
	return w, n.do(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL))); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		// Rather than to wait for an answer that is lost.
		_ = unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index})
	})
}

// kernel gives a packet to the kernel's box, and returns what left that by then.
func (b *bench) kernel(from natlab.Side, ip []byte) (out [2][][]byte) {
	b.t.Helper()
	w := b.wires[from]
	frame := slices.Concat(w.far, w.mac, []byte{8, 0}, ip)
	for _, f := range [][]byte{frame, w.ask} {
		if _, err := unix.Write(w.fd, f); err != nil {
			b.t.Fatal(err)
		}
	}
	// The answer to the question comes after everything else.
	out[from] = b.read(w, 0)
	other := natlab.Outside - from
	out[other] = b.read(b.wires[other], unix.MSG_DONTWAIT)
	return out
}

// read reads IP packets until an ARP reply comes, or with MSG_DONTWAIT until
// there are no more.
func (b *bench) read(w *wire, flags int) (out [][]byte) {
	b.t.Helper()
	for {
		buffer := make([]byte, 2048)
		n, _, err := unix.Recvfrom(w.fd, buffer, flags)
		switch {
		case err == unix.EAGAIN && flags != 0:
			return out
		case err == unix.EINTR:
			continue
		case err != nil:
			b.t.Fatal(err)
		}
		switch binary.BigEndian.Uint16(buffer[12:]) {
		case unix.ETH_P_ARP:
			if buffer[21] == 2 {
				return out
			}
		case unix.ETH_P_IP:
			total := int(binary.BigEndian.Uint16(buffer[16:]))
			out = append(out, buffer[14:min(n, 14+total)])
		}
	}
}

// step gives the next packet to both, and compares.
func (b *bench) step() {
	b.t.Helper()
	from, p := b.next()
	if p.kernel == nil {
		return
	}
	const timestamp = 13
	if _, to := addrs(p.kernel); to == wanAddr && (b.forwards || p.kernel[9] == natlab.ProtocolICMP && p.kernel[20] == timestamp) {
		return // the model is no host: it serves nothing, and does not know the time of day
	}
	kernel := b.kernel(from, slices.Clone(p.kernel))
	sent, verdict := b.model.Translate(time.Now(), from, slices.Clone(p.model), nil)
	b.log = append(b.log, fmt.Sprintf("%v %s: %v", from, describe(p.kernel), verdict))
	var model [2][]natlab.Sent
	for _, s := range sent {
		model[s.To] = append(model[s.To], s)
	}
	for side := range kernel {
		for _, k := range kernel[side] {
			b.log = append(b.log, fmt.Sprintf("   kernel: %v %s", natlab.Side(side), describe(k)))
		}
		for _, m := range model[side] {
			b.log = append(b.log, fmt.Sprintf("   model:  %v %s", natlab.Side(side), describe(m.Data)))
		}
		if len(kernel[side]) != len(model[side]) {
			b.t.Errorf("the kernel sends %d packets %v, the model %d", len(kernel[side]), natlab.Side(side), len(model[side]))
			return
		}
		for i, k := range kernel[side] {
			m := model[side][i].Data
			b.learn(k, m)
			if !bytes.Equal(b.canonical(k), b.canonical(b.translated(m))) {
				b.t.Errorf("they send different packets %v:\n%x\n%x", natlab.Side(side), b.canonical(k), b.canonical(b.translated(m)))
				return
			}
			b.sent[side] = append(b.sent[side], pair{k, m})
		}
	}
}

// next makes a packet from one of the sides.
func (b *bench) next() (natlab.Side, pair) {
	pick := func(n int) int { return b.r.IntN(n) }
	side := natlab.Side(pick(2))
	us, them := insiders[pick(len(insiders))], outsiders[pick(len(outsiders))]
	ourPort, theirPort := uint16(6000+pick(2)), uint16(7000+pick(2))
	if pick(8) == 0 {
		ourPort = []uint16{80, 600}[pick(2)]
	}
	src, dst := us, them
	if side == natlab.Outside {
		src, dst = them, wanAddr
		if pick(8) == 0 {
			dst = us
		}
		ourPort, theirPort = theirPort, ourPort
		// Mostly to something that was mapped.
		if n := len(b.sent[natlab.Outside]); n > 0 && pick(4) > 0 {
			return side, b.reply(b.sent[natlab.Outside][pick(n)], router)
		}
	} else if pick(10) == 0 {
		dst = wanAddr
	} else if n := len(b.sent[natlab.Inside]); n > 0 && pick(4) == 0 {
		return side, b.reply(b.sent[natlab.Inside][pick(n)], us)
	}
	var ip []byte
	switch pick(4) {
	case 0:
		ip = makeICMP(src, dst, []byte{8, 8, 8, 0, 13, 14, 9, 42}[pick(8)], 0, uint16(9+pick(2)), []byte("payload"))
	case 1, 2:
		ip = makeUDP(src, dst, ourPort, theirPort, "payload")
	case 3:
		ip = b.segment(src, dst, ourPort, theirPort, b.flags(), b.r.Uint64())
	}
	return side, pair{ip, ip}
}

func (b *bench) flags() byte {
	return []byte{2, 2, 2, 18, 16, 17, 4, 20, 24, 1, 3, 0}[b.r.IntN(12)]
}

// segment is one of a connection, mostly: what is not quite as it should be, in
// sequence, window or options, seed says.
func (b *bench) segment(src, dst netip.Addr, from, to uint16, flags byte, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(usual uint32, others ...uint32) uint32 {
		if r.IntN(3) > 0 {
			return usual
		}
		return others[r.IntN(len(others))]
	}
	s := segment{flags: flags, seq: 1001, window: uint16(pick(1000, 0, 1, 65535))}
	if flags&2 != 0 {
		s.seq = 1000
		s.options = [][]byte{nil, nil, {2, 4, 5, 180}, {4, 2, 1, 1}, {1, 3, 3, 7, 4, 2, 0, 0}}[r.IntN(5)]
	} else if r.IntN(8) == 0 {
		s.options = []byte{1, 1, 5, 10, 0, 0, 3, 240, 0, 0, 4, 76}
	}
	s.seq = pick(s.seq, s.seq+1, s.seq+10, s.seq+2000, s.seq+80000, s.seq-1, s.seq-70000, 0)
	if flags&16 != 0 {
		s.ack = pick(1001, 1000, 1002, 1011, 3001, 90000, 0)
	}
	s.data = make([]byte, pick(0, 1, 10, 900))
	return makeTCP(src, dst, from, to, s)
}

// reply is a packet that answers one that was seen, or an error about it.
func (b *bench) reply(p pair, third netip.Addr) pair {
	kind, flags, other := b.r.IntN(4), b.flags(), b.r.IntN(6) == 0
	code := []byte{11, 3, 3, 5, 12, 4}[b.r.IntN(6)]
	who, cut := b.r.IntN(3), b.r.IntN(2) == 0
	like := b.r.Uint64()
	make1 := func(seen []byte) []byte {
		from, to := addrs(seen)
		header := int(seen[0]&15) * 4
		body := seen[header:]
		if kind == 0 && !isError(seen) {
			by := []netip.Addr{to, third, third}[who]
			quoted := seen
			if cut {
				quoted = seen[:min(len(seen), header+8)]
			}
			return makeICMP(by, from, code, 3, 0, quoted)
		}
		switch seen[9] {
		case natlab.ProtocolUDP:
			src, dst := binary.BigEndian.Uint16(body[2:]), binary.BigEndian.Uint16(body)
			if other {
				src++
			}
			return makeUDP(to, from, src, dst, "reply")
		case natlab.ProtocolTCP:
			return b.segment(to, from, binary.BigEndian.Uint16(body[2:]), binary.BigEndian.Uint16(body), flags, like)
		}
		if body[0] != 8 && body[0] != 0 && body[0] != 13 {
			return nil
		}
		answer := map[byte]byte{8: 0, 0: 8, 13: 14}[body[0]]
		if other {
			answer = body[0]
		}
		return makeICMP(to, from, answer, 0, binary.BigEndian.Uint16(body[4:]), []byte("reply"))
	}
	return pair{make1(p.kernel), make1(p.model)}
}

func isError(ip []byte) bool {
	return ip[9] == natlab.ProtocolICMP && slices.Contains([]byte{3, 4, 5, 11, 12}, ip[int(ip[0]&15)*4])
}

// learn notes the ports that the two chose for the same thing.
func (b *bench) learn(kernel, model []byte) {
	if len(kernel) != len(model) || kernel[9] != model[9] {
		return
	}
	k, m := mappedPort(kernel), mappedPort(model)
	if k == nil || m == nil {
		return
	}
	key := uint32(kernel[9])<<16 | uint32(binary.BigEndian.Uint16(m))
	if _, known := b.ports[key]; !known && binary.BigEndian.Uint16(k) != binary.BigEndian.Uint16(m) {
		b.ports[key] = binary.BigEndian.Uint16(k)
	}
}

// mappedPort is the source port, or the identifier, of a packet that left.
func mappedPort(ip []byte) []byte {
	if src, _ := addrs(ip); src != wanAddr {
		return nil
	}
	switch body := ip[int(ip[0]&15)*4:]; ip[9] {
	case natlab.ProtocolUDP, natlab.ProtocolTCP:
		return body[:2]
	case natlab.ProtocolICMP:
		switch body[0] {
		case 8, 0, 13, 14:
			return body[4:6]
		}
	}
	return nil
}

// translated is a packet of the model with the ports that the kernel chose.
func (b *bench) translated(ip []byte) []byte {
	ip = slices.Clone(ip)
	if p := mappedPort(ip); p != nil {
		if k, ok := b.ports[uint32(ip[9])<<16|uint32(binary.BigEndian.Uint16(p))]; ok {
			binary.BigEndian.PutUint16(p, k)
		}
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
		if _, dst := addrs(quoted); dst == wanAddr {
			// What the error answers came to a mapped port or identifier.
			port := quoted[22:24]
			if quoted[9] == natlab.ProtocolICMP {
				port = quoted[24:26]
			}
			if k, ok := b.ports[uint32(quoted[9])<<16|uint32(binary.BigEndian.Uint16(port))]; ok {
				binary.BigEndian.PutUint16(port, k)
			}
		}
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
		if k, ok := b.ports[uint32(m.Protocol)<<16|uint32(mapped)]; ok {
			mapped = k
		}
		inside := m.Inside.Port()
		if m.Remote.Addr() == wanAddr { // a stranger's connection to the box
			at := &remote
			if m.Protocol == 1 {
				at = &inside
			}
			if k, ok := b.ports[uint32(m.Protocol)<<16|uint32(*at)]; ok {
				*at = k
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

func addrs(ip []byte) (src, dst netip.Addr) {
	return netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
}

func describe(ip []byte) string {
	p, _ := natlab.ParsePacket(ip)
	s := fmt.Sprintf("protocol %d %v > %v", p.Protocol, p.From, p.To)
	body := ip[int(ip[0]&15)*4:]
	switch p.Protocol {
	case natlab.ProtocolTCP:
		if len(body) >= 20 { // not cut
			s += fmt.Sprintf(" flags %05b seq %d ack %d window %d data %d", body[13],
				binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:]), binary.BigEndian.Uint16(body[14:]), len(body)-int(body[12]>>4)*4)
		}
	case natlab.ProtocolICMP:
		s += fmt.Sprintf(" type %d id %d", body[0], binary.BigEndian.Uint16(body[4:]))
		if len(body) >= 36 {
			s += " {" + describe(body[8:]) + "}"
		}
	}
	return s
}

func sum16(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func makeIP(src, dst netip.Addr, protocol byte, body []byte, checkAt int) []byte {
	ip := append(make([]byte, 20), body...)
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], 1234)
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], sum16(ip[:20], 0))
	sum := uint32(0)
	if protocol != natlab.ProtocolICMP {
		sum = uint32(protocol) + uint32(len(body))
		for at := 12; at < 20; at += 2 {
			sum += uint32(binary.BigEndian.Uint16(ip[at:]))
		}
	}
	binary.BigEndian.PutUint16(ip[20+checkAt:], sum16(ip[20:], sum))
	return ip
}

func makeUDP(src, dst netip.Addr, from, to uint16, data string) []byte {
	b := append(make([]byte, 8), data...)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return makeIP(src, dst, natlab.ProtocolUDP, b, 6)
}

// segment is what a TCP segment says.
type segment struct {
	seq, ack      uint32
	flags         byte
	window        uint16
	options, data []byte
}

func makeTCP(src, dst netip.Addr, from, to uint16, s segment) []byte {
	b := slices.Concat(make([]byte, 20), s.options, s.data)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], s.seq)
	binary.BigEndian.PutUint32(b[8:], s.ack)
	b[12], b[13] = byte(20+len(s.options))/4<<4, s.flags
	binary.BigEndian.PutUint16(b[14:], s.window)
	return makeIP(src, dst, natlab.ProtocolTCP, b, 16)
}

func makeICMP(src, dst netip.Addr, kind, code byte, id uint16, data []byte) []byte {
	b := append(make([]byte, 8), data...)
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint16(b[4:], id)
	return makeIP(src, dst, natlab.ProtocolICMP, b, 2)
}
