package rendezvous

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// four are two addresses with the same two ports.
var four = aps("192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479")

func aps(texts ...string) (out []netip.AddrPort) {
	for _, t := range texts {
		out = append(out, ap(t))
	}
	return out
}

// asked is one request to one socket of a server of these, and what came of it.
func asked(t *testing.T, sockets []netip.AddrPort, local int, from string, request []byte) (via int, to netip.AddrPort, answer []byte) {
	t.Helper()
	r := NewRegistry(serverKey, Limits{}, nil, sockets...)
	out, _ := r.Step(time.Now(), local, ap(from), slices.Clone(request), nil)
	if len(out) != 1 {
		t.Fatalf("%x: %d answers", request, len(out))
	}
	return out[0].Local, out[0].To, out[0].Data
}

func parsedAnswer(t *testing.T, b []byte) wire.BindingAnswer {
	t.Helper()
	m, err := wire.Decode(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	a, err := wire.ParseBindingAnswer(m)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return a
}

// RFC 5780 §6.1, Table 1.
func TestChangeRequestsOfTwoAddresses(t *testing.T) {
	t.Parallel()
	for i, at := range four {
		opposite := 3 - i
		for _, c := range []struct {
			ip, port bool
			via      int
		}{{false, false, i}, {false, true, i ^ 1}, {true, false, i ^ 2}, {true, true, opposite}} {
			q := wire.BindingRequest{ID: wire.TransactionID{1}, ChangeIP: c.ip, ChangePort: c.port}
			via, to, b := asked(t, four, i, "203.0.113.9:99", q.Append(nil))
			want := wire.BindingAnswer{ID: q.ID, Mapped: to, Plain: true, Origin: four[c.via], Other: four[opposite]}
			if got := parsedAnswer(t, b); via != c.via || to != ap("203.0.113.9:99") || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v at %v leaves from %v: %+v", q, at, four[via], got)
			}
		}
	}
}

// One address has no other to promise, but what it has of ports answers.
func TestChangeRequestsOfOneAddress(t *testing.T) {
	t.Parallel()
	refused := []stun.AttrType{stun.AttrChangeRequest}
	for _, c := range []struct {
		name    string
		sockets []netip.AddrPort
		q       wire.BindingRequest
		via     int
		want    wire.BindingAnswer
	}{
		{"the endpoint alone", four[:2], wire.BindingRequest{}, 0, wire.BindingAnswer{}},
		{"change port", four[:2], wire.BindingRequest{ChangePort: true}, 1, wire.BindingAnswer{Origin: four[1]}},
		{"change address", four[:2], wire.BindingRequest{ChangeIP: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"change both", four[:2], wire.BindingRequest{ChangeIP: true, ChangePort: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"change port where there is one", four[:1], wire.BindingRequest{ChangePort: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"change port of nobody knows which", nil, wire.BindingRequest{ChangePort: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"change port of an address that is not known", aps("0.0.0.0:3478", "[::]:3478", "0.0.0.0:3479", "[::]:3479"), wire.BindingRequest{ChangePort: true}, 2, wire.BindingAnswer{}},
		{"other ports", four[:2], wire.BindingRequest{OtherPorts: true}, 0, wire.BindingAnswer{OtherPorts: []uint16{3479}}},
		{"other ports of one", four[:1], wire.BindingRequest{OtherPorts: true}, 0, wire.BindingAnswer{}},
		{"other ports of another family", aps("[::]:1", "0.0.0.0:1", "0.0.0.0:2"), wire.BindingRequest{OtherPorts: true}, 0, wire.BindingAnswer{}},
		{"two addresses with a port each", []netip.AddrPort{four[0], four[3]}, wire.BindingRequest{ChangeIP: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"two addresses with one port", []netip.AddrPort{four[0], four[2]}, wire.BindingRequest{ChangeIP: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"three of four", four[:3], wire.BindingRequest{ChangeIP: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
		{"two families", aps("192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "[2001:db8::1]:2"), wire.BindingRequest{ChangeIP: true}, 0, wire.BindingAnswer{Code: 420, Unknown: refused}},
	} {
		c.q.ID, c.want.ID = wire.TransactionID{1}, wire.TransactionID{1}
		via, to, b := asked(t, c.sockets, 0, "203.0.113.9:99", c.q.Append(nil))
		if c.want.Code == 0 {
			c.want.Mapped = to
		}
		if got := parsedAnswer(t, b); via != c.via || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: from socket %d: %+v", c.name, via, got)
		}
		if q := c.q.Append(nil); c.q.OtherPorts && len(b) > len(q)+12 {
			t.Errorf("%s: %d bytes are answered with %d", c.name, len(q), len(b))
		}
	}
	_, _, b := asked(t, aps("0.0.0.0:1", "0.0.0.0:2", "0.0.0.0:3", "0.0.0.0:4", "0.0.0.0:5", "0.0.0.0:6", "0.0.0.0:7", "0.0.0.0:8"), 2, "203.0.113.9:99",
		wire.BindingRequest{OtherPorts: true}.Append(nil))
	if got := parsedAnswer(t, b); !slices.Equal(got.OtherPorts, []uint16{4, 5, 6, 7, 8, 1}) {
		t.Errorf("many ports: %v", got.OtherPorts)
	}
}

// "the Binding Response MUST be transmitted to the source IP address of the Binding
// Request and the port contained in RESPONSE-PORT" (RFC 5780 §7.5).
func TestResponsePort(t *testing.T) {
	t.Parallel()
	for _, sockets := range [][]netip.AddrPort{four, four[:1]} {
		q := wire.BindingRequest{ID: wire.TransactionID{1}, ResponsePort: 1234}
		via, to, b := asked(t, sockets, 0, "203.0.113.9:99", q.Append(nil))
		if got := parsedAnswer(t, b); via != 0 || to != ap("203.0.113.9:1234") || got.Mapped != ap("203.0.113.9:99") {
			t.Errorf("from socket %d to %v: %+v", via, to, got)
		}
		// What is wrong is said to who did it.
		q.Padding = 4
		_, to, b = asked(t, sockets, 0, "203.0.113.9:99", q.Append(nil))
		if got := parsedAnswer(t, b); to != ap("203.0.113.9:99") || got.Code != 400 {
			t.Errorf("with PADDING, to %v: %+v", to, got)
		}
	}
	for name, value := range map[string][]byte{"port 0": make([]byte, 4), "one byte": {1}, "none": {}, "six bytes": make([]byte, 6)} {
		m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.RawAttribute{Type: stun.AttrResponsePort, Value: value})
		if _, to, b := asked(t, four, 0, "203.0.113.9:99", m.Raw); to != ap("203.0.113.9:99") || parsedAnswer(t, b).Code != 400 {
			t.Errorf("%s: to %v: %x", name, to, b)
		}
	}
	m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.RawAttribute{Type: stun.AttrResponsePort, Value: []byte{4, 210}})
	if _, to, _ := asked(t, four, 0, "203.0.113.9:99", m.Raw); to != ap("203.0.113.9:1234") {
		t.Errorf("without the two bytes of padding: to %v", to)
	}
	m = stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.RawAttribute{Type: stun.AttrChangeRequest, Value: []byte{4}})
	if _, _, b := asked(t, four, 0, "203.0.113.9:99", m.Raw); parsedAnswer(t, b).Code != 400 {
		t.Errorf("a short CHANGE-REQUEST: %x", b)
	}
}

func TestPaddingIsAnsweredWithAsMuch(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 4, 1000, 1500, 1900} {
		q := wire.BindingRequest{ID: wire.TransactionID{1}, Padding: n}.Append(nil)
		_, _, b := asked(t, four, 0, "203.0.113.9:99", q)
		if got := parsedAnswer(t, b); got.Padding != min(n, 1500) || len(b) > len(q)+4*12 {
			t.Errorf("%d bytes: %d in %d bytes for %d", n, got.Padding, len(b), len(q))
		}
	}
}

// RFC 3489's clients have no magic cookie, and know no XOR.
func TestClassicBinding(t *testing.T) {
	t.Parallel()
	header := func(attrs wire.Attrs) []byte {
		return append(append([]byte{0, 1, 0, byte(len(attrs))}, "0123456789abcdef"...), attrs...)
	}
	change := func(flags byte) (a wire.Attrs) {
		a.Add(stun.AttrChangeRequest, []byte{0, 0, 0, flags})
		return a
	}
	from := ap("203.0.113.9:99")
	for i, at := range four {
		for flags, want := range map[byte]int{0: i, 2: i ^ 1, 4: i ^ 2, 6: 3 - i} {
			via, to, b := asked(t, four, i, from.String(), header(change(flags)))
			a := wire.ClassicAnswer{ID: [16]byte([]byte("0123456789abcdef")), Mapped: from, Source: four[want], Changed: four[3-i]}
			if via != want || to != from || string(b) != string(a.Append(nil)) {
				t.Errorf("%v, flags %d: from socket %d to %v: %x", at, flags, via, to, b)
			}
		}
	}
	var response wire.Attrs
	response.Add(0x0002, []byte{0, 1, 0, 9, 192, 0, 2, 66}) // RESPONSE-ADDRESS: somebody else
	for name, c := range map[string]struct {
		sockets []netip.AddrPort
		request wire.Attrs
		want    wire.ClassicAnswer
	}{
		"plain":            {four[:1], nil, wire.ClassicAnswer{Mapped: from, Source: four[0]}},
		"no known address": {nil, nil, wire.ClassicAnswer{Mapped: from}},
		"no other address": {four[:2], change(4), wire.ClassicAnswer{Code: 420, Unknown: []stun.AttrType{stun.AttrChangeRequest}}},
		"RESPONSE-ADDRESS": {four, response, wire.ClassicAnswer{Code: 420, Unknown: []stun.AttrType{0x0002}}},
	} {
		_, to, b := asked(t, c.sockets, 0, from.String(), header(c.request))
		c.want.ID = [16]byte([]byte("0123456789abcdef"))
		if to != from || string(b) != string(c.want.Append(nil)) {
			t.Errorf("%s: to %v: %x", name, to, b)
		}
	}
	r := NewRegistry(serverKey, Limits{}, nil, four...)
	if out, _ := r.Step(time.Now(), 0, ap("[2001:db8::9]:99"), header(nil), nil); len(out) != 0 {
		t.Errorf("over IPv6: %x", out[0].Data)
	}
	answers := 0
	for range 100 {
		out, _ := r.Step(time.Unix(1e9, 0), 0, from, header(nil), nil)
		answers += len(out)
	}
	if answers != 50 {
		t.Errorf("%d answers in a second", answers)
	}
}

func TestOriginsByPublicAddresses(t *testing.T) {
	t.Parallel()
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	for _, c := range []struct {
		name              string
		public            []netip.Addr
		listen, bind, out []netip.AddrPort // bind: with spare ones; out: of Listen, or of bind
	}{
		{
			"nothing said", nil, nil,
			aps("0.0.0.0:3478", "[::]:3478", "0.0.0.0:3479", "[::]:3479"),
			aps("0.0.0.0:3478", "[::]:3478", "0.0.0.0:3479", "[::]:3479"),
		},
		{
			"one public address", addrs("192.0.2.1"), nil,
			aps("0.0.0.0:3478", "[::]:3478", "0.0.0.0:3479", "[::]:3479"),
			aps("192.0.2.1:3478", "[::]:3478", "192.0.2.1:3479", "[::]:3479"),
		},
		{
			"two addresses of our own", addrs("192.0.2.1", "2001:db8::1", "192.0.2.2"), nil,
			aps("192.0.2.1:3478", "192.0.2.2:3478", "[::]:3478", "192.0.2.1:3479", "192.0.2.2:3479", "[::]:3479"),
			aps("192.0.2.1:3478", "192.0.2.2:3478", "[2001:db8::1]:3478", "192.0.2.1:3479", "192.0.2.2:3479", "[2001:db8::1]:3479"),
		},
		{
			"two addresses behind a NAT", addrs("192.0.2.1", "192.0.2.2"),
			aps("10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[fd00::1]:1", "10.0.0.2:2"),
			aps("10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[fd00::1]:1", "10.0.0.2:2"),
			aps("192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[fd00::1]:1", "192.0.2.2:2"),
		},
	} {
		cfg := ServerConfig{Listen: c.listen, Public: c.public}
		var bind []netip.AddrPort
		for _, e := range cfg.endpoints() {
			bind = append(bind, e.AddrPort)
			if e.spare != (c.listen == nil && e.Port() == OtherPort) {
				t.Errorf("%s: %v, spare %v", c.name, e.AddrPort, e.spare)
			}
		}
		if got := cfg.known(bind); !slices.Equal(bind, c.bind) || !slices.Equal(got, c.out) {
			t.Errorf("%s: %v are known as %v", c.name, bind, got)
		}
	}
}
