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

// Somebody else's STUN clients find their endpoint by the real server.

func TestPionClient(t *testing.T) {
	t.Parallel()
	s := serveLoopback(t, Limits{})
	c, err := stun.Dial("udp4", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, setters := range [][]stun.Setter{
		{stun.TransactionID, stun.BindingRequest},
		{stun.TransactionID, stun.BindingRequest, stun.NewSoftware("pion"), stun.Fingerprint},
		{stun.TransactionID, stun.BindingRequest, stun.NewUsername("me"), stun.NewShortTermIntegrity("secret"), stun.Fingerprint},
	} {
		m := stun.MustBuild(setters...)
		err := c.Do(m, func(e stun.Event) {
			if e.Error != nil {
				t.Error(e.Error)
				return
			}
			var x stun.XORMappedAddress
			if err := x.GetFrom(e.Message); err != nil || !x.IP.IsLoopback() || x.Port == 0 {
				t.Errorf("mapped at %v, %v", x, err)
			}
			if m.Contains(stun.AttrFingerprint) != (stun.Fingerprint.Check(e.Message) == nil) {
				t.Error("the FINGERPRINT is missing, or wrong, or was not wanted")
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// bind is what the server answers to a Binding request, or nil.
func bind(t *testing.T, m *stun.Message) *stun.Message {
	t.Helper()
	r := NewRegistry(serverKey, Limits{}, nil)
	out, _ := r.Step(time.Now(), 0, ap("192.0.2.7:7"), slices.Clone(m.Raw), nil)
	switch len(out) {
	case 0:
		return nil
	case 1:
	default:
		t.Fatalf("%d answers", len(out))
	}
	answer, err := wire.Decode(out[0].Data)
	if err != nil || answer.TransactionID != m.TransactionID {
		t.Fatalf("answered with %x, %v", out[0].Data, err)
	}
	return answer
}

// "If the request contains one or more unknown comprehension-required attributes,
// the server replies with an error response with an error code of 420, and includes
// an UNKNOWN-ATTRIBUTES attribute in the response that lists" them (RFC 8489 §6.3.1).
func TestUnknownAttributes(t *testing.T) {
	t.Parallel()
	strange := stun.RawAttribute{Type: 0x7FFF, Value: make([]byte, 12)} // nobody's
	other := stun.RawAttribute{Type: 0x7FFE, Value: nil}
	optional := stun.RawAttribute{Type: 0x8000, Value: make([]byte, 4)} // comprehension-optional
	m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, other, strange, other, optional)
	answer := bind(t, m)
	want := wire.BindingAnswer{ID: m.TransactionID, Code: 420, Unknown: []stun.AttrType{other.Type, strange.Type}}
	if got, err := wire.ParseBindingAnswer(answer); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	withPrint := stun.MustBuild(stun.TransactionID, stun.BindingRequest, other, strange, stun.Fingerprint)
	if answer := bind(t, withPrint); answer == nil || stun.Fingerprint.Check(answer) != nil {
		t.Errorf("with a FINGERPRINT: %v", answer)
	}
	if answer := bind(t, stun.MustBuild(stun.TransactionID, stun.BindingRequest, optional)); answer == nil || answer.Type != stun.BindingSuccess {
		t.Errorf("an optional attribute: %v", answer)
	}
	// Alone and as short as can be: here the answer grows most.
	m = stun.MustBuild(stun.TransactionID, stun.BindingRequest, other)
	want.ID, want.Unknown = m.TransactionID, want.Unknown[:1]
	answer = bind(t, m)
	if got, err := wire.ParseBindingAnswer(answer); err != nil || !reflect.DeepEqual(got, want) || len(answer.Raw) > len(m.Raw)+12 {
		t.Errorf("%+v, %v in %d bytes for %d", got, err, len(answer.Raw), len(m.Raw))
	}
}

// "the receiver … determines whether the FINGERPRINT … is correct", and takes the
// packet for another protocol's if it is not (RFC 8489 §6.3, §7).
func TestWrongFingerprint(t *testing.T) {
	t.Parallel()
	m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.Fingerprint)
	m.Raw[len(m.Raw)-1] ^= 1
	if answer := bind(t, m); answer != nil {
		t.Errorf("%v", answer)
	}
}

// An indication is never answered (RFC 8489 §6.3.2), an answer neither.
func TestOnlyRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	for _, class := range []stun.MessageClass{stun.ClassIndication, stun.ClassSuccessResponse, stun.ClassErrorResponse} {
		for _, method := range []stun.Method{
			stun.MethodBinding, wire.Register, wire.Refresh, wire.Introduce, wire.Introduced, wire.CloseChannel, wire.ChannelError, wire.Notice,
		} {
			m := stun.MustBuild(stun.TransactionID, stun.NewType(method, class), stun.RawAttribute{Type: wire.AttrHandle, Value: make([]byte, 8)},
				stun.RawAttribute{Type: wire.AttrSequence, Value: make([]byte, 8)}, stun.RawAttribute{Type: wire.AttrSealed, Value: make([]byte, 40)})
			if answer := bind(t, m); answer != nil {
				t.Errorf("%v is answered with %v", m.Type, answer)
			}
		}
	}
}

func TestBindingOverIPv6(t *testing.T) {
	t.Parallel()
	r := NewRegistry(serverKey, Limits{}, nil)
	for _, from := range []string{"[2001:db8::7]:7", "[::ffff:192.0.2.7]:7"} {
		out, _ := r.Step(time.Now(), 0, ap(from), wire.BindingRequest{ID: wire.TransactionID{1}}.Append(nil), nil)
		m, err := wire.Decode(out[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		want := ap(from)
		if got, err := wire.ParseBindingAnswer(m); err != nil || got.Mapped != netip.AddrPortFrom(want.Addr().Unmap(), want.Port()) {
			t.Errorf("%v is mapped at %v, %v", from, got, err)
		}
	}
}
