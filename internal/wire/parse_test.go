package wire_test

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// with is a run with one attribute's value changed, or with nil removed.
func with(a wire.Attrs, t stun.AttrType, value []byte) wire.Attrs {
	var out wire.Attrs
	found := false
	for u, v := range a.All() {
		switch {
		case u != t:
			out.Add(u, v)
		case value != nil:
			found = true
			out.Add(u, value)
		}
	}
	if !found && value != nil {
		out.Add(t, value)
	}
	return out
}

// parsers are the contents, each with an example and what it needs.
var parsers = []struct {
	name  string
	parse func(wire.Attrs) error
	needs []stun.AttrType
}{
	{
		"registration", func(a wire.Attrs) error { _, err := wire.ParseRegistration(a); return err },
		[]stun.AttrType{wire.AttrInstance, wire.AttrCounter, wire.AttrFlags, wire.AttrDescription},
	},
	{
		"registered", func(a wire.Attrs) error { _, err := wire.ParseRegistered(a); return err },
		[]stun.AttrType{wire.AttrObserved, stun.AttrLifetime, wire.AttrRevision},
	},
	{
		"ask", func(a wire.Attrs) error { _, err := wire.ParseAsk(a); return err },
		[]stun.AttrType{wire.AttrPeerID, wire.AttrChannel, wire.AttrOffer},
	},
	{
		"party-target", func(a wire.Attrs) error { _, err := wire.ParseParty(a); return err },
		[]stun.AttrType{wire.AttrPeerID, wire.AttrInstance, wire.AttrChannel, wire.AttrRevision},
	},
	{
		"offer", func(a wire.Attrs) error { _, err := wire.ParseOffer(a); return err },
		[]stun.AttrType{wire.AttrInstance, wire.AttrCounter, wire.AttrSessionNonce},
	},
	{
		"invitation", func(a wire.Attrs) error { _, err := wire.ParseInvitation(a); return err },
		[]stun.AttrType{stun.AttrLifetime},
	},
	{
		"letter-delivered", func(a wire.Attrs) error { _, err := wire.ParseLetter(a); return err },
		[]stun.AttrType{wire.AttrNameplate},
	},
}

func TestContentsNeedTheirAttributes(t *testing.T) {
	t.Parallel()
	for _, p := range parsers {
		good := wire.Attrs(golden(p.name))
		if err := p.parse(good); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		for _, u := range p.needs {
			v, ok := good.Get(u)
			if !ok {
				t.Errorf("%s has no %#x", p.name, uint16(u))
			}
			if err := p.parse(with(good, u, nil)); err == nil {
				t.Errorf("%s parses without %#x", p.name, uint16(u))
			}
			if u != wire.AttrDescription && u != wire.AttrOffer && u != wire.AttrObserved {
				for _, bad := range [][]byte{{}, v[1:], append(slices.Clone(v), 0)} {
					if err := p.parse(with(good, u, bad)); err == nil {
						t.Errorf("%s parses with %d bytes of %#x", p.name, len(bad), uint16(u))
					}
				}
			}
		}
		// A later version may say more.
		if err := p.parse(with(good, 0xC0DF, []byte("new"))); err != nil {
			t.Errorf("%s with an unknown attribute: %v", p.name, err)
		}
		if err := p.parse(nil); err == nil {
			t.Errorf("%s parses from nothing", p.name)
		}
	}
}

func TestContentsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parser    string
		attribute stun.AttrType
		value     []byte
		want      bool
	}{
		{"registration", wire.AttrInstance, make([]byte, 8), false},
		{"registration", wire.AttrDescription, []byte{}, true},
		{"registration", wire.AttrDescription, make([]byte, wire.MaxDescription), true},
		{"registration", wire.AttrDescription, make([]byte, wire.MaxDescription+1), false},
		{"registration", wire.AttrTags, []byte{}, true},
		{"registration", wire.AttrTags, make([]byte, wire.MaxTags*wire.TagSize), true},
		{"registration", wire.AttrTags, make([]byte, (wire.MaxTags+1)*wire.TagSize), false},
		{"registration", wire.AttrTags, make([]byte, wire.TagSize+1), false},

		{"registered", wire.AttrObserved, []byte{}, true},
		{"registered", wire.AttrObserved, wire.AppendEndpoints(nil, endpointA, endpointA6), true},
		{"registered", wire.AttrObserved, wire.AppendEndpoints(nil, endpointA, endpointA6, endpointB), false},
		{"registered", wire.AttrObserved, []byte{4}, false},
		{"registered", wire.AttrFlags, []byte{}, true},

		{"ask", wire.AttrPeerID, make([]byte, 32), true}, // nobody's key: who is not there
		{"ask", wire.AttrPeerID, make([]byte, 31), false},
		{"ask", wire.AttrTags, make([]byte, 3*wire.TagSize), true},
		{"ask", wire.AttrTags, make([]byte, 4*wire.TagSize), false},
		{"ask", wire.AttrChannel, []byte{0x47, 0xff}, true},
		{"ask", wire.AttrChannel, []byte{0x48, 0}, false},
		{"ask", wire.AttrChannel, []byte{0x3f, 0xff}, false},
		{"ask", wire.AttrOffer, make([]byte, wire.MaxDescription+256), true},
		{"ask", wire.AttrOffer, make([]byte, wire.MaxDescription+257), false},

		{"party-target", wire.AttrPeerID, make([]byte, 32), false},
		{"party-target", wire.AttrInstance, make([]byte, 8), false},
		{"party-target", wire.AttrDescription, make([]byte, wire.MaxDescription+1), false},
		{"party-target", wire.AttrOffer, make([]byte, wire.MaxDescription+257), false},
		{"party-target", wire.AttrObserved, wire.AppendEndpoints(nil, endpointA, endpointA6, endpointB), false},

		{"offer", wire.AttrInstance, make([]byte, 8), false},
		{"offer", wire.AttrDescription, []byte{}, true},
		{"offer", wire.AttrDescription, make([]byte, wire.MaxDescription+1), false},

		{"invitation", wire.AttrNameplate, []byte{0, 0, 0, 1}, true},
		{"invitation", wire.AttrNameplate, make([]byte, 4), false},
		{"invitation", wire.AttrNameplate, []byte{1}, false},
		{"letter-delivered", wire.AttrNameplate, make([]byte, 4), false},
		{"letter-delivered", wire.AttrLetter, []byte{}, true},
		{"letter-delivered", wire.AttrLetter, make([]byte, wire.MaxLetter), true},
		{"letter-delivered", wire.AttrLetter, make([]byte, wire.MaxLetter+1), false},
		{"letter-delivered", wire.AttrPeerID, make([]byte, 32), false},
		{"letter-delivered", wire.AttrPeerID, make([]byte, 31), false},
	} {
		for _, p := range parsers {
			if p.name != c.parser {
				continue
			}
			err := p.parse(with(golden(p.name), c.attribute, c.value))
			if (err == nil) != c.want {
				t.Errorf("%s with %d bytes of %#x: %v", c.parser, len(c.value), uint16(c.attribute), err)
			}
			if err != nil && !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, peer.ErrBadID) {
				t.Errorf("%s with %d bytes of %#x: %v is of no known kind", c.parser, len(c.value), uint16(c.attribute), err)
			}
		}
	}
}

// Whatever a node may say fits one packet on every IPv6 link.
func TestLargestMessagesFit(t *testing.T) {
	t.Parallel()
	everything := wire.Registration{
		Instance: instanceB, Counter: 1, Flags: 7, Gone: true,
		Description: make([]byte, wire.MaxDescription), Tags: make([]wire.Tag, wire.MaxTags),
	}
	offer, err := keyA.Seal(idB, wire.OfferPurpose, idServer[:],
		wire.Offer{Instance: 1, Counter: 1, Description: make([]byte, wire.MaxDescription)}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	nonce := bytes.Repeat([]byte{'n'}, 128) // as much as a node takes
	registerBox, err := wire.SealRegister(keyB, idServer, transaction(1), nonce, everything)
	if err != nil {
		t.Fatal(err)
	}
	ask := askA()
	ask.Offer = offer
	if _, err := wire.ParseAsk(ask.Append(nil)); err != nil {
		t.Errorf("the largest offer: %v", err)
	}
	two := []netip.AddrPort{endpointA, endpointA6}
	target := wire.Party{ID: idB, Instance: instanceB, Observed: two, Description: everything.Description, Channel: wire.FirstAskedChannel}
	asker := wire.Party{ID: idA, Instance: instanceA, Observed: two, Offer: offer, Channel: wire.FirstServedChannel}
	seal := func(method stun.Method, nonce []byte, content wire.Attrs) []byte {
		e := wire.Envelope{Type: stun.NewType(method, stun.ClassRequest), Handle: handleB, Sequence: 1, Nonce: nonce}
		return e.Seal(nil, &[32]byte{}, content)
	}
	for name, b := range map[string][]byte{
		"register":         wire.AppendRegister(nil, transaction(1), nonce, registerBox),
		"refresh":          seal(wire.Refresh, nonce, everything.Append(nil)),
		"introduce":        seal(wire.Introduce, nil, ask.Append(nil)),
		"introduce answer": seal(wire.Introduce, nil, target.Append(nil)),
		"introduced":       seal(wire.Introduced, nil, asker.Append(nil)),
	} {
		if _, err := wire.Decode(b); err != nil || len(b) > wire.MaxMessage {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
	}
}

func TestRegistrationSaysWhatItWasGiven(t *testing.T) {
	t.Parallel()
	r, err := wire.ParseRegistration(golden("registration"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Instance != instanceB || r.Counter != 1 || r.Flags != wire.FlagAccepting || r.Gone ||
		!bytes.Equal(r.Description, description) || !slices.Equal(r.Tags, []wire.Tag{tagFor(today)}) {
		t.Errorf("%+v", r)
	}
	gone := registrationB()
	gone.Gone = true
	if r, err := wire.ParseRegistration(gone.Append(nil)); err != nil || !r.Gone {
		t.Errorf("%+v, %v", r, err)
	}
	// Only LIFETIME 0 is a goodbye.
	for _, v := range [][]byte{{0, 0, 0, 60}, {0}, {}, make([]byte, 8)} {
		if r, err := wire.ParseRegistration(with(golden("registration"), stun.AttrLifetime, v)); err != nil || r.Gone {
			t.Errorf("LIFETIME %x: %+v, %v", v, r, err)
		}
	}
	// A Refresh says nothing, or everything: there is no half of a registration.
	var half wire.Attrs
	half.AddUint64(wire.AttrInstance, instanceB)
	half.AddUint32(wire.AttrFlags, 0)
	if _, err := wire.ParseRegistration(half); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("half a registration: %v", err)
	}
}

// What the server sees of a node's TCP is beside what it sees of its UDP, and left out
// where there is nothing; the age of an introduction is, too.
func TestObservedTCPAndAge(t *testing.T) {
	t.Parallel()
	two := []netip.AddrPort{endpointA, endpointA6}
	r := registeredB()
	r.ObservedTCP = two
	if got, err := wire.ParseRegistered(r.Append(nil)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	p := partyA()
	p.ObservedTCP, p.Age = two, 1234*time.Millisecond
	if got, err := wire.ParseParty(p.Append(nil)); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
	p.Age = 1<<62 - 1
	if got, err := wire.ParseParty(p.Append(nil)); err != nil || got.Age.Milliseconds() != 1<<32-1 {
		t.Errorf("an age without end: %v, %v", got.Age, err)
	}
	three := wire.AppendEndpoints(nil, endpointA, endpointA6, endpointA)
	for name, value := range map[string][]byte{"three endpoints": three, "half of one": three[:5]} {
		if _, err := wire.ParseRegistered(with(registeredB().Append(nil), wire.AttrObservedTCP, value)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("registered with %s: %v", name, err)
		}
		if _, err := wire.ParseParty(with(partyA().Append(nil), wire.AttrObservedTCP, value)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("party with %s: %v", name, err)
		}
	}
}

func TestRegisteredCountsWholeSeconds(t *testing.T) {
	t.Parallel()
	in := registeredB()
	in.Lifetime = 90*time.Second + 999*time.Millisecond
	r, err := wire.ParseRegistered(in.Append(nil))
	if err != nil || r.Lifetime != 90*time.Second || r.Revision != 2 || !slices.Equal(r.Observed, in.Observed) || r.Flags != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	long := with(golden("registered"), stun.AttrLifetime, []byte{0xff, 0xff, 0xff, 0xff})
	if r, err := wire.ParseRegistered(long); err != nil || r.Lifetime < 136*365*24*time.Hour {
		t.Errorf("the longest lifetime: %v, %v", r.Lifetime, err)
	}
}

func TestRunOfAttributes(t *testing.T) {
	t.Parallel()
	var a wire.Attrs
	for n := range 9 {
		a.Add(stun.AttrType(0xC000+n), bytes.Repeat([]byte{0xff}, n))
		if len(a)%4 != 0 || a.Check() != nil {
			t.Fatalf("%d bytes after %d attributes, %v", len(a), n+1, a.Check())
		}
	}
	n := 0
	for u, v := range a.All() {
		if int(u) != 0xC000+n || len(v) != n {
			t.Errorf("attribute %d is %#x with %d bytes", n, uint16(u), len(v))
		}
		n++
	}
	if v, ok := a.Get(0xC000); !ok || v == nil || len(v) != 0 {
		t.Errorf("the empty attribute: %v, %v", v, ok)
	}
	if _, ok := a.Get(0xC009); ok {
		t.Error("an attribute that is not there")
	}
	for cut := 1; cut < len(a); cut++ {
		whole := a[:cut].Check() == nil
		count := 0
		for range a[:cut].All() {
			count++
		}
		var again wire.Attrs
		for u, v := range a[:cut].All() {
			again.Add(u, v)
		}
		if whole != (len(again) == cut) {
			t.Errorf("cut after %d: whole is %v, %d attributes", cut, whole, count)
		}
	}
	// The first one counts.
	var twice wire.Attrs
	twice.AddUint32(wire.AttrFlags, 1)
	twice.AddUint32(wire.AttrFlags, 2)
	if v, ok := twice.Uint32(wire.AttrFlags); !ok || v != 1 {
		t.Errorf("%d, %v", v, ok)
	}
	if _, ok := twice.Uint64(wire.AttrFlags); ok {
		t.Error("four bytes are a number of eight")
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, hex string }{
		{"192.0.2.1:1", "04 0001 c0000201"},
		{"0.0.0.0:0", "04 0000 00000000"},
		{"255.255.255.255:65535", "04 ffff ffffffff"},
		{"[2001:db8::1]:3478", "06 0d96 20010db8000000000000000000000001"},
		{"[::]:0", "06 0000 00000000000000000000000000000000"},
	} {
		e := netip.MustParseAddrPort(c.text)
		b := wire.AppendEndpoint(nil, e)
		if !bytes.Equal(b, unhex(c.hex)) {
			t.Errorf("%s is %x", c.text, b)
		}
		if got, rest, err := wire.CutEndpoint(append(b, 7)); err != nil || got != e || len(rest) != 1 {
			t.Errorf("%s came back as %v, %x, %v", c.text, got, rest, err)
		}
		for n := range len(b) {
			if _, _, err := wire.CutEndpoint(b[:n]); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%d bytes of %s: %v", n, c.text, err)
			}
		}
	}
	// One endpoint has one form: an IPv4 address never travels as IPv6.
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")
	if b := wire.AppendEndpoint(nil, mapped); !bytes.Equal(b, unhex("04 0001 c0000201")) {
		t.Errorf("%x", b)
	}
	for _, bad := range []string{"", "05 0001 c0000201", "00", "06 0001 00000000000000000000ffffc0000201"} {
		if _, _, err := wire.CutEndpoint(unhex(bad)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	run := wire.AppendEndpoints(nil, endpointA, endpointA6, endpointB)
	if got, err := wire.ParseEndpoints(run, 3); err != nil || !slices.Equal(got, []netip.AddrPort{endpointA, endpointA6, endpointB}) {
		t.Errorf("%v, %v", got, err)
	}
	for limit := range 3 {
		if got, err := wire.ParseEndpoints(run, limit); err == nil {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	if got, err := wire.ParseEndpoints(nil, 0); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestChannelData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hex  string
		want string
		ok   bool
	}{
		{"4000 0002 6869", "hi", true},
		{"47ff 0002 6869", "hi", true},
		{"4800 0002 6869", "hi", true},
		{"4fff 0002 6869", "hi", true},
		{"4000 0000", "", true},
		{"4000 0002 6869 0000", "hi", true}, // padded
		{"3fff 0002 6869", "", false},
		{"5000 0002 6869", "", false},
		{"4000 0003 6869", "", false},
		{"4000 ffff 6869", "", false},
		{"4000 00", "", false},
		{"", "", false},
	} {
		ch, data, ok := wire.ParseChannelData(unhex(c.hex))
		if ok != c.ok || string(data) != c.want {
			t.Errorf("%s: channel %#x, %q, %v", c.hex, uint16(ch), data, ok)
		}
		if ok && ch.Asked() == ch.Served() {
			t.Errorf("channel %#x is of both halves, or of none", uint16(ch))
		}
	}
	b := wire.AppendChannelData(nil, wire.FirstAskedChannel, []byte("hi"))
	wire.PutChannelHeader(b, wire.FirstServedChannel, 1)
	if !bytes.Equal(b, unhex("4800 0001 6869")) {
		t.Errorf("%x", b)
	}
}

func TestClassesOfPackets(t *testing.T) {
	t.Parallel()
	stunPacket := golden("probe")
	withFirst := func(first byte) []byte {
		b := slices.Clone(stunPacket)
		b[0] = first
		return b
	}
	noCookie := slices.Clone(stunPacket)
	noCookie[7]++
	for _, c := range []struct {
		name             string
		b                []byte
		peer, fromServer wire.Class
	}{
		{"nothing", nil, wire.ClassOther, wire.ClassOther},
		{"STUN", stunPacket, wire.ClassSTUN, wire.ClassSTUN},
		{"STUN of the highest first byte", withFirst(3), wire.ClassSTUN, wire.ClassSTUN},
		{"first byte 4", withFirst(4), wire.ClassOther, wire.ClassOther},
		{"no cookie", noCookie, wire.ClassOther, wire.ClassOther},
		{"half a header", stunPacket[:19], wire.ClassOther, wire.ClassOther},
		{"ChannelData", golden("channel-data"), wire.ClassOther, wire.ClassChannel},
		{"QUIC's long header", withFirst(0xc3), wire.ClassOther, wire.ClassOther},
		{"QUIC's short header", withFirst(0x4f), wire.ClassOther, wire.ClassChannel},
		{"QUIC's other short header", withFirst(0x50), wire.ClassOther, wire.ClassOther},
		{"three bytes", []byte{0x40, 0, 0}, wire.ClassOther, wire.ClassOther},
	} {
		if got := wire.Classify(c.b, false); got != c.peer {
			t.Errorf("%s from a peer: %d", c.name, got)
		}
		if got := wire.Classify(c.b, true); got != c.fromServer {
			t.Errorf("%s from the server: %d", c.name, got)
		}
	}
}

// pion/stun fills up what is cut short.
func TestMappedAddressMustBeWhole(t *testing.T) {
	t.Parallel()
	build := func(u stun.AttrType, v []byte) *stun.Message {
		m := &stun.Message{Type: stun.BindingSuccess, TransactionID: transaction(1)}
		m.WriteHeader()
		m.Add(u, v)
		out, err := wire.Decode(m.Raw)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	v4, v6 := unhex("0001 bd53 e112a648"), unhex("0002 bd53 2113a9fa a29fb8b6 2a9f8fc4 0101010b")
	if got, err := wire.ParseBindingAnswer(build(stun.AttrXORMappedAddress, v4)); err != nil || got.Mapped != endpointA {
		t.Errorf("%v, %v", got, err)
	}
	for name, v := range map[string][]byte{
		"empty": {}, "no family": {0, 0}, "short": v4[:7], "shorter": v4[:5], "long": append(slices.Clone(v4), 0),
		"IPv6 cut to IPv4": v6[:8], "short IPv6": v6[:19], "another family": append([]byte{0, 3}, v4[2:]...),
	} {
		if got, err := wire.ParseBindingAnswer(build(stun.AttrXORMappedAddress, v)); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, err := wire.ParseBindingAnswer(build(stun.AttrOtherAddress, v4)); err == nil {
		t.Errorf("another attribute: %v", got)
	}
	request := build(stun.AttrXORMappedAddress, v4)
	request.Type = stun.BindingRequest
	if got, err := wire.ParseBindingAnswer(request); err == nil {
		t.Errorf("a request: %v", got)
	}
	// A server of RFC 3489's time has only this one.
	old := unhex("0001 9c41 c000020a")
	if got, err := wire.ParseBindingAnswer(build(stun.AttrMappedAddress, old)); err != nil || got.Mapped != endpointA {
		t.Errorf("MAPPED-ADDRESS: %v, %v", got, err)
	}
}

func TestPolicyTagIsForOnePairOneServerAndOneDay(t *testing.T) {
	t.Parallel()
	s := secret(keyA, idB)
	if s != secret(keyB, idA) {
		t.Fatal("the secrets differ")
	}
	seen := make(map[wire.Tag]string)
	for name, tag := range map[string]wire.Tag{
		"A to B":            wire.PolicyTag(s, idA, idB, idServer, today),
		"B to A":            wire.PolicyTag(s, idB, idA, idServer, today),
		"at another server": wire.PolicyTag(s, idA, idB, idB, today),
		"tomorrow":          wire.PolicyTag(s, idA, idB, idServer, today+1),
		"of the server":     wire.PolicyTag(secret(keyServer, idB), idA, idB, idServer, today),
	} {
		if seen[tag] != "" {
			t.Errorf("%s and %s have one tag", name, seen[tag])
		}
		seen[tag] = name
	}
	day := time.Date(2024, 10, 4, 0, 0, 0, 0, time.UTC)
	if wire.Epoch(day) != today || wire.Epoch(day.Add(-time.Second)) != today-1 || wire.Epoch(day.Add(24*time.Hour-1)) != today {
		t.Errorf("epoch %d", wire.Epoch(day))
	}
}
