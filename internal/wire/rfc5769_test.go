package wire_test

import (
	"net/netip"
	"testing"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

// rfc5769 are the sample messages of RFC 5769, sections 2.1 to 2.4.
var rfc5769 = map[string]string{
	"request": `00010058 2112a442 b7e7a701 bc34d686 fa87dfae
		80220010 5354554e 20746573 7420636c 69656e74
		00240004 6e0001ff
		80290008 932ff9b1 51263b36
		00060009 6576746a 3a683676 59202020
		00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2
		80280004 e57a3bcf`,
	"IPv4 response": `0101003c 2112a442 b7e7a701 bc34d686 fa87dfae
		8022000b 74657374 20766563 746f7220
		00200008 0001a147 e112a643
		00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7
		80280004 c07d4c96`,
	"IPv6 response": `01010048 2112a442 b7e7a701 bc34d686 fa87dfae
		8022000b 74657374 20766563 746f7220
		00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
		00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
		80280004 c8fb0b4c`,
	"request with long-term authentication": `00010060 2112a442 78ad3433 c6ad72c0 29da412e
		00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000
		0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341
		0014000b 6578616d 706c652e 6f726700
		00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666`,
}

// RFC 5769: the fields, and the integrity of what we decode is still what its
// sender computed.
func TestRFC5769Vectors(t *testing.T) {
	t.Parallel()
	decode := func(name string) *stun.Message {
		m, err := wire.Decode(unhex(rfc5769[name]))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return m
	}
	short := stun.NewShortTermIntegrity("VOkJxbRl1RmTxUk/WvJxBt")
	long := stun.NewLongTermIntegrity("\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "example.org", "TheMatrIX")

	m := decode("request")
	r, err := wire.ParseBindingRequest(m)
	want := wire.BindingRequest{ID: m.TransactionID, Fingerprint: true}
	if err != nil || r != want || stun.Fingerprint.Check(m) != nil || short.Check(m) != nil {
		t.Errorf("request: %+v, %v", r, err)
	}
	for name, mapped := range map[string]string{
		"IPv4 response": "192.0.2.1:32853", "IPv6 response": "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
	} {
		m := decode(name)
		a, err := wire.ParseBindingAnswer(m)
		if err != nil || a.Mapped != netip.MustParseAddrPort(mapped) || stun.Fingerprint.Check(m) != nil || short.Check(m) != nil {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		// The address itself we encode the same.
		again, err := wire.Decode(wire.BindingAnswer{ID: a.ID, Mapped: a.Mapped}.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := again.Get(stun.AttrXORMappedAddress)
		theirs, _ := m.Get(stun.AttrXORMappedAddress)
		if string(got) != string(theirs) {
			t.Errorf("%s: XOR-MAPPED-ADDRESS %x, want %x", name, got, theirs)
		}
	}
	m = decode("request with long-term authentication")
	r, err = wire.ParseBindingRequest(m)
	if err != nil || r != (wire.BindingRequest{ID: m.TransactionID}) || long.Check(m) != nil {
		t.Errorf("long-term: %+v, %v, %v", r, err, long.Check(m))
	}
}
