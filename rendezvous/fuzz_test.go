package rendezvous

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// scene is two registered nodes with a channel, and every packet of theirs.
func scene(tb testing.TB) (*world, *Registry) {
	tb.Helper()
	w := newWorld(tb, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, cb := w.introduce(a, b)
	a.say(ca, "x")
	b.say(cb, "y")
	a.say(0x4700, strings.Repeat("x", 100))
	a.step(AgentInput{Op: AgentUpdate, Description: []byte("new"), Accepting: true})
	b.askID(testKey(9).ID(), "")
	w.run(time.Second)
	b.step(AgentInput{Op: AgentCloseChannel, Channel: cb})
	w.run(time.Second)
	w.introduce(a, b)
	if err := b.write(a.invited(), "letter"); err != nil {
		tb.Fatal(err)
	}
	w.run(time.Second)
	return w, r
}

// FuzzRegistry gives a server arbitrary bytes from a source that has proved
// nothing: they change nothing, and no more comes back than went in. The same from
// a node's own source changes nothing but what ChannelData does.
func FuzzRegistry(f *testing.F) {
	w, r := scene(f)
	var genuine []string
	for _, p := range w.seen {
		f.Add(p.data)
		genuine = append(genuine, string(p.data))
	}
	f.Add([]byte{})
	f.Add(wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil))
	f.Add(wire.BindingRequest{ID: wire.TransactionID{1}, Fingerprint: true}.Append(nil))
	bindingSeeds(f)
	now, node := w.now, w.nodes[0].public[1]
	var mu sync.Mutex // a fuzzer runs its seeds in parallel
	f.Fuzz(func(t *testing.T, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(genuine, string(data)) {
			return // with nothing changed, it may well change something
		}
		now = now.Add(time.Second) // past all limits of rates
		before := state(r)
		unprovedSizes(t, r, now, ap("203.0.113.9:99"), data)
		unprovedSizes(t, r, now, ap("[2001:db8::9]:99"), data)
		if state(r) != before {
			t.Fatalf("changed the state:\n%s\n\n%s", before, state(r))
		}
		out, _ := r.Step(now, 0, node, slices.Clone(data), nil)
		if _, relayed, ok := wire.ParseChannelData(data); ok && len(out) == 1 && out[0].To != node {
			if len(out[0].Data) != wire.ChannelOverhead+len(relayed) {
				t.Fatalf("%x is relayed as %x", data, out[0].Data)
			}
			return
		}
		if state(r) != before {
			t.Fatalf("changed the state:\n%s\n\n%s", before, state(r))
		}
	})
}

// bindingSeeds adds plain Binding requests of all kinds, old ones among them.
func bindingSeeds(f *testing.F) {
	f.Helper()
	for _, q := range []wire.BindingRequest{
		{}, {Fingerprint: true}, {ChangeIP: true}, {ChangePort: true, OtherPorts: true}, {ResponsePort: 7}, {Padding: 1600}, {ResponsePort: 7, Padding: 1},
	} {
		f.Add(q.Append(nil))
	}
	unknown := &stun.Message{Type: stun.BindingRequest}
	unknown.WriteHeader()
	unknown.Add(0x0002, []byte{0, 1, 0, 9, 192, 0, 2, 66}) // RESPONSE-ADDRESS
	unknown.Add(stun.AttrChangeRequest, []byte{0, 0, 0, 6})
	unknown.Add(0x7FFF, make([]byte, 40))
	f.Add(unknown.Raw)
	classic := slices.Clone(unknown.Raw)
	classic[4] = 0
	f.Add(classic)
	f.Add(append([]byte{0, 1, 0, 8}, append([]byte("0123456789abcdef"), 0, 3, 0, 4, 0, 0, 0, 6)...))
}

// FuzzBinding gives a server of two addresses arbitrary bytes at each of its
// sockets: there is one answer at the most, to the source's address, and it is the
// answer to that request.
func FuzzBinding(f *testing.F) {
	bindingSeeds(f)
	sockets := slices.Concat(four, aps("[2001:db8::1]:1", "[2001:db8::1]:2", "[2001:db8::2]:1", "[2001:db8::2]:2"))
	r := NewRegistry(serverKey, Limits{Bindings: -1}, nil, sockets...)
	var mu sync.Mutex
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 && data[0]&0xF0 == 0x40 {
			return // ChannelData
		}
		mu.Lock()
		defer mu.Unlock()
		before := state(r)
		for i, at := range sockets {
			from := ap("203.0.113.9:99")
			if at.Addr().Is6() {
				from = ap("[2001:db8::9]:99")
			}
			unprovedSizes(t, r, time.Unix(1e9, 0), from, data)
			out, _ := r.Step(time.Unix(1e9, 0), i, from, slices.Clone(data), nil)
			if len(out) == 0 {
				continue
			}
			o := out[0]
			if len(out) > 1 || o.Local/4 != i/4 || len(o.Data) < 20 || string(o.Data[4:20]) != string(data[4:20]) {
				t.Fatalf("%x at %v: %d answers, the first from %d: %x", data, at, len(out), o.Local, o.Data)
			}
			if m, err := wire.Decode(o.Data); err == nil && m.Type.Method == stun.MethodBinding {
				if _, err := wire.ParseBindingAnswer(m); err != nil {
					t.Fatalf("%x is answered with %x: %v", data, o.Data, err)
				}
			}
		}
		if state(r) != before {
			t.Fatalf("changed the state:\n%s\n\n%s", before, state(r))
		}
	})
}

// FuzzAgent gives a node arbitrary bytes in the server's name: they change nothing
// that the node knows, and make it send at most one packet.
func FuzzAgent(f *testing.F) {
	w, _ := scene(f)
	a := w.nodes[0].agent
	var genuine []string
	for _, p := range w.seen {
		f.Add(p.data)
		genuine = append(genuine, string(p.data))
	}
	f.Add(wire.AppendStranger(nil, wire.TransactionID{}))
	m := &stun.Message{Type: stun.NewType(wire.Refresh, stun.ClassRequest), TransactionID: a.primary.id}
	f.Add(wire.AppendError(nil, m, wire.CodeUnknownRegistration, nil))
	f.Add(wire.AppendError(nil, m, int(stun.CodeStaleNonce), []byte("nonce")))
	now := w.now
	var mu sync.Mutex
	f.Fuzz(func(t *testing.T, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(genuine, string(data)) {
			return
		}
		linked, handle, keys, window := a.primary, a.handle, a.keys, a.window
		for _, from := range []netip.AddrPort{server4, server6} {
			out, _ := a.Step(now, AgentInput{Op: AgentPacket, From: from, Data: data}, nil)
			if len(out) > 1 || len(out) == 1 && out[0].Op != AgentSend {
				t.Fatalf("%x: %+v", data, out)
			}
		}
		if a.primary != linked || a.handle != handle || a.keys != keys || a.window != window {
			t.Fatalf("%x changed the agent", data)
		}
	})
}

func FuzzParseURL(f *testing.F) {
	id := serverKey.ID().String()
	for _, s := range []string{
		"", "bodkin://host:3478/" + id, "bodkin://host/" + id + "/", "bodkin://[2001:db8::1]:1/" + strings.ToUpper(id),
		"bodkin://192.0.2.1/" + id, "http://host/" + id, "bodkin://u@host/" + id + "?x#y", "bodkin://:1/" + id,
		"bodkin://host:70000/" + id, "bodkin:host", "bodkin://a%20b/" + id, "bodkin://[fe80::1%25eth0]/" + id,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL(text)
		if err != nil {
			return
		}
		again, err := ParseURL(u.String())
		if err != nil || again != u {
			t.Fatalf("%q is %+v, and %q is %+v, %v", text, u, u.String(), again, err)
		}
	})
}
