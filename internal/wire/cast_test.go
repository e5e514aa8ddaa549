package wire_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"bodkin/internal/wire"
	"bodkin/peer"
	"bodkin/punch"

	"github.com/pion/stun/v3"
)

// The cast of all tests here, and of docs/protocol.md: node A asks the server for
// node B, which lets A in.
var (
	keyA      = peer.NewKey([32]byte(bytes.Repeat([]byte{1}, 32)))
	keyB      = peer.NewKey([32]byte(bytes.Repeat([]byte{2}, 32)))
	keyServer = peer.NewKey([32]byte(bytes.Repeat([]byte{3}, 32)))

	idA, idB, idServer = keyA.ID(), keyB.ID(), keyServer.ID()

	handleA = wire.Handle(bytes.Repeat([]byte{0xa1}, 8))
	handleB = wire.Handle(bytes.Repeat([]byte{0xb1}, 8))

	endpointA  = netip.MustParseAddrPort("192.0.2.10:40001")
	endpointA6 = netip.MustParseAddrPort("[2001:db8::a]:40006")
	endpointB  = netip.MustParseAddrPort("198.51.100.20:50002")

	serverOther = netip.MustParseAddrPort("203.0.113.2:3479")

	sessionNonce = [32]byte(bytes.Repeat([]byte{0x5e}, 32))
)

const (
	instanceA = 0x1122334455667701
	instanceB = 0x8899aabbccddee01
	today     = 20000 // 4 October 2024
	// nonceText is opaque to nodes; this server's are of this length.
	nonceText = "AAUWFa0b1c2d3e4f5g6h7i8j9k0"
)

// description is what B says of itself: UDP, 41 ms to the server, a NAT profile, a host candidate and one
// that its router mapped. punch.Side.AppendDescription encodes it.
var description = unhex("01 0029 12 0102040102 01 0000 0000 0000 0000 0000 0000 00" +
	"01 04 04 c352 c0a80114" +
	"04 04 04 c35c c6336414")

func unhex(text string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		panic(err)
	}
	return b
}

var handoverToken = wire.Token(bytes.Repeat([]byte{0xd1}, wire.TokenSize))

func againHandover(b []byte) ([]byte, error) {
	t, answer, ok := wire.ParseHandover(b)
	if !ok {
		return nil, wire.ErrMalformed
	}
	return wire.AppendHandover(nil, t, answer), nil
}

// transaction is the n-th transaction ID: n, twelve times.
func transaction(n byte) wire.TransactionID {
	return wire.TransactionID(bytes.Repeat([]byte{n}, 12))
}

func secret(k peer.Key, other peer.ID) peer.Secret {
	s, err := k.Shared(other)
	if err != nil {
		panic(err)
	}
	return s
}

// linkB are the keys that B's Register led to; linkA are A's, of a Register that
// is not shown and whose BOX began with 32 bytes of 0xe1.
func linkB() wire.LinkKeys {
	return wire.NewLinkKeys(secret(keyB, idServer), [32]byte(golden("register-box")), handleB, idB, idServer, instanceB)
}

func linkA() wire.LinkKeys {
	enc := [32]byte(bytes.Repeat([]byte{0xe1}, 32))
	return wire.NewLinkKeys(secret(keyA, idServer), enc, handleA, idA, idServer, instanceA)
}

func probeKeysA() wire.ProbeKeys {
	return wire.NewProbeKeys(secret(keyA, idB), sessionNonce, idA, idB)
}

func probeKeysB() wire.ProbeKeys {
	return wire.NewProbeKeys(secret(keyB, idA), sessionNonce, idB, idA)
}

func tagFor(day uint32) wire.Tag {
	return wire.PolicyTag(secret(keyA, idB), idA, idB, idServer, day)
}

// message is one of the messages, or a content that travels sealed in one.
type message struct {
	name  string
	build func() []byte
	// again decodes it and encodes what came out.
	again func([]byte) ([]byte, error)
	// trusted reports whether the one that it is for believes it; nil where
	// nothing is authenticated.
	trusted func([]byte) bool
	content bool // not a packet by itself
}

func registrationB() wire.Registration {
	return wire.Registration{
		Instance: instanceB, Counter: 1, Flags: wire.FlagAccepting,
		Description: description, Tags: []wire.Tag{tagFor(today)},
	}
}

func registeredB() wire.Registered {
	return wire.Registered{Observed: []netip.AddrPort{endpointB}, Lifetime: time.Minute, Revision: 2}
}

func offerA() wire.Offer {
	return wire.Offer{
		Instance: instanceA, Counter: 1, Nonce: sessionNonce,
		Description: unhex("12 0102040002 01 0000 0000 0000 0000 0000 0000 01 04 04 9c41 0a00000a"),
	}
}

func askA() wire.Ask {
	return wire.Ask{
		Target: idB, Tags: []wire.Tag{tagFor(today), tagFor(today - 1), tagFor(today + 1)},
		Channel: wire.FirstAskedChannel, Offer: golden("offer-box"),
	}
}

// partyB is B as A is told of it, partyA is A as B is.
func partyB() wire.Party {
	return wire.Party{
		ID: idB, Instance: instanceB, Observed: []netip.AddrPort{endpointB},
		Description: description, Channel: wire.FirstAskedChannel, Revision: 2,
	}
}

func partyA() wire.Party {
	return wire.Party{
		ID: idA, Instance: instanceA, Observed: []netip.AddrPort{endpointA, endpointA6},
		Offer: golden("offer-box"), Channel: wire.FirstServedChannel, Revision: 2,
	}
}

// plateB is B's nameplate.
const plateB = 42

func invitationB(p wire.Plate) wire.Invitation {
	return wire.Invitation{Plate: p, Lifetime: 10 * time.Minute}
}

// letterA is the first letter of A, which was told the code; letterFromA is the same
// as B gets it.
func letterA() wire.Letter {
	return wire.Letter{Plate: plateB, Body: append([]byte{1}, bytes.Repeat([]byte{0xd6}, 32)...)}
}

func letterFromA() wire.Letter {
	l := letterA()
	l.From = idA
	return l
}

func channelContent(c wire.Channel) wire.Attrs {
	var content wire.Attrs
	content.AddChannel(c)
	return content
}

func flagsContent(flags uint32) wire.Attrs {
	var content wire.Attrs
	content.AddUint32(wire.AttrFlags, flags)
	return content
}

// messages are all there are, in the order of docs/protocol.md.
func messages() []message {
	request := func(method stun.Method) stun.MessageType { return stun.NewType(method, stun.ClassRequest) }
	success := func(method stun.Method) stun.MessageType { return stun.NewType(method, stun.ClassSuccessResponse) }
	failure := func(method stun.Method) stun.MessageType { return stun.NewType(method, stun.ClassErrorResponse) }
	indication := func(method stun.Method) stun.MessageType { return stun.NewType(method, stun.ClassIndication) }
	toServerA := func() [32]byte { return linkA().ToServer }
	toServerB := func() [32]byte { return linkB().ToServer }
	toA := func() [32]byte { return linkA().ToNode }
	toB := func() [32]byte { return linkB().ToNode }

	move := registrationB()
	move.Flags, move.Tags = wire.FlagAccepting|wire.FlagOpen, nil
	gone := move
	gone.Gone = true
	return []message{
		bindingRequest("binding", wire.BindingRequest{ID: transaction(1)}),
		bindingAnswer("binding-answer", wire.BindingAnswer{ID: transaction(1), Mapped: endpointA}),
		bindingAnswer("binding-answer-ipv6", wire.BindingAnswer{ID: transaction(1), Mapped: endpointA6}),
		bindingAnswer("binding-answer-fingerprint", wire.BindingAnswer{ID: transaction(1), Mapped: endpointA, Fingerprint: true}),
		bindingRequest("binding-other-ports", wire.BindingRequest{ID: transaction(1), OtherPorts: true}),
		bindingAnswer("binding-other-ports-answer", wire.BindingAnswer{ID: transaction(1), Mapped: endpointA, OtherPorts: []uint16{3479}}),
		bindingRequest("binding-change", wire.BindingRequest{ID: transaction(1), ChangeIP: true, ChangePort: true}),
		bindingAnswer("binding-change-answer", wire.BindingAnswer{
			ID: transaction(1), Mapped: endpointA, Plain: true, Origin: serverOther, Other: serverOther,
		}),
		bindingRequest("binding-response-port", wire.BindingRequest{ID: transaction(1), ResponsePort: 40002}),
		bindingRequest("binding-padding", wire.BindingRequest{ID: transaction(1), Padding: 8}),
		bindingAnswer("binding-padding-answer", wire.BindingAnswer{ID: transaction(1), Mapped: endpointA, Padding: 8}),
		bindingAnswer("binding-error", wire.BindingAnswer{
			ID: transaction(1), Code: int(stun.CodeUnknownAttribute), Unknown: []stun.AttrType{stun.AttrChangeRequest, 0x0024},
		}),

		{name: "register-hello", again: againRegister, build: func() []byte {
			return wire.AppendRegister(nil, transaction(2), nil, nil)
		}},
		{
			name: "description", content: true,
			build: func() []byte { return description },
			again: func(b []byte) ([]byte, error) {
				side, err := punch.ParseDescription(b)
				return side.AppendDescription(nil), err
			},
		},
		errorMessage("register-challenge", request(wire.Register), transaction(2), int(stun.CodeUnauthorized), nonceText),
		{
			name: "registration", content: true,
			build: func() []byte { return registrationB().Append(nil) },
			again: func(b []byte) ([]byte, error) {
				r, err := wire.ParseRegistration(b)
				return r.Append(nil), err
			},
		},
		box("register-box", keyB, keyServer, "register", func() []byte {
			id := transaction(3)
			return append(id[:], nonceText...)
		}, registrationB().Append(nil)),
		{
			name: "register", again: againRegister,
			build: func() []byte {
				return wire.AppendRegister(nil, transaction(3), []byte(nonceText), golden("register-box"))
			},
			trusted: func(b []byte) bool {
				m, err := wire.Decode(b)
				if err != nil || m.Type != request(wire.Register) {
					return false
				}
				o, err := wire.OpenRegister(m, keyServer)
				return err == nil && o.From == idB
			},
		},
		{
			name: "registered", content: true,
			build: func() []byte { return registeredB().Append(nil) },
			again: func(b []byte) ([]byte, error) {
				r, err := wire.ParseRegistered(b)
				return r.Append(nil), err
			},
		},
		sealed("register-answer", toB, wire.Envelope{Type: success(wire.Register), ID: transaction(3), Handle: handleB, Sequence: 1}, registeredB().Append(nil)),
		errorMessage("register-full", request(wire.Register), transaction(3), wire.CodeTooMany, ""),

		sealed("refresh", toServerB, wire.Envelope{Type: request(wire.Refresh), ID: transaction(4), Handle: handleB, Sequence: 1}, nil),
		sealed("refresh-answer", toB, wire.Envelope{Type: success(wire.Refresh), ID: transaction(4), Handle: handleB, Sequence: 2}, registeredB().Append(nil)),
		errorMessage("refresh-stale", request(wire.Refresh), transaction(4), int(stun.CodeStaleNonce), nonceText),
		sealed("refresh-move", toServerB, wire.Envelope{
			Type: request(wire.Refresh), ID: transaction(5), Handle: handleB, Sequence: 2, Nonce: []byte(nonceText),
		}, move.Append(nil)),
		sealed("refresh-goodbye", toServerB, wire.Envelope{Type: request(wire.Refresh), ID: transaction(6), Handle: handleB, Sequence: 3}, gone.Append(nil)),
		errorMessage("unknown-registration", request(wire.Refresh), transaction(4), wire.CodeUnknownRegistration, ""),

		{
			name: "offer", content: true,
			build: func() []byte { return offerA().Append(nil) },
			again: func(b []byte) ([]byte, error) {
				o, err := wire.ParseOffer(b)
				return o.Append(nil), err
			},
		},
		box("offer-box", keyA, keyB, wire.OfferPurpose, func() []byte { return idServer[:] }, offerA().Append(nil)),
		{
			name: "ask", content: true,
			build: func() []byte { return askA().Append(nil) },
			again: func(b []byte) ([]byte, error) {
				q, err := wire.ParseAsk(b)
				return q.Append(nil), err
			},
		},
		sealed("introduce", toServerA, wire.Envelope{Type: request(wire.Introduce), ID: transaction(7), Handle: handleA, Sequence: 1}, askA().Append(nil)),
		party("party-target", partyB),
		sealed("introduce-answer", toA, wire.Envelope{Type: success(wire.Introduce), ID: transaction(7), Handle: handleA, Sequence: 2}, partyB().Append(nil)),
		sealed("introduce-refused", toA, wire.Envelope{Type: failure(wire.Introduce), ID: transaction(7), Handle: handleA, Sequence: 2, Code: wire.CodeNotReachable}, nil),
		sealed("introduce-limited", toA, wire.Envelope{Type: failure(wire.Introduce), ID: transaction(7), Handle: handleA, Sequence: 2, Code: wire.CodeTooMany}, nil),
		party("party-asker", partyA),
		sealed("introduced", toB, wire.Envelope{Type: request(wire.Introduced), ID: transaction(8), Handle: handleB, Sequence: 3}, partyA().Append(nil)),
		sealed("introduced-answer", toServerB, wire.Envelope{Type: success(wire.Introduced), ID: transaction(8), Handle: handleB, Sequence: 4}, nil),

		{name: "probe", again: againProbe, trusted: trustsProbe(probeKeysB()), build: func() []byte {
			k := probeKeysA()
			return k.AppendProbe(nil, transaction(9), 1)
		}},
		{name: "probe-wide", again: againProbe, trusted: trustsProbe(probeKeysB()), build: func() []byte {
			k := probeKeysA()
			return k.AppendWideProbe(nil, transaction(9), 2, 96)
		}},
		{name: "probe-relayed", again: againProbe, trusted: trustsProbe(probeKeysB()), build: func() []byte {
			k := probeKeysA()
			return k.AppendRelayedProbe(nil, transaction(9), 3, 1)
		}},
		{name: "probe-answer", again: againProbe, trusted: trustsProbe(probeKeysA()), build: func() []byte {
			k := probeKeysB()
			return k.AppendAnswer(nil, transaction(9), endpointA)
		}},
		{name: "probe-answer-ipv6", again: againProbe, trusted: trustsProbe(probeKeysA()), build: func() []byte {
			k := probeKeysB()
			return k.AppendAnswer(nil, transaction(9), endpointA6)
		}},
		{name: "probe-answer-counting", again: againProbe, trusted: trustsProbe(probeKeysA()), build: func() []byte {
			k := probeKeysB()
			return k.AppendCountingAnswer(nil, transaction(9), endpointA, 1_000_000)
		}},

		{name: "handover", again: againHandover, build: func() []byte { return wire.AppendHandover(nil, handoverToken, false) }},
		{name: "handover-answer", again: againHandover, build: func() []byte { return wire.AppendHandover(nil, handoverToken, true) }},

		channelData("channel-data", wire.FirstAskedChannel, "hello"),
		channelData("channel-data-relayed", wire.FirstServedChannel, "hello"),
		sealed("channel-error", toA, wire.Envelope{Type: indication(wire.ChannelError), ID: transaction(10), Handle: handleA, Sequence: 3}, channelContent(wire.FirstAskedChannel)),
		{
			name:  "channel-stranger",
			build: func() []byte { return wire.AppendStranger(nil, transaction(14)) },
			again: func(b []byte) ([]byte, error) {
				m, err := wire.Decode(b)
				if err != nil || m.Type != indication(wire.ChannelError) || len(m.Attributes) != 0 {
					return nil, wire.ErrMalformed
				}
				return wire.AppendStranger(nil, m.TransactionID), nil
			},
		},
		sealed("close-channel", toServerA, wire.Envelope{Type: request(wire.CloseChannel), ID: transaction(11), Handle: handleA, Sequence: 2}, channelContent(wire.FirstAskedChannel)),
		sealed("close-channel-answer", toA, wire.Envelope{Type: success(wire.CloseChannel), ID: transaction(11), Handle: handleA, Sequence: 4}, nil),
		sealed("channel-closed", toB, wire.Envelope{Type: indication(wire.CloseChannel), ID: transaction(12), Handle: handleB, Sequence: 4}, channelContent(wire.FirstServedChannel)),
		sealed("notice", toB, wire.Envelope{Type: indication(wire.Notice), ID: transaction(13), Handle: handleB, Sequence: 5}, flagsContent(wire.FlagDisplaced)),

		{
			name: "invitation", content: true,
			build: func() []byte { return invitationB(0).Append(nil) },
			again: func(b []byte) ([]byte, error) {
				i, err := wire.ParseInvitation(b)
				return i.Append(nil), err
			},
		},
		sealed("invite", toServerB, wire.Envelope{Type: request(wire.Invite), ID: transaction(15), Handle: handleB, Sequence: 5}, invitationB(0).Append(nil)),
		sealed("invite-answer", toB, wire.Envelope{Type: success(wire.Invite), ID: transaction(15), Handle: handleB, Sequence: 6}, invitationB(plateB).Append(nil)),
		sealed("invite-refused", toB, wire.Envelope{Type: failure(wire.Invite), ID: transaction(15), Handle: handleB, Sequence: 6, Code: wire.CodeTooMany}, nil),
		{
			name: "letter", content: true,
			build: func() []byte { return letterA().Append(nil) },
			again: func(b []byte) ([]byte, error) {
				l, err := wire.ParseLetter(b)
				return l.Append(nil), err
			},
		},
		sealed("pair", toServerA, wire.Envelope{Type: request(wire.Pair), ID: transaction(16), Handle: handleA, Sequence: 3}, letterA().Append(nil)),
		sealed("pair-answer", toA, wire.Envelope{Type: success(wire.Pair), ID: transaction(16), Handle: handleA, Sequence: 5}, nil),
		sealed("pair-refused", toA, wire.Envelope{Type: failure(wire.Pair), ID: transaction(16), Handle: handleA, Sequence: 5, Code: wire.CodeUsed}, nil),
		{
			name: "letter-delivered", content: true,
			build: func() []byte { return letterFromA().Append(nil) },
			again: func(b []byte) ([]byte, error) {
				l, err := wire.ParseLetter(b)
				return l.Append(nil), err
			},
		},
		sealed("pair-delivered", toB, wire.Envelope{Type: request(wire.Pair), ID: transaction(17), Handle: handleB, Sequence: 7}, letterFromA().Append(nil)),
		sealed("pair-delivered-answer", toServerB, wire.Envelope{Type: success(wire.Pair), ID: transaction(17), Handle: handleB, Sequence: 6}, nil),
	}
}
