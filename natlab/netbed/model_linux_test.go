package netbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/natlab"

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
				for i, family := range []string{"IPv4", "IPv6"} {
					t.Run(fmt.Sprint(family, " seed ", seed), func(t *testing.T) { compare(t, boxes[0], families[i], seed) })
				}
			}
		})
	}
}

const (
	rounds = 10 // boxes for each preset
	steps  = 60 // packets for each box
	// tooSlow is when a flow is near the two seconds at which it becomes a stream.
	tooSlow = 1800 * time.Millisecond
	shown   = 40 // lines of a failure
)

// bench is a box of the kernel and its model, with two wires.
type bench struct {
	t     *testing.T
	box   *ns
	wires [2]*wire // by natlab.Side
	model *natlab.Translator
	r     *rand.Rand
	log   []string
	at    addresses
	began time.Time
	// slowest is how long the two were apart at most.
	slowest time.Duration
	// void says that what follows cannot be compared: a random number hit one of
	// those that the test uses, or the machine was too slow.
	void bool
	// forwards says that the box is a plain router.
	forwards bool

	// What each has sent: pairs of the same packet.
	sent [2][]pair
	// ports are those that the kernel chose, with the model's.
	ports map[chosen]uint16
}

// pair is a packet as the kernel and as the model has it.
type pair struct{ kernel, model []byte }

// wire is an end of a link to the kernel's box.
type wire struct {
	fd       int
	mac, far net.HardwareAddr
	ask      []byte // an ARP request that the box answers
}

// addresses are those of a bench, of one family.
type addresses struct {
	wan, lan  netip.Prefix // the box's own
	insiders  []netip.Addr
	router    netip.Addr // outside, who sends errors
	outsiders []netip.Addr
}

var families = [...]addresses{
	{
		wan: netip.MustParsePrefix("203.0.113.10/24"), lan: netip.MustParsePrefix("198.19.0.1/24"),
		insiders:  []netip.Addr{netip.MustParseAddr("198.19.0.2"), netip.MustParseAddr("198.19.0.3")},
		router:    netip.MustParseAddr("203.0.113.1"),
		outsiders: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
	},
	{
		wan: netip.MustParsePrefix("2001:db8::10/64"), lan: netip.MustParsePrefix("2001:db8:1::1/64"),
		insiders:  []netip.Addr{netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8:1::3")},
		router:    netip.MustParseAddr("2001:db8::1"),
		outsiders: []netip.Addr{netip.MustParseAddr("2001:db8:2::1"), netip.MustParseAddr("2001:db8:2::2")},
	},
}

func compare(t *testing.T, box natlab.NAT, at addresses, seed uint64) {
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

	b := newBench(t, box, at, seed)
	for range steps {
		b.step()
		if t.Failed() || b.void {
			break
		}
	}
	if b.void {
		return
	}
	if !t.Failed() {
		b.compareStates()
	}
	if t.Failed() {
		t.Log("\n" + strings.Join(b.log[max(0, len(b.log)-shown):], "\n"))
	}
}

func newBench(t *testing.T, nat natlab.NAT, at addresses, seed uint64) *bench {
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
	must(ours.sysctl("ipv6/conf/default/disable_ipv6", "1"))
	b := &bench{
		t: t, box: box, at: at, r: rand.New(rand.NewPCG(seed, 0)), ports: make(map[chosen]uint16), forwards: !nat.Conntrack,
		model: nat.Translator([]netip.Addr{at.wan.Addr()}, []netip.Prefix{at.lan.Masked()}, rand.New(rand.NewPCG(seed, 1))),
	}
	for side, name := range []string{"lan", "wan"} {
		mac := net.HardwareAddr{2, 0, 0, 0, byte(side), 1}
		far := net.HardwareAddr{2, 0, 0, 0, byte(side), 2}
		must(veth(ours, name, mac, box, name, far))
		must(up(ours, name, [2]netip.Prefix{}))
		// ARP is what says that the box is done: it has an IPv4 address in any case.
		v4 := []netip.Prefix{families[0].lan, families[0].wan}[side]
		prefixes := [2]netip.Prefix{v4, []netip.Prefix{at.lan, at.wan}[side]}
		if prefixes[1] == v4 {
			prefixes[1] = netip.Prefix{}
		}
		must(up(box, name, prefixes))
		must(plain(box, name))
		neighbours := append([][]netip.Addr{at.insiders, {at.router}}[side], v4.Addr().Next())
		for _, a := range neighbours {
			must(addNeighbour(box, name, a, mac))
		}
		b.wires[side], err = newWire(ours, name, mac, far, v4.Addr().Next(), v4.Addr())
		must(err)
		t.Cleanup(func() { _ = unix.Close(b.wires[side].fd) })
	}
	must(addRoute(box, "wan", netip.Prefix{}, at.router))
	must(box.sysctl("ipv4/ip_forward", "1"))
	must(box.sysctl("ipv6/conf/all/forwarding", "1"))
	// No limit for ICMP errors; the one for all of them is the namespace's own
	// since Linux 6.12.
	must(box.sysctl("ipv4/icmp_ratelimit", "0"))
	must(box.sysctl("ipv6/icmp/ratelimit", "0"))
	for _, s := range []string{"per_sec", "burst"} {
		if box.sysctl("ipv4/icmp_msgs_"+s, "1000000") != nil {
			t.Skip("this kernel limits all ICMP errors together")
		}
	}
	must(rules(box, nat))
	must(awaitCarrier(ours)) // packets before that are lost
	must(awaitCarrier(box))
	b.began = time.Now()
	return b
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
	if ip[0]>>4 == 6 {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
	}
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
		case unix.ETH_P_IPV6:
			if !isLocal(parse(buffer[14:n])) {
				out = append(out, buffer[14:n])
			}
		}
	}
}

// isLocal reports whether a packet is the link's own business: multicast listener
// and neighbour discovery.
func isLocal(h header) bool {
	return h.dst.IsMulticast() || h.protocol == natlab.ProtocolICMPv6 && h.body[0] >= 130 && h.body[0] < 144
}

// step gives the next packet to both, and compares.
func (b *bench) step() {
	b.t.Helper()
	from, p := b.next()
	if p.kernel == nil {
		return
	}
	if h := parse(p.kernel); h.dst == b.at.wan.Addr() && (b.forwards || h.protocol == natlab.ProtocolICMP && h.body[0] == icmpTimestamp) {
		return // the model is no host: it serves nothing, and does not know the time of day
	}
	b.learn(p.kernel, p.model)
	begin := time.Now()
	kernel := b.kernel(from, slices.Clone(p.kernel))
	sent, verdict := b.model.Translate(time.Now(), from, slices.Clone(p.model), nil)
	b.slowest = max(b.slowest, time.Since(begin))
	if time.Since(b.began) > tooSlow {
		b.void = true
		return
	}
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
			own := model[side][i].Own
			if want, got := b.canonical(k, own), b.canonical(b.translated(m), own); !bytes.Equal(got, want) {
				b.t.Errorf("they send different packets %v:\n%x\n%x", natlab.Side(side), want, got)
				return
			}
			if !intact(k) || !intact(m) {
				b.t.Errorf("a checksum is wrong; the kernel's %v, the model's %v", !intact(k), !intact(m))
			}
			b.sent[side] = append(b.sent[side], pair{k, m})
		}
	}
}
