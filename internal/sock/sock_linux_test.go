package sock

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refusing is the way out of a socket that answers bursts of several segments
// with an error, as a device without checksum offload does.
type refusing struct {
	*net.UDPConn
	err    syscall.Errno // 0: nothing is refused
	bursts int
	single int
}

func (r *refusing) WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (int, int, error) {
	if len(oob) == 0 {
		r.single++
		return r.UDPConn.WriteMsgUDPAddrPort(b, oob, to)
	}
	r.bursts++
	if r.err != 0 {
		return 0, 0, &net.OpError{Op: "write", Err: os.NewSyscallError("sendmsg", r.err)}
	}
	return r.UDPConn.WriteMsgUDPAddrPort(b, oob, to)
}

func TestKernelSegmentsAndJoins(t *testing.T) {
	t.Parallel()
	a, b := open(t, System{}, "udp4"), open(t, System{}, "udp4")
	if !a.gso || !b.gro {
		t.Skip("this kernel has no UDP_SEGMENT or UDP_GRO")
	}
	out := &refusing{UDPConn: a.udp}
	a.out = out
	atB := reading(t, b)
	sent, want := segments(10*1228+5, 1228)
	if err := a.SendSegments(b.Local(), sent, 1228); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if got := <-atB; !bytes.Equal(got.data, w) {
			t.Fatalf("a packet of %d bytes, want %d", len(got.data), len(w))
		}
	}
	if out.bursts != 1 || out.single != 0 {
		t.Errorf("11 packets left in %d bursts and %d single calls", out.bursts, out.single)
	}
}

func TestRefusedBurstLeavesOneByOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     syscall.Errno
		lasting bool // whether the next burst leaves one by one without asking
	}{
		{unix.EIO, true},       // the way out cannot segment
		{unix.EINVAL, false},   // this burst cannot be
		{unix.EMSGSIZE, false}, // a segment is larger than the path's MTU
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			t.Parallel()
			a, b := open(t, System{}, "udp4"), open(t, System{}, "udp4")
			if !a.gso {
				t.Skip("this kernel has no UDP_SEGMENT")
			}
			out := &refusing{UDPConn: a.udp, err: c.err}
			a.out = out
			atB := reading(t, b)
			sent, want := segments(3000, 1000)
			send := func() {
				t.Helper()
				if err := a.SendSegments(b.Local(), sent, 1000); err != nil {
					t.Fatal(err)
				}
				for range want {
					<-atB
				}
			}
			send()
			if out.bursts != 1 || out.single != 3 {
				t.Fatalf("%d bursts and %d single packets", out.bursts, out.single)
			}
			out.err = 0
			send()
			if asked := out.bursts == 2; asked == c.lasting {
				t.Errorf("after %v the next burst was asked for: %v", c.err, asked)
			}
			// Routes change: later it is tried again.
			a.refused.Store(time.Now().Add(-gsoPause - time.Second).UnixNano())
			before := out.bursts
			send()
			if out.bursts != before+1 {
				t.Errorf("after %v bursts stay off for good", c.err)
			}
			if d := a.Dropped.Load(); d != 0 {
				t.Errorf("%d packets counted as dropped", d)
			}
		})
	}
}

func TestOtherErrorOfABurstIsNotRepeated(t *testing.T) {
	t.Parallel()
	a := open(t, System{}, "udp4")
	if !a.gso {
		t.Skip("this kernel has no UDP_SEGMENT")
	}
	out := &refusing{UDPConn: a.udp, err: unix.ENETUNREACH}
	a.out = out
	if err := a.SendSegments(a.Local(), make([]byte, 3000), 1000); err == nil {
		t.Error("no error")
	}
	if out.single != 0 || a.Dropped.Load() != 3 {
		t.Errorf("%d single packets, %d dropped", out.single, a.Dropped.Load())
	}
}

// received reads one packet and the TTL that it came with.
func received(t *testing.T, c *net.UDPConn) int {
	t.Helper()
	oob := make([]byte, 128)
	_, n, _, _, err := c.ReadMsgUDPAddrPort(make([]byte, 64), oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Type == unix.IP_TTL || m.Header.Type == unix.IPV6_HOPLIMIT {
			return int(m.Data[0])
		}
	}
	t.Fatal("no TTL came with the packet")
	return 0
}

func TestTTLHoldsForOnePacket(t *testing.T) {
	t.Parallel()
	for network, local := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := open(t, System{}, network)
			c, err := System{}.ListenPacket(context.Background(), network, netip.MustParseAddrPort(local))
			if err != nil {
				t.Fatal(err)
			}
			to := c.(*net.UDPConn)
			t.Cleanup(func() { _ = to.Close() })
			if !option(to, func(fd int) error {
				if network == "udp4" {
					return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
				}
				return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
			}) {
				t.Fatal("cannot ask for the TTL")
			}
			at := unmap(to.LocalAddr().(*net.UDPAddr).AddrPort())
			for _, ttl := range []uint8{0, 2, 3, 0, 255} {
				if err := s.Send(at, ttl, []byte("opener")); err != nil {
					t.Fatal(err)
				}
				if got := received(t, to); ttl != 0 && got != int(ttl) || ttl == 0 && got < 32 {
					t.Errorf("sent with TTL %d, came with %d", ttl, got)
				}
			}
		})
	}
}

func TestSegmentSize(t *testing.T) {
	t.Parallel()
	other := controlMessage(unix.IPPROTO_IP, unix.IP_TOS, int32(3))
	joined := controlMessage(unix.SOL_UDP, unix.UDP_GRO, int32(1228))
	for name, c := range map[string]struct {
		oob  []byte
		want int
	}{
		"none":   {nil, 0},
		"other":  {other, 0},
		"joined": {joined, 1228},
		"second": {append(bytes.Clone(other), joined...), 1228},
		"cut":    {joined[:len(joined)-6], 0},
	} {
		if got := segmentSize(c.oob); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func FuzzSegmentSize(f *testing.F) {
	f.Add(controlMessage(unix.SOL_UDP, unix.UDP_GRO, int32(1228)), []byte("payload"))
	f.Fuzz(func(t *testing.T, oob, b []byte) {
		n := 0
		split(netip.AddrPort{}, b, segmentSize(oob), func(_ netip.AddrPort, p []byte) { n += len(p) })
		if n != len(b) {
			t.Errorf("%d bytes of %d", n, len(b))
		}
	})
}

// A socket that has grown is as any other.
func TestGrownSocketJoins(t *testing.T) {
	t.Parallel()
	a, b := open(t, System{}, "udp4"), openSmall(t, System{})
	atB := reading(t, b)
	b.Grow()
	exchange(t, a, b, atB, 2)
	var joins, ordinary int
	for s, v := range map[*Socket]*int{a: &ordinary, b: &joins} {
		if !option(s.udp, func(fd int) (err error) {
			*v, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO)
			return err
		}) {
			t.Skip("this kernel has no UDP_GRO")
		}
	}
	if joins != ordinary {
		t.Errorf("UDP_GRO is %d, that of a socket that was never small %d", joins, ordinary)
	}
}
