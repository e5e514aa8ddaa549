package wire_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"bodkin/internal/wire"

	"github.com/pion/stun/v3"
)

const protocolFile = "../../docs/protocol.md"

// blocks are the blocks of hex in docs/protocol.md by name: in each line, what is
// before two spaces.
func blocks(t *testing.T) (names []string, hex map[string][]byte) {
	t.Helper()
	text, err := os.ReadFile(protocolFile)
	if err != nil {
		t.Fatal(err)
	}
	hex = make(map[string][]byte)
	for _, m := range regexp.MustCompile("(?ms)^```hex (\\S+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		var all strings.Builder
		for line := range strings.SplitSeq(m[2], "\n") {
			line, _, _ = strings.Cut(line, "  ")
			all.WriteString(line)
		}
		if _, twice := hex[m[1]]; twice {
			t.Errorf("%s has two blocks", m[1])
		}
		names, hex[m[1]] = append(names, m[1]), unhex(all.String())
	}
	return names, hex
}

func TestProtocolDocumentHasEveryMessage(t *testing.T) {
	t.Parallel()
	names, hex := blocks(t)
	for _, name := range names {
		// Those of internal/session are tested there.
		if golden(name) == nil && !strings.HasPrefix(name, "session-") {
			t.Errorf("%s: no message has the name of the block %q", protocolFile, name)
		}
	}
	for _, m := range messages() {
		if got := hex[m.name]; !bytes.Equal(got, golden(m.name)) {
			t.Errorf("%s: block %q is\n%s, want\n%s", protocolFile, m.name, lines(got), lines(golden(m.name)))
		}
	}
}

func TestProtocolDocumentHasEveryNumber(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(protocolFile)
	if err != nil {
		t.Fatal(err)
	}
	row := func(format string, number any, name string) {
		want := fmt.Sprintf("\n| `"+format+"` | %s |", number, name)
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no row %q", protocolFile, strings.TrimSpace(want))
		}
	}
	for name, m := range map[string]stun.Method{
		"Binding": stun.MethodBinding, "Register": wire.Register, "Refresh": wire.Refresh, "Introduce": wire.Introduce,
		"Introduced": wire.Introduced, "CloseChannel": wire.CloseChannel, "Notice": wire.Notice, "ChannelError": wire.ChannelError,
		"Handover": wire.Handover, "Invite": wire.Invite, "Pair": wire.Pair,
	} {
		row("0x%03X", uint16(m), name)
	}
	for name, a := range map[string]stun.AttrType{
		"ERROR-CODE": stun.AttrErrorCode, "UNKNOWN-ATTRIBUTES": stun.AttrUnknownAttributes, "NONCE": stun.AttrNonce,
		"MESSAGE-INTEGRITY-SHA256": wire.AttrIntegrity, "XOR-MAPPED-ADDRESS": stun.AttrXORMappedAddress, "FINGERPRINT": stun.AttrFingerprint,
		"PADDING": wire.AttrPadding, "CHANGE-REQUEST": stun.AttrChangeRequest, "RESPONSE-PORT": stun.AttrResponsePort,
		"RESPONSE-ORIGIN": stun.AttrResponseOrigin, "OTHER-ADDRESS": stun.AttrOtherAddress, "MAPPED-ADDRESS": stun.AttrMappedAddress,
		"OTHER-PORTS": wire.AttrOtherPorts, "HANDLE": wire.AttrHandle, "SEQUENCE": wire.AttrSequence, "SEALED": wire.AttrSealed,
		"BOX": wire.AttrBox, "SESSION": wire.AttrSession, "MOVES": wire.AttrMoves, "LIFETIME": stun.AttrLifetime, "PEER-ID": wire.AttrPeerID,
		"INSTANCE": wire.AttrInstance, "COUNTER": wire.AttrCounter, "OBSERVED": wire.AttrObserved,
		"DESCRIPTION": wire.AttrDescription, "FLAGS": wire.AttrFlags, "TAGS": wire.AttrTags, "CHANNEL": wire.AttrChannel,
		"OFFER": wire.AttrOffer, "SESSION-NONCE": wire.AttrSessionNonce, "REVISION": wire.AttrRevision,
		"OBSERVED-TCP": wire.AttrObservedTCP, "AGE": wire.AttrAge,
		"TOKEN": wire.AttrToken, "NAMEPLATE": wire.AttrNameplate, "LETTER": wire.AttrLetter,
	} {
		row("0x%04X", uint16(a), name)
	}
	for name, f := range map[string]uint32{
		"ACCEPTING": wire.FlagAccepting, "OPEN": wire.FlagOpen, "DISPLACED": wire.FlagDisplaced,
		"KEPT": wire.FlagKept,
	} {
		row("0x%08x", f, name)
	}
	for _, want := range []string{
		fmt.Sprintf("\n| %d | Introduce | offline", wire.CodeNotReachable),
		fmt.Sprintf("\n| %d | all but Binding and Register | I have no registration", wire.CodeUnknownRegistration),
		fmt.Sprintf("\n| %d | Introduce | too often", wire.CodeTooMany),
		fmt.Sprintf("\n| %d | Invite, Pair | too many", wire.CodeTooMany),
		fmt.Sprintf("\n| %d | Pair | nobody waits", wire.CodeNotReachable),
		fmt.Sprintf("\n| %d | Pair | the nameplate is your own", wire.CodeForbidden),
		fmt.Sprintf("\n| %d | Invite, Pair | somebody has been", wire.CodeUsed),
		fmt.Sprintf("at most %d bytes, opaque to the server", wire.MaxLetter),
		fmt.Sprintf("than %d bytes is refused", wire.MaxMessage),
		fmt.Sprintf("with PADDING may have up to %d", wire.MaxPadded),
		fmt.Sprintf("2 bytes each, at most %d: further ports", wire.MaxOtherPorts),
		fmt.Sprintf("at most %d bytes, opaque", wire.MaxDescription),
		fmt.Sprintf("at most %d,\nfor the current day", wire.MaxTags),
		fmt.Sprintf("`%04x` to\n`%04x`", uint16(wire.FirstAskedChannel), uint16(wire.FirstServedChannel-1)),
		fmt.Sprintf("`%04x` to `%04x`", uint16(wire.FirstServedChannel), uint16(wire.FirstServedChannel+wire.ChannelsPerHalf-1)),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", protocolFile, want)
		}
	}
}
