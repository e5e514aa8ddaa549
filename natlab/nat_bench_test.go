package natlab_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"bodkin/natlab"
)

// A packet out and its reply in, of 1000 flows in turn: ns/op is for both.
func BenchmarkTranslate(b *testing.B) {
	for _, preset := range []natlab.Preset{natlab.PortRestricted, natlab.FullCone, natlab.SymmetricSequential, natlab.Linux, natlab.Firewall, natlab.Open} {
		b.Run(string(preset), func(b *testing.B) {
			x := preset.NAT().Translator([]netip.Addr{ourAddress}, []netip.Prefix{insideNet}, rand.New(rand.NewPCG(1, 2)))
			now := time.Unix(0, 0)
			const flows = 1000
			var packets, replies [flows][]byte
			var sent []natlab.Sent
			for i := range packets {
				from, to := endAt(hostA, uint16(2000+i)), endAt(peerX, uint16(i+1))
				packets[i] = natlab.AppendUDP(nil, from, to, 64, make([]byte, 1200))
				sent, _ = x.Translate(now, natlab.Inside, append([]byte(nil), packets[i]...), sent[:0])
				p, _ := natlab.ParsePacket(sent[0].Data)
				replies[i] = natlab.AppendUDP(nil, to, p.From, 64, make([]byte, 1200))
			}
			buffer := make([]byte, 2000)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				now = now.Add(time.Microsecond)
				sent, _ = x.Translate(now, natlab.Inside, buffer[:copy(buffer, packets[i%flows])], sent[:0])
				sent, _ = x.Translate(now, natlab.Outside, buffer[:copy(buffer, replies[i%flows])], sent[:0])
				i++
			}
			if len(sent) != 1 {
				b.Fatal("the last reply did not come in")
			}
		})
	}
}

// New mappings as fast as they come, while old ones expire.
func BenchmarkNewMappings(b *testing.B) {
	for _, preset := range []natlab.Preset{natlab.PortRestricted, natlab.SymmetricSequential, natlab.Linux} {
		b.Run(string(preset), func(b *testing.B) {
			x := preset.NAT().Translator([]netip.Addr{ourAddress}, []netip.Prefix{insideNet}, rand.New(rand.NewPCG(1, 2)))
			now := time.Unix(0, 0)
			packet := natlab.AppendUDP(nil, a5000, x1, 64, nil)
			buffer := make([]byte, len(packet))
			var sent []natlab.Sent
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				now = now.Add(10 * time.Millisecond)
				copy(buffer, packet)
				buffer[20], buffer[21] = byte(4+i>>8%250), byte(i) // the port
				buffer[19] = byte(i >> 16)                         // and the peer
				sent, _ = x.Translate(now, natlab.Inside, buffer, sent[:0])
				i++
			}
		})
	}
}
