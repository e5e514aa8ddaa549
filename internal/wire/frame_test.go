package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"bodkin/internal/wire"
)

// frames reads all messages of a stream, and what it ended with.
func frames(r io.Reader) (out [][]byte, err error) {
	b := bufio.NewReaderSize(r, wire.MaxFrame)
	for {
		f, err := wire.ReadFrame(b)
		if err != nil {
			return out, err
		}
		out = append(out, slices.Clone(f))
	}
}

func TestMessagesFollowOneAnotherInAStream(t *testing.T) {
	t.Parallel()
	var stream []byte
	var want [][]byte
	for _, m := range messages() {
		b := golden(m.name)
		if m.content || wire.Classify(b, true) == wire.ClassOther {
			continue
		}
		want = append(want, b)
		stream = append(stream, b...)
		stream = append(stream, make([]byte, -len(b)&3)...) // ChannelData's padding
	}
	largest := wire.BindingRequest{Padding: wire.MaxFrame - 24}.Append(nil)
	want, stream = append(want, largest), append(stream, largest...)
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
	} {
		got, err := frames(r)
		if !errors.Is(err, io.EOF) || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d messages of %d, then %v", name, len(got), len(want), err)
		}
	}
}

func TestStreamsThatAreNone(t *testing.T) {
	t.Parallel()
	binding := golden("binding-answer")
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		r    io.Reader
		n    int
		err  error
	}{
		{"nothing", bytes.NewReader(nil), 0, io.EOF},
		{"ends in a header", bytes.NewReader(slices.Concat(binding, binding[:3])), 1, io.ErrUnexpectedEOF},
		{"ends in a message", bytes.NewReader(slices.Concat(binding, binding[:30])), 1, io.ErrUnexpectedEOF},
		{"ends in padding", bytes.NewReader(golden("channel-data")), 0, io.ErrUnexpectedEOF},
		{"HTTP", bytes.NewReader([]byte("GET / HTTP/1.1\r\n\r\n")), 0, wire.ErrMalformed},
		{"TLS", bytes.NewReader([]byte{0x16, 3, 1, 0, 10}), 0, wire.ErrMalformed},
		{"a length that STUN has not", bytes.NewReader([]byte{0, 1, 0, 3, 0, 0}), 0, wire.ErrMalformed},
		{"too large", bytes.NewReader(wire.BindingRequest{Padding: wire.MaxFrame - 20}.Append(nil)), 0, wire.ErrMalformed},
		{"too large a channel", bytes.NewReader([]byte{0x40, 0, 0x10, 0}), 0, wire.ErrMalformed},
		{"broken", io.MultiReader(bytes.NewReader(binding), iotest.ErrReader(broken)), 1, broken},
	} {
		if got, err := frames(c.r); len(got) != c.n || !errors.Is(err, c.err) {
			t.Errorf("%s: %d messages, then %v", c.name, len(got), err)
		}
	}
}

// FuzzReadFrame: the messages are what came, in order, with nothing lost.
func FuzzReadFrame(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := frames(bytes.NewReader(b))
		rest := b
		for _, m := range got {
			if len(m) > wire.MaxFrame || !bytes.HasPrefix(rest, m) {
				t.Fatalf("%x holds no %x", rest, m)
			}
			rest = rest[(len(m)+3)&^3:]
		}
		if errors.Is(err, io.EOF) != (len(rest) == 0) {
			t.Errorf("%x is left, and %v", rest, err)
		}
		again, err2 := frames(iotest.OneByteReader(bytes.NewReader(b)))
		if !slices.EqualFunc(got, again, bytes.Equal) || err.Error() != err2.Error() {
			t.Errorf("byte by byte: %x, %v", again, err2)
		}
	})
}
