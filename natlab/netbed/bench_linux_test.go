package netbed_test

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Packets of 1250 bytes from host to host through the core, as fast as they
// arrive, with a window of 256 packets so that no queue overflows. Beside Mbit/s
// it reports how much of a CPU the whole process takes, endpoints included.
// Behind a NAT they are from the model bed: the packets pass a box in Go.
func BenchmarkCore(b *testing.B) {
	for name, topology := range map[string]natlab.Topology{
		"nat": {
			Boxes: []natlab.Box{{Name: "home", Preset: natlab.PortRestricted}},
			Hosts: []natlab.Host{{Name: "x", Behind: "home"}, {Name: "y"}},
		},
		"plain": {Hosts: []natlab.Host{{Name: "x"}, {Name: "y"}}},
		"delay": {Hosts: []natlab.Host{
			{Name: "x", Link: natlab.Link{Delay: 2 * time.Millisecond}},
			{Name: "y", Link: natlab.Link{Delay: 2 * time.Millisecond}},
		}},
	} {
		b.Run(name, func(b *testing.B) { blast(b, topology, 1250) })
	}
}

func blast(b *testing.B, topology natlab.Topology, size int) {
	b.Helper()
	l := start(b, netbed.Model, topology)
	x, y := listen(b, l.Host("x")), listen(b, l.Host("y"))
	_ = y.SetReadBuffer(4 << 20)
	to := netip.AddrPortFrom(l.Host("y").Addr(), port(y))
	var received atomic.Int64
	go count(y, &received)
	const burst = 16
	segments := segmentControl(b, size)
	data := make([]byte, burst*size)
	before := cpu()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	sent, lost := int64(0), int64(0)
	for sent < int64(b.N) {
		stall := time.Now()
		for sent-lost-received.Load() > 256 {
			if time.Since(stall) > 200*time.Millisecond {
				lost = sent - received.Load()
			}
			_, _ = unix.Poll(nil, 0)
		}
		if _, _, err := x.WriteMsgUDPAddrPort(data, segments, to); err != nil {
			b.Fatal(err)
		}
		sent += burst
	}
	for d := time.Now(); received.Load() < sent-lost && time.Since(d) < 200*time.Millisecond; {
		_, _ = unix.Poll(nil, 1)
	}
	took := time.Since(begin)
	b.StopTimer()
	got := received.Load()
	b.ReportMetric(float64(got)*float64(size)*8/took.Seconds()/1e6, "Mbit/s")
	b.ReportMetric(float64(sent-got)*100/float64(sent), "%lost")
	b.ReportMetric(float64(cpu()-before)/float64(took), "CPUs")
}

// count counts what arrives.
func count(c *net.UDPConn, n *atomic.Int64) {
	batch := make([]ipv4.Message, 32)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 2000)}
	}
	p := ipv4.NewPacketConn(c)
	for {
		m, err := p.ReadBatch(batch, 0)
		if err != nil {
			return
		}
		n.Add(int64(m))
	}
}

// segmentControl is the control message that lets the kernel cut what we write.
func segmentControl(tb testing.TB, size int) []byte {
	tb.Helper()
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	b[unix.CmsgLen(0)], b[unix.CmsgLen(0)+1] = byte(size), byte(size>>8)
	return b
}

// cpu is the time that this process has spent computing.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
