package wire_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"bodkin/internal/wire"
	"bodkin/peer"

	"github.com/pion/stun/v3"
)

// The wire format is a promise: a message that changes here no longer reaches the
// nodes that are out there. After a change that is meant, -update writes the
// file; docs/protocol.md is to be changed by hand.
var update = flag.Bool("update", false, "write testdata/messages.txt")

const goldenFile = "testdata/messages.txt"

// goldens are the messages as they were written down, by name: a line with the
// name, then lines of hex.
var goldens = sync.OnceValue(func() map[string][]byte {
	text, err := os.ReadFile(goldenFile)
	if err != nil {
		panic(err)
	}
	out := make(map[string][]byte)
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		name, lines, _ := strings.Cut(block, "\n")
		if name != "" {
			out[name] = unhex(lines)
		}
	}
	return out
})

func golden(name string) []byte { return goldens()[name] }

func TestEveryMessageIsAsWrittenDown(t *testing.T) {
	if *update {
		write(t, len(messages()))
	}
	t.Parallel()
	all := messages()
	names := make(map[string]bool)
	for _, m := range all {
		names[m.name] = true
		got := m.build()
		if want := golden(m.name); !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s, want\n%s", m.name, lines(got), lines(want))
		}
		if !m.content && len(got) > wire.MaxMessage {
			t.Errorf("%s has %d bytes", m.name, len(got))
		}
	}
	for name := range goldens() {
		if !names[name] {
			t.Errorf("%s is written down, but not built", name)
		}
	}
}

// write writes the file anew. What is sealed to a key holds randomness, so boxes
// that still open stay.
func write(t *testing.T, n int) {
	t.Helper()
	var text strings.Builder
	for i := range n {
		m := messages()[i] // made of the boxes that were written so far
		goldens()[m.name] = m.build()
		fmt.Fprintf(&text, "%s\n%s\n", m.name, lines(golden(m.name)))
	}
	if err := os.WriteFile(goldenFile, []byte(strings.TrimSpace(text.String())+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lines is hex, 32 bytes a line.
func lines(b []byte) string {
	var out strings.Builder
	for c := range slices.Chunk(b, 32) {
		fmt.Fprintf(&out, "%x\n", c)
	}
	return out.String()
}

func TestEveryMessageDecodesAndEncodesToItself(t *testing.T) {
	t.Parallel()
	for _, m := range messages() {
		want := golden(m.name)
		got, err := m.again(want)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s became\n%s, want\n%s, %v", m.name, lines(got), lines(want), err)
		}
		// One byte less or more is no message.
		if _, err := m.again(want[:len(want)-1]); err == nil {
			t.Errorf("%s decodes without its last byte", m.name)
		}
		if _, err := m.again(append(slices.Clone(want), 0)); err == nil && !m.padded() {
			t.Errorf("%s decodes with a byte behind it", m.name)
		}
	}
}

// padded reports whether bytes may follow: over TCP, ChannelData is padded (RFC
// 8656 §12.5).
func (m message) padded() bool { return strings.HasPrefix(m.name, "channel-data") }

// What nobody authenticates is a hint at best; all else must arrive as it left.
func TestMessageWithOneBitChangedIsRefused(t *testing.T) {
	t.Parallel()
	tried := 0
	for _, m := range messages() {
		if m.trusted == nil {
			continue
		}
		b := slices.Clone(golden(m.name))
		if !m.trusted(b) {
			t.Errorf("%s itself is refused", m.name)
		}
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			if m.trusted(b) {
				t.Errorf("%s with bit %d of byte %d changed is believed", m.name, i%8, i/8)
			}
			b[i/8] ^= 1 << (i % 8)
			tried++
		}
	}
	if tried < 10_000 {
		t.Errorf("only %d bits were changed", tried)
	}
}

// The keys of the two directions differ, and so do those of two nodes: nothing
// can be sent back to its sender, or on to somebody else.
func TestMessageToSomebodyElseIsRefused(t *testing.T) {
	t.Parallel()
	all := messages()
	for _, m := range all {
		for _, other := range all {
			if m.trusted == nil || other.trusted == nil || m.key() == other.key() {
				continue
			}
			if other.trusted(golden(m.name)) {
				t.Errorf("%s is believed by the one that %s is for", m.name, other.name)
			}
		}
	}
	a, b := probeKeysA(), probeKeysB()
	if a.Session != b.Session || a.Ours != b.Theirs || a.Theirs != b.Ours || a.Ours == a.Theirs {
		t.Error("probe keys do not mirror")
	}
	if trustsProbe(a)(golden("probe")) || trustsProbe(b)(golden("probe-answer")) {
		t.Error("one's own probe, sent back, is believed")
	}
}

// key names who believes a message: the reader's key.
func (m message) key() string {
	switch {
	case m.content:
		return m.name
	case strings.HasPrefix(m.name, "probe-answer"):
		return "probe to A"
	case strings.HasPrefix(m.name, "probe"):
		return "probe to B"
	case m.name == "register":
		return "server"
	}
	d, err := wire.Decode(golden(m.name))
	if err != nil {
		return "?"
	}
	e, err := wire.ParseEnvelope(d)
	if err != nil {
		return "?"
	}
	for name, key := range map[string][32]byte{
		"A": linkA().ToNode, "B": linkB().ToNode, "server from A": linkA().ToServer, "server from B": linkB().ToServer,
	} {
		if _, err := wire.Open(d, e.Sequence, &key); err == nil {
			return name
		}
	}
	return "?"
}

// RFC 8489 §9.2.4 and the house's rule: a source that has proved nothing gets no
// more bytes than it sent.
func TestUnprovedSourcesGetNoMoreThanTheySent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ request, answer string }{
		{"register-hello", "register-challenge"},
		{"register", "register-challenge"},
		{"register", "register-full"},
		{"refresh", "refresh-stale"},
		{"refresh", "unknown-registration"},
		{"introduced-answer", "unknown-registration"},
	} {
		if n, m := len(golden(c.request)), len(golden(c.answer)); m > n {
			t.Errorf("%s of %d bytes is answered with %s of %d", c.request, n, c.answer, m)
		}
	}
}

func bindingRequest(name string, r wire.BindingRequest) message {
	return message{
		name:  name,
		build: func() []byte { return r.Append(nil) },
		again: func(b []byte) ([]byte, error) {
			m, err := wire.Decode(b)
			if err != nil {
				return nil, err
			}
			r, err := wire.ParseBindingRequest(m)
			return r.Append(nil), err
		},
	}
}

func bindingAnswer(name string, a wire.BindingAnswer) message {
	return message{
		name:  name,
		build: func() []byte { return a.Append(nil) },
		again: func(b []byte) ([]byte, error) {
			m, err := wire.Decode(b)
			if err != nil {
				return nil, err
			}
			a, err := wire.ParseBindingAnswer(m)
			return a.Append(nil), err
		},
	}
}

func againRegister(b []byte) ([]byte, error) {
	m, err := wire.Decode(b)
	if err != nil {
		return nil, err
	}
	nonce, _ := m.Get(stun.AttrNonce)
	box, _ := m.Get(wire.AttrBox)
	return wire.AppendRegister(nil, m.TransactionID, nonce, box), nil
}

func againProbe(b []byte) ([]byte, error) {
	p, err := wire.ParseProbe(b)
	if err != nil {
		return nil, err
	}
	keys := probeKeysA()
	if p.Answer {
		keys = probeKeysB()
		if p.Counts {
			return keys.AppendCountingAnswer(nil, p.ID, p.Mapped, p.Arrived), nil
		}
		return keys.AppendAnswer(nil, p.ID, p.Mapped), nil
	}
	if p.Moves > 0 {
		return keys.AppendRelayedProbe(nil, p.ID, p.Sequence, p.Moves), nil
	}
	return keys.AppendWideProbe(nil, p.ID, p.Sequence, len(b)), nil
}

func trustsProbe(k wire.ProbeKeys) func([]byte) bool {
	return func(b []byte) bool {
		p, err := wire.ParseProbe(b)
		return err == nil && k.Verify(p)
	}
}

func errorMessage(name string, request stun.MessageType, id wire.TransactionID, code int, nonce string) message {
	build := func(code int, nonce []byte) []byte {
		return wire.AppendError(nil, &stun.Message{Type: request, TransactionID: id}, code, nonce)
	}
	return message{
		name:  name,
		build: func() []byte { return build(code, []byte(nonce)) },
		again: func(b []byte) ([]byte, error) {
			m, err := wire.Decode(b)
			if err != nil {
				return nil, err
			}
			var c stun.ErrorCodeAttribute
			if err := c.GetFrom(m); err != nil {
				return nil, err
			}
			nonce, _ := m.Get(stun.AttrNonce)
			return build(int(c.Code), nonce), nil
		},
	}
}

func sealed(name string, key func() [32]byte, e wire.Envelope, content wire.Attrs) message {
	open := func(b []byte) (wire.Envelope, wire.Attrs, error) {
		m, err := wire.Decode(b)
		if err != nil {
			return e, nil, err
		}
		got, err := wire.ParseEnvelope(m)
		if err != nil {
			return e, nil, err
		}
		k := key()
		content, err := wire.Open(m, got.Sequence, &k)
		return got, content, err
	}
	return message{
		name: name,
		build: func() []byte {
			k := key()
			return e.Seal(nil, &k, content)
		},
		again: func(b []byte) ([]byte, error) {
			got, content, err := open(b)
			if err != nil {
				return nil, err
			}
			k := key()
			return got.Seal(nil, &k, content), nil
		},
		trusted: func(b []byte) bool {
			_, _, err := open(b)
			return err == nil
		},
	}
}

// box is sealed to a key with fresh randomness each time: the one that was
// written down stands as long as it opens.
func box(name string, from, to peer.Key, purpose string, context func() []byte, content wire.Attrs) message {
	opens := func(b []byte) bool {
		who, got, err := to.Open(purpose, context(), b)
		return err == nil && who == from.ID() && bytes.Equal(got, content)
	}
	return message{
		name: name, content: true, trusted: opens,
		build: func() []byte {
			if b := golden(name); opens(b) {
				return b
			}
			b, err := from.Seal(to.ID(), purpose, context(), content)
			if err != nil {
				panic(err)
			}
			return b
		},
		again: func(b []byte) ([]byte, error) {
			if !opens(b) {
				return nil, peer.ErrSeal
			}
			return b, nil
		},
	}
}

func party(name string, p func() wire.Party) message {
	return message{
		name: name, content: true,
		build: func() []byte { return p().Append(nil) },
		again: func(b []byte) ([]byte, error) {
			p, err := wire.ParseParty(b)
			return p.Append(nil), err
		},
	}
}

func channelData(name string, c wire.Channel, data string) message {
	return message{
		name:  name,
		build: func() []byte { return wire.AppendChannelData(nil, c, []byte(data)) },
		again: func(b []byte) ([]byte, error) {
			c, data, ok := wire.ParseChannelData(b)
			if !ok {
				return nil, wire.ErrMalformed
			}
			return wire.AppendChannelData(nil, c, data), nil
		},
	}
}
