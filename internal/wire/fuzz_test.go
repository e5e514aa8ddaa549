package wire_test

import (
	"bytes"
	"slices"
	"testing"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// seeds adds all messages and contents, whole and cut short, and some bytes that
// are none.
func seeds(f *testing.F) {
	f.Helper()
	for _, m := range messages() {
		b := golden(m.name)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Add(make([]byte, 40))
	f.Add(unhex("0001ffff2112a442"))
}

// roundTrip fuzzes the parser of a content: what it takes, it encodes in one form.
func roundTrip[T interface{ Append(wire.Attrs) wire.Attrs }](f *testing.F, parse func(wire.Attrs) (T, error)) {
	f.Helper()
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parse(b)
		if err != nil {
			return
		}
		once := v.Append(nil)
		again, err := parse(once)
		if err != nil {
			t.Fatalf("%x became %x: %v", b, once, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Errorf("%x became %x, and that %x", b, once, twice)
		}
		if len(once) > wire.MaxMessage {
			t.Errorf("%d bytes became %d", len(b), len(once))
		}
	})
}

func FuzzParseRegistration(f *testing.F) { roundTrip(f, wire.ParseRegistration) }
func FuzzParseRegistered(f *testing.F)   { roundTrip(f, wire.ParseRegistered) }
func FuzzParseAsk(f *testing.F)          { roundTrip(f, wire.ParseAsk) }
func FuzzParseParty(f *testing.F)        { roundTrip(f, wire.ParseParty) }
func FuzzParseOffer(f *testing.F)        { roundTrip(f, wire.ParseOffer) }
func FuzzParseInvitation(f *testing.F)   { roundTrip(f, wire.ParseInvitation) }
func FuzzParseLetter(f *testing.F)       { roundTrip(f, wire.ParseLetter) }

func FuzzAttrs(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		a := wire.Attrs(b)
		var again wire.Attrs
		for u, v := range a.All() {
			first, ok := a.Get(u)
			if !ok || first == nil {
				t.Errorf("%#x is there and is not", uint16(u))
			}
			again.Add(u, v)
		}
		if whole := a.Check() == nil; whole != (len(again) == len(a)) {
			t.Errorf("whole is %v; %d bytes of %d are attributes", whole, len(again), len(a))
		}
		_, _ = a.Uint32(wire.AttrFlags)
		_, _ = a.Uint64(wire.AttrInstance)
		_, _ = a.Channel()
	})
}

func FuzzParseEndpoints(f *testing.F) {
	seeds(f)
	f.Add(wire.AppendEndpoints(nil, endpointA, endpointA6, endpointB))
	f.Fuzz(func(t *testing.T, b []byte) {
		es, err := wire.ParseEndpoints(b, 8)
		if err != nil {
			return
		}
		if again := wire.AppendEndpoints(nil, es...); len(es) > 8 || !bytes.Equal(again, b) {
			t.Errorf("%x became %v, and that %x", b, es, again)
		}
	})
}

// FuzzEnvelope opens with a key that the seeds were sealed with: what opens must
// be what was sealed.
func FuzzEnvelope(f *testing.F) {
	seeds(f)
	key := linkB().ToServer
	sealed := make(map[string]bool)
	for _, name := range []string{"refresh", "refresh-move", "refresh-goodbye", "introduced-answer", "invite", "pair-delivered-answer"} {
		sealed[string(golden(name))] = true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Decode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Raw, b) {
			t.Errorf("%x became %x", b, m.Raw)
		}
		_ = (&wire.Integrity{}).Check(m)
		e, err := wire.ParseEnvelope(m)
		if err != nil {
			return
		}
		content, err := wire.Open(m, e.Sequence, &key)
		if err == nil && (!sealed[string(b)] || content.Check() != nil) {
			t.Errorf("%x opened", b)
		}
	})
}

// FuzzHandover parses the last packets of connections: what is taken has one form.
func FuzzHandover(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		token, answer, ok := wire.ParseHandover(b)
		if ok && !bytes.Equal(wire.AppendHandover(nil, token, answer), b) {
			t.Errorf("%x was taken", b)
		}
	})
}

func FuzzOpenRegister(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Decode(b)
		if err != nil {
			return
		}
		m.Type = stun.NewType(wire.Register, stun.ClassRequest)
		if _, err := wire.OpenRegister(m, keyServer); err == nil && !bytes.Equal(b, golden("register")) {
			t.Errorf("%x opened", b)
		}
	})
}

// FuzzBinding parses requests and answers: what is taken, is written in one form.
func FuzzBinding(f *testing.F) {
	seeds(f)
	for _, v := range rfc5769 {
		f.Add(unhex(v))
	}
	again := func(t *testing.T, b, once []byte, parse func(*stun.Message) ([]byte, error)) {
		t.Helper()
		m, err := wire.Decode(once)
		if err != nil {
			t.Fatalf("%x became %x: %v", b, once, err)
		}
		if twice, err := parse(m); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%x became %x, and that %x, %v", b, once, twice, err)
		}
	}
	request := func(m *stun.Message) ([]byte, error) {
		r, err := wire.ParseBindingRequest(m)
		return r.Append(nil), err
	}
	answer := func(m *stun.Message) ([]byte, error) {
		a, err := wire.ParseBindingAnswer(m)
		return a.Append(nil), err
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Decode(b)
		if err != nil {
			return
		}
		if once, err := request(m); err == nil {
			again(t, b, once, request)
		}
		if once, err := answer(m); err == nil {
			again(t, b, once, answer)
		}
	})
}

func FuzzParseProbe(f *testing.F) {
	seeds(f)
	a, b := probeKeysA(), probeKeysB()
	f.Fuzz(func(t *testing.T, packet []byte) {
		p, err := wire.ParseProbe(packet)
		if err != nil {
			return
		}
		if p.Answer != p.Mapped.IsValid() {
			t.Errorf("answer %v from %v", p.Answer, p.Mapped)
		}
		known := slices.ContainsFunc([]string{"probe", "probe-wide", "probe-relayed", "probe-answer", "probe-answer-ipv6", "probe-answer-counting"},
			func(name string) bool { return bytes.Equal(packet, golden(name)) })
		if (a.Verify(p) || b.Verify(p)) != known {
			t.Errorf("%x is believed, or is not", packet)
		}
	})
}

func FuzzParseChannelData(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, data, ok := wire.ParseChannelData(b)
		if !ok {
			return
		}
		if wire.Classify(b, true) != wire.ClassChannel || c.Asked() == c.Served() {
			t.Errorf("channel %#x of %x", uint16(c), b)
		}
		if again := wire.AppendChannelData(nil, c, data); !bytes.HasPrefix(b, again) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzClassify(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		peer, server := wire.Classify(b, false), wire.Classify(b, true)
		if peer == wire.ClassChannel || peer == wire.ClassSTUN && server != peer {
			t.Errorf("%x: %d from a peer, %d from the server", b, peer, server)
		}
		if m, err := wire.Decode(b); err == nil && (peer != wire.ClassSTUN || m.Raw[0] > 3) {
			t.Errorf("%x decodes, and counts as %d", b, peer)
		}
		if _, _, ok := wire.ParseChannelData(b); ok && server != wire.ClassChannel {
			t.Errorf("%x is ChannelData, and counts as %d", b, server)
		}
	})
}
