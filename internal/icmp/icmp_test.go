package icmp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

var magic = [4]byte{'M', 'a', 'g', 'c'}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessagesByteForByte(t *testing.T) {
	t.Parallel()
	from, to := netip.MustParseAddrPort("198.51.100.1:50002"), netip.MustParseAddrPort("192.168.1.20:5000")
	quote := Quote{From: from, To: to, Data: []byte("data")}.Append(nil)
	quote6 := Quote{From: netip.MustParseAddrPort("[2001:db8::1]:1"), To: netip.MustParseAddrPort("[2001:db8::2]:2"), Data: []byte("x")}.Append(nil)
	for _, c := range []struct {
		m    Message
		v4   bool
		want string
	}{
		{Message{Kind: EchoRequest, ID: 0x1234, Seq: 1, Body: []byte("data")}, true, "0800 0d08 1234 0001 64617461"},
		{Message{Kind: EchoReply, ID: 0x1234, Seq: 1, Body: []byte("data")}, true, "0000 1508 1234 0001 64617461"},
		{Message{Kind: EchoRequest, ID: 0x1234, Seq: 1}, false, "8000 0000 1234 0001"},
		{Message{Kind: EchoReply, ID: 0x1234, Seq: 1}, false, "8100 0000 1234 0001"},
		{Message{Kind: PortUnreachable, Body: quote}, true, "0303 4d53 0000 0000" +
			"4500 0020 0000 4000 0111 8ddc c6336401 c0a80114 c352 1388 000c 0000 64617461"},
		{Message{Kind: TimeExceeded, Body: quote6}, false, "0300 0000 0000 0000" +
			"6000 0000 0009 1101 20010db8 00000000 00000000 00000001 20010db8 00000000 00000000 00000002" +
			"0001 0002 0009 2c64 78"},
	} {
		b := c.m.Append(nil, c.v4)
		if want := unhex(t, c.want); !bytes.Equal(b, want) {
			t.Errorf("%+v:\n got %x\nwant %x", c.m, b, want)
		}
		m, err := Parse(b, c.v4)
		if len(c.m.Body) == 0 {
			c.m.Body = []byte{}
		}
		if err != nil || !reflect.DeepEqual(m, c.m) {
			t.Errorf("%+v became %+v, %v", c.m, m, err)
		}
	}
}

func TestQuotesComeBack(t *testing.T) {
	t.Parallel()
	for _, q := range []Quote{
		{From: netip.MustParseAddrPort("198.51.100.1:1"), To: netip.MustParseAddrPort("10.0.0.1:2"), Data: []byte("data")},
		{From: netip.MustParseAddrPort("[2001:db8::1]:1"), To: netip.MustParseAddrPort("[2001:db8::2]:2"), Data: []byte("data")},
		{Echo: true, From: netip.MustParseAddrPort("10.0.0.1:7"), To: netip.MustParseAddrPort("192.0.2.1:7"), Seq: 3, Data: []byte("data")},
		{Echo: true, From: netip.MustParseAddrPort("[2001:db8::1]:7"), To: netip.MustParseAddrPort("[2001:db8::2]:7"), Data: []byte("data")},
	} {
		b := q.Append(nil)
		if got, err := ParseQuote(b); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v became %+v, %v", q, got, err)
		}
		// What is checked by those who translate it: with its own checksum a sum is 0.
		if q.From.Addr().Is4() && checksum(b[:ip4Size], 0) != 0 {
			t.Errorf("%+v: bad header checksum in %x", q, b)
		}
		if upper := b[len(b)-upperSize-len(q.Data):]; !q.From.Addr().Is4() && checksum(upper, q.pseudoSum(len(upper))) != 0 {
			t.Errorf("%+v: bad checksum in %x", q, b)
		}
		for i := range b[:len(b)-len(q.Data)] {
			if got, err := ParseQuote(b[:i]); err == nil {
				t.Errorf("%d bytes of %+v became %+v", i, q, got)
			}
		}
	}
}

// What a raw socket wants, and what is sorted out in the kernel.
func TestFilter(t *testing.T) {
	t.Parallel()
	ours, strangers := append(magic[:], "data"...), []byte("01234567")
	for _, v4 := range []bool{true, false} {
		vm, err := bpf.NewVM(Filter(v4, magic))
		if err != nil {
			t.Fatal(err)
		}
		from, to := netip.MustParseAddrPort("198.51.100.1:1"), netip.MustParseAddrPort("10.0.0.1:2")
		header := append([]byte{0x46}, make([]byte, 23)...) // with an option
		if !v4 {
			from, to, header = netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[2001:db8::2]:2"), nil
		}
		udp := func(data []byte) []byte { return Quote{From: from, To: to, Data: data}.Append(nil) }
		for name, c := range map[string]struct {
			message []byte
			in      bool
		}{
			"a request of ours":       {Message{Kind: EchoRequest, Body: ours}.Append(nil, v4), true},
			"a reply to us":           {Message{Kind: EchoReply, Body: ours}.Append(nil, v4), true},
			"somebody's ping":         {Message{Kind: EchoRequest, Body: strangers}.Append(nil, v4), false},
			"a ping without data":     {Message{Kind: EchoRequest}.Append(nil, v4), false},
			"an error for us":         {Message{Kind: PortUnreachable, Body: udp(ours)}.Append(nil, v4), true},
			"another error for us":    {Message{Kind: TimeExceeded, Body: udp(ours)}.Append(nil, v4), true},
			"an error about a flow":   {Message{Kind: PortUnreachable, Body: udp(strangers)}.Append(nil, v4), false},
			"an error about an echo":  {Message{Kind: TimeExceeded, Body: Quote{Echo: true, From: from, To: from, Data: ours}.Append(nil)}.Append(nil, v4), false},
			"an error cut short":      {Message{Kind: TimeExceeded, Body: udp(nil)}.Append(nil, v4), false},
			"a kind without use here": {append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, ours...), false},
			"nothing":                 {nil, false},
		} {
			n, err := vm.Run(append(slices.Clip(header), c.message...))
			if err != nil || n > 0 != c.in {
				t.Errorf("v4 %v, %s: %d bytes, %v", v4, name, n, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	q := Quote{From: netip.MustParseAddrPort("198.51.100.1:1"), To: netip.MustParseAddrPort("10.0.0.1:2"), Data: []byte("data")}
	f.Add(Message{Kind: EchoRequest, ID: 1, Body: []byte("data")}.Append(nil, true), true)
	f.Add(Message{Kind: TimeExceeded, Body: q.Append(nil)}.Append(nil, true), true)
	f.Add(Message{Kind: PortUnreachable, Body: Quote{Echo: true, From: netip.MustParseAddrPort("[2001:db8::1]:1"), To: netip.MustParseAddrPort("[2001:db8::2]:1")}.Append(nil)}.Append(nil, false), false)
	f.Fuzz(func(t *testing.T, b []byte, v4 bool) {
		m, err := Parse(b, v4)
		if err != nil {
			return
		}
		again, err := Parse(m.Append(nil, v4), v4)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%x: %+v became %+v, %v", b, m, again, err)
		}
		q, err := ParseQuote(m.Body)
		if err != nil {
			return
		}
		if back, err := ParseQuote(q.Append(nil)); err != nil || !reflect.DeepEqual(back, q) {
			t.Errorf("%x: %+v became %+v, %v", b, q, back, err)
		}
	})
}

// The messages that docs/icmp.md shows are what is sent.
func TestMessagesOfTheDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/icmp.md")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("BoDk\xa1\xa2\xa3\xa4data")
	from, to := netip.MustParseAddrPort("198.51.100.1:50002"), netip.MustParseAddrPort("192.168.1.20:5000")
	for name, m := range map[string]Message{
		"echo":  {Kind: EchoRequest, ID: 0x1234, Seq: 1, Body: body},
		"error": {Kind: PortUnreachable, Body: Quote{From: from, To: to, Data: body}.Append(nil)},
	} {
		block := regexp.MustCompile("(?ms)^```hex " + name + "\n(.*?)^```$").FindSubmatch(text)
		if block == nil {
			t.Fatalf("no block %q", name)
		}
		var shown string
		for line := range strings.Lines(string(block[1])) {
			hex, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
			shown += hex
		}
		if got := m.Append(nil, true); !bytes.Equal(got, unhex(t, shown)) {
			t.Errorf("%s: sent %x, shown %s", name, got, shown)
		}
	}
}
