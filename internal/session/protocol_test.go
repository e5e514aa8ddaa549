package session

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"
)

// docs/protocol.md holds what streams and datagrams begin with as hex, beside the
// messages that internal/wire compares.
func TestProtocolDocumentHasStreamsAndDatagrams(t *testing.T) {
	t.Parallel()
	const file = "../../docs/protocol.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"stream":   appendHeader(nil, kindStream, "echo"),
		"tcp":      append(appendHeader(nil, kindTCP, "echo"), bytes.Repeat([]byte{0xd1}, TokenSize)...),
		"ping":     appendHeader(nil, kindPing, ""),
		"drain":    quicvarint.Append(quicvarint.Append(appendHeader([]byte{}, kindDrain, ""), 0), 64),
		"datagram": append(appendFlow(nil, 4), "hi"...),
	}
	blocks := regexp.MustCompile("(?ms)^```hex session-(\\S+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	for _, m := range blocks {
		var all strings.Builder
		for line := range strings.Lines(m[2]) {
			line, _, _ = strings.Cut(line, "  ")
			all.WriteString(strings.TrimSpace(line))
		}
		got, err := hex.DecodeString(all.String())
		if err != nil || !bytes.Equal(got, want[m[1]]) {
			t.Errorf("%s: block session-%s is %x, want %x, %v", file, m[1], got, want[m[1]], err)
		}
	}
	if len(blocks) != len(want) {
		t.Errorf("%s has %d blocks of sessions, want %d", file, len(blocks), len(want))
	}
	for _, word := range []string{"`" + alpn + "`", "`" + alpnTCP + "`", "`" + hex.EncodeToString(marker[:]) + "`"} {
		if !strings.Contains(string(text), word) {
			t.Errorf("%s does not say %s", file, word)
		}
	}
}
