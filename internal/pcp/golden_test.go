package pcp

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var (
	nonce  = [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	client = netip.MustParseAddr("192.168.1.2")
	global = netip.MustParseAddr("2001:db8::2")
)

// The RFCs have no test vectors. These bytes are written after their figures.
var golden = []struct {
	name    string
	message Message
	hex     string
}{
	{"ANNOUNCE request (RFC 6887 §7.1, §14.1)", Message{Client: client}, `
		02 00 0000 00000000
		00000000 00000000 0000ffff c0a80102`},
	{"ANNOUNCE response (§7.2)", Message{Response: true, Epoch: 0x01020304}, `
		02 80 00 00 00000000
		01020304 00000000 00000000 00000000`},
	{"MAP request (§11.1)", Message{
		Opcode: Map, Lifetime: 3600, Client: client,
		Mapping: Mapping{Nonce: nonce, Protocol: UDP, Internal: 6000, External: netip.MustParseAddrPort("0.0.0.0:7000")},
	}, `
		02 01 0000 00000e10
		00000000 00000000 0000ffff c0a80102
		01020304 05060708 090a0b0c
		11 000000 1770 1b58
		00000000 00000000 0000ffff 00000000`},
	{"MAP response (§11.1)", Message{
		Response: true, Opcode: Map, Lifetime: 120, Epoch: 7,
		Mapping: Mapping{Nonce: nonce, Protocol: TCP, Internal: 80, External: netip.MustParseAddrPort("203.0.113.1:8080")},
	}, `
		02 81 00 00 00000078
		00000007 00000000 00000000 00000000
		01020304 05060708 090a0b0c
		06 000000 0050 1f90
		00000000 00000000 0000ffff cb007101`},
	{"MAP request of an IPv6 pinhole with PREFER_FAILURE and FILTER (§13.2, §13.3)", Message{
		Opcode: Map, Lifetime: 60, Client: global,
		Mapping: Mapping{Nonce: nonce, Protocol: UDP, Internal: 6000, External: netip.AddrPortFrom(global, 6000)},
		Options: Options{PreferFailure: true, Filters: []Filter{
			{netip.MustParsePrefix("2001:db8:1::/48"), 0},
			{netip.MustParsePrefix("198.51.100.0/24"), 53},
		}},
	}, `
		02 01 0000 0000003c
		20010db8 00000000 00000000 00000002
		01020304 05060708 090a0b0c
		11 000000 1770 1770
		20010db8 00000000 00000000 00000002
		02 00 0000
		03 00 0014 00 30 0000 20010db8 00010000 00000000 00000000
		03 00 0014 00 78 0035 00000000 00000000 0000ffff c6336400`},
	{"MAP request with THIRD_PARTY (§13.1)", Message{
		Opcode: Map, Client: client,
		Mapping: Mapping{Nonce: nonce, Protocol: UDP, Internal: 6000, External: netip.MustParseAddrPort("0.0.0.0:0")},
		Options: Options{ThirdParty: netip.MustParseAddr("192.168.1.3")},
	}, `
		02 01 0000 00000000
		00000000 00000000 0000ffff c0a80102
		01020304 05060708 090a0b0c
		11 000000 1770 0000
		00000000 00000000 0000ffff 00000000
		01 00 0010 00000000 00000000 0000ffff c0a80103`},
	{"PEER request (§12.1)", Message{
		Opcode: Peer, Lifetime: 600, Client: client,
		Mapping: Mapping{
			Nonce: nonce, Protocol: UDP, Internal: 6000, External: netip.MustParseAddrPort("0.0.0.0:0"),
			Remote: netip.MustParseAddrPort("198.51.100.9:443"),
		},
	}, `
		02 02 0000 00000258
		00000000 00000000 0000ffff c0a80102
		01020304 05060708 090a0b0c
		11 000000 1770 0000
		00000000 00000000 0000ffff 00000000
		01bb 0000 00000000 00000000 0000ffff c6336409`},
	{"PEER response (§12.2)", Message{
		Response: true, Opcode: Peer, Lifetime: 600, Epoch: 99,
		Mapping: Mapping{
			Nonce: nonce, Protocol: UDP, Internal: 6000, External: netip.MustParseAddrPort("203.0.113.1:6001"),
			Remote: netip.MustParseAddrPort("198.51.100.9:443"),
		},
	}, `
		02 82 00 00 00000258
		00000063 00000000 00000000 00000000
		01020304 05060708 090a0b0c
		11 000000 1770 1771
		00000000 00000000 0000ffff cb007101
		01bb 0000 00000000 00000000 0000ffff c6336409`},
	{"MAP refused, without a body (§7.2)", Message{
		Response: true, Opcode: Map, Result: NotAuthorized, Lifetime: 1800, Epoch: 1,
	}, `
		02 81 00 02 00000708
		00000001 00000000 00000000 00000000`},
}

var goldenPMP = []struct {
	name    string
	message PMPMessage
	hex     string
}{
	{"external address request (RFC 6886 §3.2)", PMPMessage{}, `00 00`},
	{"external address response (§3.2)", PMPMessage{Response: true, Epoch: 5, External: netip.MustParseAddr("203.0.113.1")}, `
		00 80 0000 00000005 cb007101`},
	{"map UDP (§3.3)", PMPMessage{Opcode: PMPMapUDP, Internal: 6000, ExternalPort: 7000, Lifetime: 7200}, `
		00 01 0000 1770 1b58 00001c20`},
	{"map TCP (§3.3)", PMPMessage{Opcode: PMPMapTCP, Internal: 80, ExternalPort: 8080, Lifetime: 60}, `
		00 02 0000 0050 1f90 0000003c`},
	{"mapped UDP (§3.3)", PMPMessage{Response: true, Opcode: PMPMapUDP, Epoch: 9, Internal: 6000, ExternalPort: 7001, Lifetime: 120}, `
		00 81 0000 00000009 1770 1b59 00000078`},
	{"delete (§3.4)", PMPMessage{Opcode: PMPMapUDP, Internal: 6000}, `
		00 01 0000 1770 0000 00000000`},
	{"refused (§3.5)", PMPMessage{Response: true, Opcode: PMPMapTCP, Result: PMPRefused, Epoch: 9, Internal: 80}, `
		00 82 0002 00000009 0050 0000 00000000`},
}

func TestMessagesAreTheRFCsBytes(t *testing.T) {
	t.Parallel()
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			want := unhex(t, g.hex)
			if got := g.message.Append(nil); g.message.Result == Success && string(got) != string(want) {
				t.Errorf("encoded\n%x, want\n%x", got, want)
			}
			got, err := Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, g.message) {
				t.Errorf("decoded\n%+v, want\n%+v", got, g.message)
			}
		})
	}
}

// same compares messages; no address and that of all zeros are the same.
func same(a, b Message) bool {
	return reflect.DeepEqual(a, b) || string(a.Append(nil)) == string(b.Append(nil))
}

func TestNATPMPMessagesAreTheRFCsBytes(t *testing.T) {
	t.Parallel()
	for _, g := range goldenPMP {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			want := unhex(t, g.hex)
			if got := g.message.Append(nil); string(got) != string(want) {
				t.Errorf("encoded\n%x, want\n%x", got, want)
			}
			got, err := ParsePMP(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != g.message {
				t.Errorf("decoded\n%+v, want\n%+v", got, g.message)
			}
		})
	}
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	t.Parallel()
	const header = "02 81 00 00 00000078 00000007 000000000000000000000000"
	const mapping = "0102030405060708090a0b0c 11 000000 1770 1770 00000000000000000000ffffcb007101"
	for name, h := range map[string]string{
		"empty":                  "",
		"short header":           "02 81 00 00",
		"another version":        "00 81 00 01 00000000 0000 0000 00000000",
		"no body":                header,
		"half a word":            header + mapping + "02 00",
		"option without end":     header + mapping + "7f 00 0008 00000000",
		"filter too short":       header + mapping + "03 00 0004 00000000",
		"filter of 200 bits":     header + mapping + "03 00 0014 00 c8 0000 20010db8000000000000000000000000",
		"IPv4 filter of 20 bits": header + mapping + "03 00 0014 00 14 0000 00000000000000000000ffffc6336400",
		"two third parties":      header + mapping + strings.Repeat("01 00 0010 00000000000000000000ffffc0a80103", 2),
		"too long":               header + mapping + strings.Repeat("ff 00 0000", 300),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if m, err := Parse(unhex(t, h)); err == nil {
				t.Errorf("decoded %+v", m)
			}
		})
	}
	for name, h := range map[string]string{
		"empty":           "",
		"another version": "02 80 0000 00000005 cb007101",
		"short address":   "00 80 0000 00000005 cb",
		"short mapping":   "00 81 0000 00000009 1770 1b59",
		"short request":   "00 01 0000 1770",
	} {
		t.Run("NAT-PMP "+name, func(t *testing.T) {
			t.Parallel()
			if m, err := ParsePMP(unhex(t, h)); err == nil {
				t.Errorf("decoded %+v", m)
			}
		})
	}
}

func TestUnknownOptionsAreNoted(t *testing.T) {
	t.Parallel()
	m, err := Parse(unhex(t, "02 80 00 00 00000000 00000007 000000000000000000000000 7f 00 0003 01020300 02 00 0000"))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Options.Unknown) != 1 || m.Options.Unknown[0] != 0x7f || !m.Options.PreferFailure {
		t.Errorf("options %+v", m.Options)
	}
}

func TestResultsHaveTheirNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		ExcessiveRemotePeers.String(): "EXCESSIVE_REMOTE_PEERS", Result(200).String(): "RESULT_200",
		PMPOutOfResources.String(): "Out of resources", PMPResult(77).String(): "Result 77",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What decodes must encode to what decodes to the same.
func FuzzParse(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		if m.Opcode > Peer || len(m.Options.Unknown) > 0 || m.Response && m.Result != Success {
			return
		}
		again, err := Parse(m.Append(nil))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func FuzzParsePMP(f *testing.F) {
	for _, g := range goldenPMP {
		f.Add(unhex(f, g.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParsePMP(b)
		if err != nil || m.Opcode > PMPMapTCP || m.Response && m.Result != PMPSuccess {
			return
		}
		again, err := ParsePMP(m.Append(nil))
		if err != nil || again != m {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}
