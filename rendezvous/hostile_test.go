package rendezvous

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// disbelieved is how many packets a server did not believe or serve.
func disbelieved(s Stats) uint64 {
	return s.Malformed + s.Forged + s.Replayed + s.Unproved + s.Unknown + s.Refused + s.Limited
}

// genuine runs a scene with two nodes, up to the moment at which the last packet
// for the server is a message of the type wanted, and takes that from the network.
func genuine(t *testing.T, want stun.MessageType) (w *world, r *Registry, p packet) {
	t.Helper()
	w = newWorld(t, 7)
	r = w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	plate := a.invited()
	w.run(time.Second)
	w.tamper = func(q packet) []packet {
		m, err := wire.Decode(q.data)
		if err == nil && q.to == server4 && m.Type == want && (want.Method != wire.Register || len(q.data) > 100) {
			p = q
			return nil
		}
		return []packet{q}
	}
	switch want.Method {
	case wire.Register:
		w.node("c", testKey(3), false).find(server4)
	case wire.Refresh:
		a.step(AgentInput{Op: AgentUpdate, Description: []byte("new"), Accepting: true})
	case wire.Introduce:
		b.ask(a, "offer")
	case wire.Introduced:
		a.ask(b, "offer")
	case wire.CloseChannel:
		a.step(AgentInput{Op: AgentCloseChannel, Channel: ca})
	case wire.Invite:
		a.invite(time.Minute)
	case wire.Pair:
		b.step(AgentInput{Op: AgentWrite, Plate: plate, Data: []byte("letter")})
	default:
		t.Fatalf("no scene for %v", want)
	}
	w.run(70 * time.Millisecond)
	if p.data == nil {
		t.Fatalf("no %v was sent", want)
	}
	return w, r, p
}

// sealedTypes are all messages that change what a server knows.
var sealedTypes = []stun.MessageType{
	stun.NewType(wire.Register, stun.ClassRequest),
	stun.NewType(wire.Refresh, stun.ClassRequest),
	stun.NewType(wire.Introduce, stun.ClassRequest),
	stun.NewType(wire.Introduced, stun.ClassSuccessResponse),
	stun.NewType(wire.CloseChannel, stun.ClassRequest),
	stun.NewType(wire.Invite, stun.ClassRequest),
	stun.NewType(wire.Pair, stun.ClassRequest),
	stun.NewType(wire.Pair, stun.ClassSuccessResponse),
}

// One changed bit, whichever it is, makes a message that is counted and changes
// nothing; with no bit changed, it would have.
func TestChangedMessagesChangeNothing(t *testing.T) {
	t.Parallel()
	for _, mt := range sealedTypes {
		t.Run(mt.String(), func(t *testing.T) {
			t.Parallel()
			w, r, p := genuine(t, mt)
			before, sent := state(r), 0
			for bit := range 8 * len(p.data) {
				data := slices.Clone(p.data)
				data[bit/8] ^= 1 << (bit % 8)
				counted := disbelieved(r.Stats())
				out, _ := r.Step(w.now, 0, p.from, data, nil)
				if disbelieved(r.Stats()) != counted+1 {
					t.Fatalf("bit %d: not counted: %+v", bit, r.Stats())
				}
				for _, o := range out {
					if o.To != p.from || len(o.Data) > len(data) {
						t.Fatalf("bit %d: %d bytes answered with %d to %v", bit, len(data), len(o.Data), o.To)
					}
					sent++
				}
			}
			if after := state(r); after != before {
				t.Fatalf("the state changed:\n%s\n\n%s", before, after)
			}
			if _, _ = r.Step(w.now, 0, p.from, slices.Clone(p.data), nil); state(r) == before {
				t.Error("the message itself changes nothing: this test shows nothing")
			}
			t.Logf("%d bits, %d answers", 8*len(p.data), sent)
		})
	}
}

// A message that was taken once changes nothing when it comes again, from wherever
// and whenever.
func TestReplayedMessagesChangeNothing(t *testing.T) {
	t.Parallel()
	for _, mt := range sealedTypes {
		t.Run(mt.String(), func(t *testing.T) {
			t.Parallel()
			w, r, p := genuine(t, mt)
			r.Step(w.now, 0, p.from, slices.Clone(p.data), nil)
			for _, later := range []time.Duration{0, time.Second, 20 * time.Second} {
				w.now = w.now.Add(later)
				r.Tick(w.now, nil)
				for _, from := range []netip.AddrPort{p.from, ap("203.0.113.99:9"), server6} {
					before, counted := state(r), disbelieved(r.Stats())
					out, _ := r.Step(w.now, 0, from, slices.Clone(p.data), nil)
					if after := state(r); after != before {
						t.Fatalf("the state changed:\n%s\n\n%s", before, after)
					}
					if disbelieved(r.Stats()) != counted+1 {
						t.Fatalf("not counted: %+v", r.Stats())
					}
					for _, o := range out {
						if o.To != from || len(o.Data) > len(p.data) {
							t.Fatalf("answered with %d bytes to %v", len(o.Data), o.To)
						}
					}
				}
			}
		})
	}
}

// A Register brings nobody back: neither one who said goodbye nor one who fell
// silent, as long as the NONCE in it is good; and then the NONCE is not.
func TestReplayedRegisterBringsNobodyBack(t *testing.T) {
	t.Parallel()
	for _, politely := range []bool{true, false} {
		w := newWorld(t, 1)
		r := w.serve(Limits{Lifetime: 10 * time.Second})
		n := w.register("a", testKey(1))
		var register packet
		for _, p := range w.seen {
			if m, err := wire.Decode(p.data); err == nil && p.to == server4 && m.Contains(wire.AttrBox) {
				register = p
			}
		}
		if politely {
			n.step(AgentInput{Op: AgentLeave})
		}
		w.nodes = nil
		n.next = time.Time{} // it is dead
		for range 40 {
			w.run(5 * time.Second)
			before := state(r)
			w.deliver(register)
			if state(r) != before {
				t.Fatalf("politely %v: the state changed", politely)
			}
		}
		if r.Stats().Registrations != 0 || len(r.graves) != 0 {
			t.Errorf("politely %v: %d registrations, %d graves", politely, r.Stats().Registrations, len(r.graves))
		}
	}
}

// Whoever knows a handle, and everything else that an onlooker sees, can do
// nothing with it: keys of one's own do not fit.
func TestStolenHandleIsUseless(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("thief", testKey(2))
	w.introduce(a, b)
	w.run(time.Second)
	before := state(r)
	for _, mt := range sealedTypes[1:] {
		e := wire.Envelope{Type: mt, ID: wire.TransactionID{1}, Handle: a.agent.handle, Sequence: 1 << 40}
		content := wire.Registration{Instance: 1, Gone: true}.Append(nil)
		content.AddChannel(0x4000)
		for _, from := range []netip.AddrPort{b.public[1], a.public[1]} {
			w.deliver(packet{from: from, to: server4, data: e.Seal(nil, &b.agent.keys.ToServer, content)})
		}
	}
	if state(r) != before || r.Stats().Forged != 2*uint64(len(sealedTypes)-1) {
		t.Errorf("stats: %+v", r.Stats())
	}
}

// A node cannot close another pair's channel, nor speak for another instance.
func TestNodeCannotTouchOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	a, b, c := w.register("a", testKey(1)), w.register("b", testKey(2)), w.register("c", testKey(3))
	ca, cb := w.introduce(a, b)
	c.step(AgentInput{Op: AgentCloseChannel, Channel: ca})
	c.step(AgentInput{Op: AgentCloseChannel, Channel: cb})
	c.agent.cfg.Instance = 1
	c.step(AgentInput{Op: AgentUpdate, Description: []byte("I am a")})
	w.run(10 * time.Second)
	if r.Stats().Channels != 1 || string(r.find(a.key.ID(), 1).description()) != "a" {
		t.Errorf("stats: %+v", r.Stats())
	}
}

// unprovedSizes feeds a registry a packet from a source that has proved nothing,
// and fails the test if more comes back than went in, or anything elsewhere.
// Plain Binding is the exception, which its rate limit is for: it grows by four
// IPv6 addresses at the most, and goes to another port of the source if that asks.
func unprovedSizes(t *testing.T, r *Registry, now time.Time, from netip.AddrPort, data []byte) {
	t.Helper()
	limit, anyPort := len(data), false
	if m, err := wire.Decode(data); err == nil && m.Type == stun.BindingRequest {
		limit, anyPort = limit+4*24, m.Contains(stun.AttrResponsePort)
	} else if _, ok := wire.ParseClassic(data); ok {
		limit += 3 * 12
	}
	out, _ := r.Step(now, 0, from, slices.Clone(data), nil)
	for _, o := range out {
		if o.To != from && (!anyPort || o.To.Addr() != from.Addr()) {
			t.Fatalf("%x made the server send to %v", data, o.To)
		}
		limit -= len(o.Data)
	}
	if limit < 0 {
		t.Fatalf("%d bytes are answered with %d: %x", len(data), len(data)-limit, data)
	}
}

// No message, whole, cut short, or lengthened, makes the server an amplifier.
func TestNoAmplification(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{Lifetime: 12 * time.Hour})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	ca, _ := w.introduce(a, b)
	a.say(ca, strings.Repeat("x", 300))
	b.step(AgentInput{Op: AgentUpdate, Description: []byte("new")})
	a.step(AgentInput{Op: AgentCloseChannel, Channel: ca})
	w.run(time.Second)
	for i := range 30 { // the hello of any size
		m := &stun.Message{Type: stun.NewType(wire.Register, stun.ClassRequest)}
		m.WriteHeader()
		m.Add(wire.AttrPadding, make([]byte, 4*i))
		w.seen = append(w.seen, packet{data: m.Raw})
	}
	for i, p := range w.seen {
		for j := range 40 {
			data := slices.Clone(p.data)
			switch j % 4 {
			case 1:
				data = data[:w.rng.IntN(len(data)+1)]
			case 2:
				data = append(data, make([]byte, w.rng.IntN(100))...)
			case 3:
				data[w.rng.IntN(min(len(data), 40))] ^= byte(1 + w.rng.IntN(255))
			}
			if len(data) >= 20 && j%2 == 0 { // a length that fits
				data = data[:len(data)&^3]
				data[2], data[3] = byte((len(data)-20)>>8), byte(len(data)-20)
			}
			w.now = w.now.Add(time.Second) // past all limits of rates
			unprovedSizes(t, r, w.now, netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i), byte(j)}), 99), data)
		}
	}
	if r.stats.Unproved == 0 || r.stats.Unknown == 0 || r.stats.Malformed == 0 {
		t.Errorf("not all was tried: %+v", r.stats)
	}
}

// Plain Binding is answered with a few bytes more than it has, so each network
// gets fifty answers a second.
func TestBindingIsLimitedByPrefix(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	request := wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil)
	ask := func(format string, n int) (answers int) {
		for i := range n {
			out, _ := r.Step(w.now, 0, ap(fmt.Sprintf(format, i%200)), slices.Clone(request), nil)
			answers += len(out)
		}
		return answers
	}
	const limit = 50
	for _, format := range []string{"203.0.113.%d:7", "203.0.114.7:%d1", "[2001:db8:0:%d::1]:7", "[2001:db8:1::1]:%d1"} {
		if n := ask(format, 500); n != limit {
			t.Errorf("%s: %d answers, want %d", format, n, limit)
		}
	}
	if n := r.Stats(); n.Limited != 4*450 || n.Bindings != 4*50 {
		t.Errorf("stats: %+v", n)
	}
	w.now = w.now.Add(time.Second)
	if n := ask("203.0.113.%d:7", 500); n != limit {
		t.Errorf("a second later: %d answers", n)
	}
}

// Sources without number fill no memory.
func TestUnprovedSourcesCostNoMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	before := state(r)
	for i := range 5000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i), byte(i >> 8), 7, 1}), 7)
		for _, data := range [][]byte{
			wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil),
			wire.AppendRegister(nil, wire.TransactionID{2}, nil, nil),
			wire.AppendRegister(nil, wire.TransactionID{3}, []byte("nonce"), make([]byte, 300)),
			wire.AppendChannelData(nil, 0x4000, make([]byte, 100)),
		} {
			unprovedSizes(t, r, w.now, from, data)
		}
	}
	if state(r) != before {
		t.Error("something was remembered")
	}
}

// agentSnapshot is what an Agent knows, but for its counters.
func agentSnapshot(a *Agent) string {
	s := fmt.Sprintf("%d %v %x %x %v %d %q %v %v %d %v", a.state, a.primary != nil, a.handle, a.keys, a.window,
		a.counter, a.description, a.accepting, a.observed, a.revision, a.told)
	for _, q := range a.requests {
		s += fmt.Sprintf(" %v %x", q.method, q.id)
	}
	for _, c := range slices.Sorted(maps.Keys(a.channels)) {
		s += fmt.Sprintf(" %x:%v", c, *a.channels[c])
	}
	return s
}

// One changed bit in anything that a server seals makes a packet that the node
// counts and ignores; so does a repetition.
func TestAgentIgnoresChangedAndReplayedMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	w.introduce(a, b)
	w.run(time.Second)
	types := map[stun.MessageType]int{}
	w.tamper = func(p packet) []packet {
		m, err := wire.Decode(p.data)
		if err != nil || p.to != a.public[1] || types[m.Type] > 0 {
			return []packet{p}
		}
		types[m.Type]++
		before := agentSnapshot(a.agent)
		for bit := range 8 * len(p.data) {
			data := slices.Clone(p.data)
			data[bit/8] ^= 1 << (bit % 8)
			s := a.agent.Stats()
			out, _ := a.agent.Step(w.now, AgentInput{Op: AgentPacket, From: p.from, Data: data}, nil)
			if len(out) > 0 {
				t.Fatalf("%v, bit %d changed: %+v", m.Type, bit, out)
			}
			if a.agent.Stats() == s {
				t.Fatalf("%v, bit %d changed: not counted", m.Type, bit)
			}
		}
		if agentSnapshot(a.agent) != before {
			t.Fatalf("%v: the agent's state changed", m.Type)
		}
		again := p
		w.at(w.now.Add(w.delay+time.Millisecond), func() {
			before, s := agentSnapshot(a.agent), a.agent.Stats()
			out, _ := a.agent.Step(w.now, AgentInput{Op: AgentPacket, From: again.from, Data: again.data}, nil)
			if len(out) > 0 || agentSnapshot(a.agent) != before || a.agent.Stats() == s {
				t.Errorf("%v: a replay counted: %+v", m.Type, out)
			}
		})
		return []packet{p}
	}
	a.step(AgentInput{Op: AgentUpdate, Description: []byte("new"), Accepting: true})
	ca, _ := w.introduce(a, b)
	w.introduce(b, a)
	a.askID(testKey(9).ID(), "")
	w.run(100 * time.Millisecond)
	b.step(AgentInput{Op: AgentCloseChannel, Channel: b.last(AgentAsked).Channel})
	a.step(AgentInput{Op: AgentCloseChannel, Channel: ca})
	a.say(0x4777, strings.Repeat("x", 100))
	w.register("a elsewhere", testKey(1))
	w.run(time.Second)
	if len(types) < 8 {
		t.Errorf("only %v were tried", types)
	}
}

// Errors without a seal, made by somebody who sees our packets and answers each
// at once, only bring attempts forward, and not often. What the node has stays.
func TestForgedErrors(t *testing.T) {
	t.Parallel()
	for _, code := range []int{int(stun.CodeUnauthorized), int(stun.CodeStaleNonce), wire.CodeUnknownRegistration, wire.CodeTooMany, 400} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			r := w.serve(Limits{})
			a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
			ca, cb := w.introduce(a, b)
			w.run(3 * time.Second)
			sent := 0
			w.tamper = func(p packet) []packet {
				m, err := wire.Decode(p.data)
				if err != nil || p.from != a.public[1] {
					return []packet{p}
				}
				sent++
				nonce := fmt.Appendf(nil, "nonce %d", sent)
				forged := packet{from: p.to, to: p.from, data: wire.AppendError(nil, m, code, nonce)}
				w.at(w.now.Add(time.Millisecond), func() { w.deliver(forged) })
				return []packet{p}
			}
			w.run(10 * time.Minute)
			if !a.registered() || len(a.did(AgentLost)) > 0 {
				t.Error("the node gave its registration up")
			}
			// Undisturbed it sends 40 to 45. A refresh in two seconds, or three
			// packets of a registration, would be 300 and 900.
			if sent > 1000 {
				t.Errorf("%d packets in ten minutes", sent)
			}
			w.tamper = nil
			w.run(30 * time.Second)
			a.say(ca, "x")
			b.say(cb, "y")
			w.run(time.Second)
			if len(a.received) != 1 || len(b.received) != 1 || r.Stats().Registrations != 2 {
				t.Errorf("the channel is gone; %+v", r.Stats())
			}
			if slices.ContainsFunc(a.did(AgentRegistered), func(d done) bool { return d.Again }) {
				t.Error("the node believes that the server forgot it")
			}
			w.introduce(b, a)
		})
	}
}

// The same by somebody who does not see our packets: transaction IDs cannot be
// guessed.
func TestBlindlyForgedErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a := w.register("a", testKey(1))
	sent, strange := len(w.seen), a.agent.Stats().Strange
	for _, method := range []stun.Method{wire.Register, wire.Refresh, wire.Introduce} {
		for _, code := range []int{401, 438, wire.CodeUnknownRegistration, wire.CodeTooMany} {
			m := &stun.Message{Type: stun.NewType(method, stun.ClassRequest), TransactionID: wire.TransactionID{9}}
			a.step(AgentInput{Op: AgentPacket, From: server4, Data: wire.AppendError(nil, m, code, []byte("nonce"))})
		}
	}
	if len(w.seen) != sent || a.agent.Stats().Strange != strange+12 {
		t.Errorf("%d packets, %+v", len(w.seen)-sent, a.agent.Stats())
	}
	// A forged word that the server does not know our endpoint brings one refresh.
	for range 100 {
		a.step(AgentInput{Op: AgentPacket, From: server4, Data: wire.AppendStranger(nil, wire.TransactionID{})})
	}
	if len(w.seen) != sent+1 {
		t.Errorf("%d packets", len(w.seen)-sent)
	}
	// Nothing comes from elsewhere.
	a.step(AgentInput{Op: AgentPacket, From: ap("203.0.113.1:3478"), Data: wire.AppendStranger(nil, wire.TransactionID{})})
	if a.agent.Stats().Strange != strange+13 {
		t.Errorf("%+v", a.agent.Stats())
	}
}

// A server that has another key can learn nothing of the node and do nothing with
// it, even in the place of the right one.
func TestImpostorServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.serve(Limits{})
	a, b := w.register("a", testKey(1)), w.register("b", testKey(2))
	w.introduce(a, b)
	id, name := a.key.ID(), "a node with a name that can be found"
	a.step(AgentInput{Op: AgentUpdate, Description: []byte(name), Accepting: true})
	w.stop(server4)
	w.servers[server4] = &serverSocket{NewRegistry(testKey(201), Limits{}, seeded{w.rng}), 0, []netip.AddrPort{server4}}
	w.run(10 * time.Minute)
	if a.registered() {
		t.Error("registered at an impostor")
	}
	if err := a.last(AgentFailed).Err; !errors.Is(err, ErrWrongServer) {
		t.Errorf("failed with %v", err)
	}
	for _, p := range w.seen {
		if strings.Contains(string(p.data), name) || strings.Contains(string(p.data), string(id[:])) {
			t.Fatal("ID or description left the node in the clear")
		}
	}
}

// What a node says at the most fits a message that fits every link.
func TestLargestMessagesFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	r := w.serve(Limits{})
	var peers []peer.ID
	for i := range MaxPeers {
		peers = append(peers, testKey(byte(100+i)).ID())
	}
	description := make([]byte, wire.MaxDescription)
	a := w.register("a", testKey(1))
	b := w.node("b", testKey(100), false)
	b.step(AgentInput{Op: AgentUpdate, Description: description, Accepting: true, Peers: append(peers[1:], a.key.ID())})
	b.find(server4)
	w.until(time.Second, b.registered)
	b.step(AgentInput{Op: AgentUpdate, Description: description[1:], Accepting: true, Peers: append(peers[1:], a.key.ID())})
	w.until(time.Second, b.registered)
	token := a.ask(b, strings.Repeat("o", wire.MaxDescription+256))
	w.run(time.Second)
	if d := a.answer(token); d == nil || d.Err != nil || len(b.did(AgentAsked)) != 1 {
		t.Errorf("answer: %+v", d)
	}
	largest := 0
	for _, p := range w.seen {
		largest = max(largest, len(p.data))
	}
	if largest > wire.MaxMessage || r.Stats().Malformed > 0 {
		t.Errorf("a message of %d bytes; %+v", largest, r.Stats())
	}
	t.Logf("largest message: %d bytes of %d", largest, wire.MaxMessage)
}
