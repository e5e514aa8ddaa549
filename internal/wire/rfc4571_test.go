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

// packetFrames reads all packets of a stream, and what it ended with.
func packetFrames(r io.Reader) (out [][]byte, err error) {
	b := bufio.NewReaderSize(r, wire.MaxPacketFrame)
	for {
		p, err := wire.ReadPacketFrame(b)
		if err != nil {
			return out, err
		}
		out = append(out, slices.Clone(p))
	}
}

func TestPacketsFollowOneAnotherOnAConnection(t *testing.T) {
	t.Parallel()
	want := [][]byte{golden("probe"), {0x40}, bytes.Repeat([]byte{0xc3}, wire.MaxPadded), golden("probe-answer")}
	var stream []byte
	for _, p := range want {
		before := len(stream)
		stream = wire.AppendPacketFrame(stream, p)
		if n := len(stream) - before; n != wire.PacketFrameSize(len(p)) {
			t.Errorf("a packet of %d bytes takes %d", len(p), n)
		}
		stream = append(stream, 0, 0) // RFC 4571 §2: null packets are ignored
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
	} {
		got, err := packetFrames(r)
		if !errors.Is(err, io.EOF) || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d packets of %d, then %v", name, len(got), len(want), err)
		}
	}
}

func TestConnectionsThatCarryNoPackets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"too long":        {[]byte{0xff, 0xff, 1, 2, 3}, wire.ErrMalformed},
		"a byte too long": {[]byte{0x08, 0x01}, wire.ErrMalformed},
		"cut in length":   {[]byte{0}, io.ErrUnexpectedEOF},
		"cut in a packet": {[]byte{0, 9, 1, 2}, io.ErrUnexpectedEOF},
		"HTTP":            {[]byte("GET / HTTP/1.1\r\n\r\n"), wire.ErrMalformed},
		"nothing":         {nil, io.EOF},
	} {
		if got, err := packetFrames(bytes.NewReader(c.stream)); !errors.Is(err, c.want) || len(got) != 0 {
			t.Errorf("%s: %d packets, %v", name, len(got), err)
		}
	}
}

func FuzzReadPacketFrame(f *testing.F) {
	f.Add(wire.AppendPacketFrame(wire.AppendPacketFrame(nil, golden("probe")), []byte{0x40, 1, 2}))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 7})
	f.Add([]byte{0xff, 0xff})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		packets, err := packetFrames(bytes.NewReader(b))
		if err == nil {
			t.Fatal("no end")
		}
		var again []byte
		for _, p := range packets {
			if len(p) == 0 || len(p) > wire.MaxPadded {
				t.Fatalf("a packet of %d bytes", len(p))
			}
			again = wire.AppendPacketFrame(again, p)
		}
		if same, _ := packetFrames(bytes.NewReader(again)); !slices.EqualFunc(packets, same, bytes.Equal) {
			t.Errorf("%d packets became %d", len(packets), len(same))
		}
	})
}
