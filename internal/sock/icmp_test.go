package sock

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bodkin/internal/icmp"
)

// icmpWire is a network on which packets go nowhere, and are kept.
type icmpWire struct {
	net.PacketConn
	mu   sync.Mutex
	sent [][]byte
}

func (w *icmpWire) WriteTo(b []byte, _ net.Addr) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, append([]byte(nil), b...))
	return len(b), nil
}

func (w *icmpWire) packets() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

func (w *icmpWire) LocalAddr() net.Addr { return &net.IPAddr{} }

func (w *icmpWire) Close() error { return nil }

// newICMP is a raw socket of IPv4 beside UDP port 5000.
func newICMP(t *testing.T) (*ICMP, *icmpWire) {
	t.Helper()
	w := &icmpWire{}
	c := &ICMP{
		network: System{}, conn: w, raw: true, v4: true,
		udp:    &Socket{local: netip.MustParseAddrPort("0.0.0.0:5000")},
		opened: make(map[netip.AddrPort]opened), sources: make(map[netip.Addr]source),
	}
	c.start()
	t.Cleanup(func() { _ = c.Close() })
	return c, w
}

type heard struct {
	way  Way
	from netip.AddrPort
	data string
}

func (c *ICMP) hear(from string, b []byte) (out []heard) {
	c.take(netip.MustParseAddr(from), b, func(w Way, from netip.AddrPort, b []byte) {
		out = append(out, heard{w, from, string(b)})
	})
	return out
}

// What one socket sends another one hears by the way that answers it.
func TestWaysOfICMP(t *testing.T) {
	t.Parallel()
	a, wa := newICMP(t)
	b, wb := newICMP(t)
	a.id, b.id = 111, 222
	at := netip.MustParseAddr("192.0.2.1")
	a.sources[at] = source{netip.MustParseAddr("10.0.0.1"), time.Now().Add(time.Hour)}

	_ = a.Leg(Ask).Send(netip.AddrPortFrom(at, 111), 0, []byte("question"))
	if got := b.hear("198.51.100.1", wa.sent[0]); len(got) != 1 || got[0] != (heard{Answer, netip.MustParseAddrPort("198.51.100.1:111"), "question"}) {
		t.Fatalf("the question came as %v", got)
	}
	_ = b.Leg(Answer).Send(netip.MustParseAddrPort("198.51.100.1:111"), 0, []byte("answer"))
	if got := a.hear("192.0.2.1", wb.sent[0]); len(got) != 1 || got[0] != (heard{Ask, netip.AddrPortFrom(at, 111), "answer"}) {
		t.Fatalf("the answer came as %v", got)
	}
	if got := b.hear("192.0.2.1", wb.sent[0]); got != nil || b.Strange.Load() != 1 {
		t.Errorf("a reply with another identifier came as %v", got)
	}
	for i, w := range []Way{Unreachable, Exceeded} {
		if err := a.out.send(parcel{w, netip.AddrPortFrom(at, 6000), []byte("error")}); err != nil {
			t.Fatal(err)
		}
		m, err := icmp.Parse(wa.sent[1+i], true)
		if err != nil {
			t.Fatal(err)
		}
		q, err := icmp.ParseQuote(m.Body)
		if err != nil || q.From != netip.AddrPortFrom(at, 6000) || q.To != netip.MustParseAddrPort("10.0.0.1:5000") {
			t.Errorf("%v quotes %+v, %v", w, q, err)
		}
		// As the other side's NAT lets it in: the quoted packet is its own.
		back := icmp.Message{Kind: m.Kind, Body: icmp.Quote{From: netip.MustParseAddrPort("10.0.0.2:5000"), To: netip.MustParseAddrPort("198.51.100.1:7000"), Data: q.Data}.Append(nil)}
		if got := b.hear("198.51.100.1", back.Append(nil, true)); len(got) != 1 || got[0] != (heard{w, netip.MustParseAddrPort("198.51.100.1:7000"), "error"}) {
			t.Errorf("the error came as %v", got)
		}
	}
}

// Nothing that is not for us gets further, and it is counted.
func TestStrangeICMP(t *testing.T) {
	t.Parallel()
	c, w := newICMP(t)
	other, _ := newICMP(t)
	c.id = 111
	body := func(of *ICMP, s string) []byte { return append(append(magic[:], of.tag[:]...), s...) }
	about := func(from string, data []byte) []byte {
		return icmp.Quote{From: netip.MustParseAddrPort(from), To: netip.MustParseAddrPort("192.0.2.1:6000"), Data: data}.Append(nil)
	}
	for name, m := range map[string]icmp.Message{
		"somebody's ping":                   {Kind: icmp.EchoRequest, Body: []byte("0123456789abcdef")},
		"short":                             {Kind: icmp.EchoRequest, Body: magic[:]},
		"data of ours that was echoed":      {Kind: icmp.EchoReply, ID: 111, Body: body(c, "\x40QUIC")},
		"a request of ours, to us":          {Kind: icmp.EchoRequest, Body: body(c, "\x00probe")},
		"another process's reply":           {Kind: icmp.EchoReply, ID: 112, Body: body(other, "x")},
		"an error about another's flow":     {Kind: icmp.TimeExceeded, Body: about("10.0.0.1:5001", body(other, "x"))},
		"an error about our flow, not ours": {Kind: icmp.TimeExceeded, Body: about("10.0.0.1:5000", []byte("payload of UDP"))},
		"an error about an echo":            {Kind: icmp.TimeExceeded, Body: icmp.Quote{Echo: true, From: netip.MustParseAddrPort("10.0.0.1:5000"), To: netip.MustParseAddrPort("10.0.0.1:5000"), Data: body(other, "x")}.Append(nil)},
		"an error about nothing":            {Kind: icmp.PortUnreachable},
	} {
		before := c.Echoed.Load() + c.Malformed.Load() + c.Strange.Load()
		if got := c.hear("198.51.100.1", m.Append(nil, true)); got != nil {
			t.Errorf("%s: heard %v", name, got)
		}
		if c.Echoed.Load()+c.Malformed.Load()+c.Strange.Load() != before+1 {
			t.Errorf("%s was not counted", name)
		}
	}
	// A probe of ours that comes back tells that pings get somewhere.
	if got := c.hear("198.51.100.1", icmp.Message{Kind: icmp.EchoReply, ID: 111, Body: body(c, "\x00probe")}.Append(nil, true)); len(got) != 1 {
		t.Errorf("an echoed probe came as %v", got)
	}
	if len(w.packets()) > 0 {
		t.Errorf("%d packets were answered", len(w.packets()))
	}
}

func FuzzICMP(f *testing.F) {
	body := append(magic[:], "tag.data"...)
	f.Add(icmp.Message{Kind: icmp.EchoRequest, Body: body}.Append(nil, true))
	f.Add(icmp.Message{Kind: icmp.TimeExceeded, Body: icmp.Quote{
		From: netip.MustParseAddrPort("10.0.0.1:5000"), To: netip.MustParseAddrPort("192.0.2.1:6000"), Data: body,
	}.Append(nil)}.Append(nil, true))
	c := &ICMP{v4: true, udp: &Socket{local: netip.MustParseAddrPort("0.0.0.0:5000")}, id: 1}
	f.Fuzz(func(t *testing.T, b []byte) {
		before, n := c.Echoed.Load()+c.Malformed.Load()+c.Strange.Load(), uint64(len(c.hear("192.0.2.1", b)))
		if after := c.Echoed.Load() + c.Malformed.Load() + c.Strange.Load(); n+after-before != 1 {
			t.Errorf("%x: heard %d times, counted %d times", b, n, after-before)
		}
	})
}

// Data leaves at the rate of ICMP, and what is too much for it is dropped; what is said
// beside waits for nothing.
func TestPaceOfICMP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, w := newICMP(t)
		leg, to := c.Leg(Answer), netip.MustParseAddrPort("192.0.2.1:1")
		begin, large := time.Now(), make([]byte, 100*1000)
		leg.Queue(to, large, 1000)
		synctest.Wait()
		if n := len(w.packets()); n < icmpBurst/1000 || n > icmpBurst/1000+1 {
			t.Errorf("%d packets left at once", n)
		}
		if err := leg.Send(to, 0, make([]byte, 100)); err != nil {
			t.Errorf("a probe: %v", err)
		}
		if n := len(w.packets()); len(w.packets()[n-1]) > 200 {
			t.Error("the probe waited")
		}
		for {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			c.out.mu.Lock()
			idle := !c.out.running
			c.out.mu.Unlock()
			if idle {
				break
			}
		}
		took, bytes := time.Since(begin).Seconds(), 0
		for _, p := range w.packets() {
			bytes += len(p)
		}
		if most := took*icmpRate + icmpBurst + 1000*float64(len(w.packets()))/25; float64(bytes) > most {
			t.Errorf("%d bytes in %.3f s", bytes, took)
		}
		if n := len(w.packets()); n < 60 || n > 70 {
			t.Errorf("%d packets left of 100 and a probe", n)
		}
		for range 1000 {
			if err := leg.Send(to, 0, make([]byte, 1000)); err != nil {
				if !errors.Is(err, errPaced) {
					t.Errorf("too much: %v", err)
				}
				return
			}
		}
		t.Error("the control plane has no limit")
	})
}

func TestClosedICMP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, w := newICMP(t)
		leg, to := c.Leg(Answer), netip.MustParseAddrPort("192.0.2.1:1")
		leg.Queue(to, make([]byte, 60*1000), 1000)
		synctest.Wait()
		_ = c.Close()
		synctest.Wait()
		n := len(w.packets())
		leg.Queue(to, make([]byte, 100), 0)
		if err := leg.Send(to, 0, []byte("x")); !errors.Is(err, net.ErrClosed) || len(w.packets()) != n {
			t.Errorf("after Close: %v, %d packets more", err, len(w.packets())-n)
		}
	})
}

func TestNoICMPSaysWhatToDo(t *testing.T) {
	t.Parallel()
	if err := noICMP(fs.ErrPermission); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), grant("")[:10]) {
		t.Error(err)
	}
	if err := noICMP(net.ErrClosed); strings.Contains(err.Error(), "setcap") {
		t.Error(err)
	}
	if leg := (&ICMP{}).Leg(Answer); leg != nil {
		t.Error("an unprivileged socket answers")
	}
}
