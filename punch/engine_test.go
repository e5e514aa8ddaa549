package punch

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"bodkin/nat"
)

// The server tells a at 60 ms and b at 70 ms (20, 30 and 10 ms one way): the
// hole is there after RTT(A,S) + RTT(A,B) = 160 ms.
func TestHoleAtTheLimit(t *testing.T) {
	w := newWorld(t, 1)
	begin := w.now
	w.start(w.a, 60*time.Millisecond)
	w.start(w.b, 70*time.Millisecond)
	w.run(10*time.Second, w.direct)
	if !w.direct() {
		t.Fatal("no hole")
	}
	if got := w.a.direct.Sub(begin); got != 160*time.Millisecond {
		t.Errorf("the dialler is direct after %v, want 160ms", got)
	}
	if got := w.b.direct.Sub(begin); got > 220*time.Millisecond {
		t.Errorf("the other is direct after %v", got)
	}
}

func TestEveryHoleOpensUnderLoss(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(t, seed)
		w.loss = 0.36 // 20% each way on both access links
		w.start(w.a, 0)
		w.start(w.b, 10*time.Millisecond)
		w.run(10*time.Second, w.direct)
		if !w.direct() {
			t.Fatalf("seed %d: no hole", seed)
		}
	}
}

func TestChangedProbesChangeNothing(t *testing.T) {
	w := newWorld(t, 1)
	bit := 0
	w.tamper = func(data []byte) []byte {
		bit = (bit + 1) % (8 * len(data))
		data[bit/8] ^= 1 << (bit % 8)
		return data
	}
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(9*time.Second, func() bool { return false })
	if n := w.b.did(Heard) + w.b.did(Confirmed); n != 0 {
		t.Errorf("%d events came of changed packets", n)
	}
	s := w.b.engine.Stats()
	if s.Forged+s.Malformed == 0 {
		t.Error("changed packets were not counted")
	}
}

func TestReplayedProbesChangeNothing(t *testing.T) {
	w := newWorld(t, 1)
	var first []byte
	w.tamper = func(data []byte) []byte {
		if first == nil && data[0] == 0 && data[1] == 1 {
			first = append([]byte(nil), data...)
		}
		return data
	}
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(10*time.Second, w.direct)
	heard, packets := w.b.did(Heard), len(w.b.packets)
	w.step(w.b, Input{Op: Packet, Local: 1, From: ap("192.0.2.99:99"), Data: first})
	if w.b.did(Heard) != heard || len(w.b.packets) != packets {
		t.Error("a replayed probe was answered")
	}
	if w.b.engine.Stats().Replayed != 1 {
		t.Errorf("stats are %+v", w.b.engine.Stats())
	}
}

// A router, or a stranger with the peer's private address, sends our own probe
// back: the directional keys keep it from counting.
func TestOwnProbeEchoedNeverCounts(t *testing.T) {
	w := newWorld(t, 1)
	w.start(w.a, 0)
	w.run(time.Second, func() bool { return len(w.a.packets) > 0 })
	for _, p := range w.a.packets {
		w.step(w.a, Input{Op: Packet, Local: 1, From: p.To, Data: p.Data})
	}
	if w.a.did(Heard)+w.a.did(Confirmed) != 0 {
		t.Error("our own probe counted as the peer's")
	}
	if w.a.engine.Stats().Forged == 0 {
		t.Error("the echo was not counted")
	}
}

// An answer from elsewhere than where the question went is no route.
func TestAnswerFromElsewhereIsStrange(t *testing.T) {
	w := newWorld(t, 1)
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(10*time.Second, func() bool { return w.b.did(Heard) > 0 })
	for _, p := range w.b.packets {
		if p.Data[0] == 1 { // a success response
			w.step(w.a, Input{Op: Packet, Local: 1, From: ap("192.0.2.7:7"), Data: p.Data})
		}
	}
	if w.a.did(Confirmed) != 0 || w.a.engine.Stats().Strange == 0 {
		t.Error("an answer from a strange endpoint counted")
	}
}

func TestOpenersGoFirstWhereTheNATKeepsEarlyPackets(t *testing.T) {
	w := newWorld(t, 1)
	w.engines(nat.Profile{}, nat.Profile{KeepsEarly: nat.Yes})
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(time.Second, w.direct)
	for i, p := range w.a.packets {
		if wantTTL := i < len(openerTTLs); (p.TTL != 0) != wantTTL && i < 4 {
			t.Errorf("packet %d has TTL %d", i, p.TTL)
		}
	}
	if !w.direct() {
		t.Error("no hole")
	}
}

func TestStrangersGetFewProbes(t *testing.T) {
	w := newWorld(t, 1)
	other := w.a.engine.cfg.Other
	stranger := ap("192.0.2.50:53")
	other.Candidates = append(other.Candidates, Candidate{ServerReflexive, UDP, stranger})
	cfg := w.a.engine.cfg
	cfg.Other = other
	w.a.engine = NewEngine(cfg)
	w.start(w.a, 0)
	w.run(20*time.Second, func() bool { return false })
	n := 0
	for _, p := range w.a.packets {
		if p.To == stranger {
			n++
		}
		if p.To == w.b.private {
			t.Fatalf("probed the private endpoint of another home")
		}
	}
	if n != unobservedLimit {
		t.Errorf("%d probes to an endpoint that the server did not observe, want %d", n, unobservedLimit)
	}
	if len(w.a.packets) > attemptProbes || w.a.did(Done) != 1 {
		t.Errorf("%d probes, %d ends", len(w.a.packets), w.a.did(Done))
	}
}

func TestRouteIsLostAndComesBack(t *testing.T) {
	w := newWorld(t, 1)
	w.start(w.a, 0)
	w.start(w.b, 0)
	w.run(10*time.Second, w.direct)
	w.run(20*time.Second, func() bool { return false }) // the attempt ends, keepalives go on
	if w.a.did(Lost)+w.b.did(Lost) != 0 {
		t.Fatal("a live route was lost")
	}
	w.loss = 1
	blocked := w.now
	w.step(w.a, Input{Op: Check, Local: 1, From: w.b.public})
	w.run(5*time.Second, func() bool { return w.a.did(Lost) > 0 })
	if d := w.now.Sub(blocked); w.a.did(Lost) != 1 || d > 1500*time.Millisecond {
		t.Fatalf("lost %d times, after %v", w.a.did(Lost), d)
	}
	w.loss = 0
	confirmed := w.a.did(Confirmed)
	w.run(40*time.Second, func() bool { return w.a.did(Confirmed) > confirmed })
	if w.a.did(Confirmed) == confirmed {
		t.Error("the peer's keepalive did not bring the route back")
	}
}

func TestTargets(t *testing.T) {
	self := Side{Abilities: ByUDP, Observed: []netip.AddrPort{ap("203.0.113.1:1")}}
	link := []netip.Prefix{netip.MustParsePrefix("192.168.7.3/24")}
	host := func(s string) Candidate { return Candidate{Host, UDP, ap(s)} }
	for name, c := range map[string]struct {
		other Side
		want  []string
	}{
		"other home":            {Side{Abilities: ByUDP, Candidates: []Candidate{host("10.0.0.1:9")}, Observed: []netip.AddrPort{ap("198.51.100.1:9")}}, []string{"198.51.100.1:9"}},
		"own link":              {Side{Abilities: ByUDP, Candidates: []Candidate{host("192.168.7.9:9")}}, []string{"192.168.7.9:9"}},
		"same NAT":              {Side{Abilities: ByUDP, Candidates: []Candidate{host("10.0.0.1:9")}, Observed: []netip.AddrPort{ap("203.0.113.1:9")}}, []string{"10.0.0.1:9", "203.0.113.1:9"}},
		"said twice":            {Side{Abilities: ByUDP, Candidates: []Candidate{host("198.51.100.1:9")}, Observed: []netip.AddrPort{ap("198.51.100.1:9")}}, []string{"198.51.100.1:9"}},
		"multicast and nothing": {Side{Abilities: ByUDP, Candidates: []Candidate{host("224.0.0.1:9"), host("0.0.0.0:9"), host("198.51.100.1:0"), host("255.255.255.255:9")}}, nil},
		"other transports":      {Side{Abilities: ByUDP, Candidates: []Candidate{{Host, TCP, ap("198.51.100.1:9")}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := targets(self, c.other, link, UDP)
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i, w := range c.want {
				if got[i].endpoint != ap(w) {
					t.Errorf("target %d is %v, want %s", i, got[i].endpoint, w)
				}
			}
		})
	}
}

func TestDescription(t *testing.T) {
	s := Side{
		Abilities: ByUDP | ByTCP, ServerRTT: 41 * time.Millisecond,
		Profile: nat.Profile{Mapping: nat.EndpointIndependent, Filtering: nat.AddressAndPortDependent, KeepsEarly: nat.No},
		TCP:     nat.Profile{Mapping: nat.AddressAndPortDependent},
	}
	for range 30 {
		s.Candidates = append(s.Candidates, Candidate{Host, UDP, ap("[2001:db8::1]:7")}, Candidate{Mapped, UDP, ap("192.0.2.1:8")})
	}
	b := s.AppendDescription(nil)
	want := s
	want.Candidates = s.Candidates[:MaxCandidates]
	if got, err := ParseDescription(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
	for i := range b {
		_, _ = ParseDescription(b[:i])
	}
	if got, err := ParseDescription(Side{}.AppendDescription(nil)); err != nil || !reflect.DeepEqual(got, Side{}) {
		t.Errorf("nothing became %+v %v", got, err)
	}
}

func FuzzDescription(f *testing.F) {
	f.Add(Side{Candidates: []Candidate{{Host, UDP, ap("192.0.2.1:8")}}}.AppendDescription(nil))
	f.Add(Side{TCP: nat.Profile{Mapping: nat.None}}.AppendDescription(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseDescription(b)
		if err != nil {
			return
		}
		b2 := s.AppendDescription(nil)
		if again, err := ParseDescription(b2); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%x became %x", b, b2)
		}
	})
}

func FuzzEngine(f *testing.F) {
	w := newWorld(f, 1)
	w.start(w.a, 0)
	w.run(time.Second, func() bool { return len(w.a.packets) > 0 })
	f.Add(w.a.packets[0].Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _ := w.a.engine.Step(w.now, Input{Op: Packet, Local: 1, From: w.b.public, Data: b}, nil)
		for _, a := range out {
			if a.Op == Heard || a.Op == Confirmed {
				t.Errorf("believed %x", b)
			}
		}
	})
}
