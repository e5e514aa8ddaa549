package natlab_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bodkin/natlab"
)

// Session limits: of a host, which leaves room for others, and of the box.
func TestSessionLimits(t *testing.T) {
	t.Parallel()
	for _, preset := range []natlab.Preset{natlab.PortRestricted, natlab.Linux, natlab.Firewall} {
		box := preset.NAT()
		box.Limits = natlab.Limits{Host: 3, Box: 5}
		b := newLoneBox(t, box)
		var got []natlab.Reason
		for _, from := range []netip.AddrPort{a5000, b5000} {
			for i := range uint16(4) {
				_, verdict := b.send(natlab.Inside, packetUDP(from, endAt(peerX, 1+i), ""))
				if verdict.Action == natlab.Drop {
					got = append(got, verdict.Reason)
				}
			}
		}
		if want := []natlab.Reason{natlab.HostLimit, natlab.BoxLimit, natlab.BoxLimit}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", preset, got, want)
		}
		// What is there goes on, and what ends makes room.
		b.mapped(a5000, x1)
		b.wait(time.Hour)
		b.mapped(b5000, y1)
	}
}

// A reboot loses all state, and may change the address.
func TestReboot(t *testing.T) {
	t.Parallel()
	for _, preset := range []natlab.Preset{natlab.PortRestricted, natlab.Linux} {
		b := newLoneBox(t, preset.NAT())
		m := b.mapped(a5000, x1)
		b.Reboot(b.now, nil)
		if b.reaches(x1, m) || len(b.Mappings(b.now)) != 0 {
			t.Errorf("%s: state survived", preset)
		}
		if got := b.mapped(a5000, x1); got.Addr() != ourAddress {
			t.Errorf("%s: mapped to %v", preset, got)
		}
		b.Reboot(b.now, []netip.Addr{otherAddress})
		if got := b.mapped(a5000, x1); got.Addr() != otherAddress {
			t.Errorf("%s: with another address mapped to %v", preset, got)
		}
		if b.reaches(x1, m) {
			t.Errorf("%s: the old address still leads inside", preset)
		}
	}
}

func TestMappings(t *testing.T) {
	t.Parallel()
	for _, preset := range []natlab.Preset{natlab.PortRestricted, natlab.ShortTimeout} {
		b := newLoneBox(t, preset.NAT())
		b.out(packetTCP(a5000, x1, "S"))
		b.mapped(b5000, y1)
		moved := b.mapped(a5000, x1)
		got := b.Mappings(b.now)
		for i, m := range got {
			if !m.Expires.After(b.now) {
				t.Errorf("%s: it expires at %v", preset, m.Expires)
			}
			got[i].Expires = time.Time{}
		}
		want := []natlab.Mapping{
			{Protocol: natlab.ProtocolTCP, Inside: a5000, Outside: endAt(ourAddress, 5000), Remote: x1},
			{Protocol: natlab.ProtocolUDP, Inside: a5000, Outside: moved, Remote: x1},
			{Protocol: natlab.ProtocolUDP, Inside: b5000, Outside: endAt(ourAddress, 5000), Remote: y1},
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", preset, got, want)
		}
	}
}

// The same seed makes the same choices.
func TestSameSeedSameBox(t *testing.T) {
	t.Parallel()
	for _, preset := range natlab.Presets() {
		run := func(seed uint64) (log []string) {
			r := rand.New(rand.NewPCG(seed, 7))
			x := preset.NAT().Translator([]netip.Addr{ourAddress}, []netip.Prefix{insideNet}, rand.New(rand.NewPCG(seed, 8)))
			now := time.Unix(0, 0)
			for range 500 {
				now = now.Add(time.Duration(r.IntN(int(time.Second))))
				from := []netip.Addr{hostA, hostB}[r.IntN(2)]
				out, verdict := x.Translate(now, natlab.Inside, packetUDP(endAt(from, uint16(5000+r.IntN(10))), endAt(peerX, uint16(1+r.IntN(10))), ""), nil)
				log = append(log, fmt.Sprint(out, verdict))
			}
			return append(log, fmt.Sprint(x.Mappings(now)))
		}
		if !slices.Equal(run(1), run(1)) {
			t.Errorf("%s: two runs differ", preset)
		}
	}
}

// Time that runs backwards a little is no time at all.
func TestTimeRunsBackwards(t *testing.T) {
	t.Parallel()
	for _, preset := range natlab.Presets() {
		b := newLoneBox(t, preset.NAT())
		b.send(natlab.Inside, packetUDP(a5000, x1, ""))
		b.now = b.now.Add(-time.Hour)
		b.send(natlab.Inside, packetUDP(b5000, x1, ""))
	}
}

// What is remembered is bounded, whatever comes, and forgotten in the end.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for _, preset := range []natlab.Preset{natlab.FullCone, natlab.SymmetricBusy, natlab.LinuxAccept, natlab.Firewall} {
		box := preset.NAT()
		box.Limits.Box = 100
		b := newLoneBox(t, box)
		for i := range 10_000 {
			remote := endAt(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 9)
			b.Translate(b.now, natlab.Side(i%2), packetUDP(a5000, remote, ""), nil)
			b.Translate(b.now, natlab.Outside, packetUDP(remote, endAt(ourAddress, uint16(i)), ""), nil)
			b.wait(time.Millisecond)
		}
		if n := len(b.Mappings(b.now)); n > 100 {
			t.Errorf("%s: %d mappings", preset, n)
		}
		b.wait(24 * time.Hour)
		if n := len(b.Mappings(b.now)); n > 0 {
			t.Errorf("%s: %d mappings after a day", preset, n)
		}
	}
}
