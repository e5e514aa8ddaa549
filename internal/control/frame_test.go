package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	var b []byte
	b = appendFrame(b, frameData, []byte("hi"))
	b = appendFrame(b, frameEnd, nil)
	if want := "D\x00\x02hiE\x00\x00"; string(b) != want {
		t.Errorf("frames are %q instead of %q", b, want)
	}
	buf := make([]byte, maxFrame)
	for text, want := range map[string]error{
		"":            io.EOF,
		"D":           io.ErrUnexpectedEOF,
		"D\x00\x05hi": io.ErrUnexpectedEOF,
		"E\x00\x01x":  errFrame,
		"O\x00\x01x":  errFrame,
		"C\x00\x01x":  errFrame,
		"GET":         errFrame,
	} {
		if _, _, err := readFrame(strings.NewReader(text), buf); !errors.Is(err, want) {
			t.Errorf("%q: %v instead of %v", text, err, want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("D\x00\x02hi"))
	f.Add([]byte("E\x00\x00"))
	f.Add([]byte("E\x00\x01x"))
	f.Add([]byte("F\x00\x14{\"error\":\"it broke\"}"))
	f.Add([]byte("U\xff\xff"))
	f.Add([]byte("O\x00\x00P\x00\x02hi"))
	f.Add(append([]byte("C\x00\x28"), make([]byte, peerSize)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, buf := bytes.NewReader(b), make([]byte, maxFrame)
		for {
			before := r.Len()
			kind, body, err := readFrame(r, buf)
			if err != nil {
				return
			}
			read := b[len(b)-before : len(b)-r.Len()]
			if again := appendFrame(nil, kind, body); !bytes.Equal(again, read) {
				t.Fatalf("%q was read as %q", read, again)
			}
			if kind == frameFailed && fmt.Sprint(parseError(body)) == "" {
				t.Fatal("an error without words")
			}
		}
	})
}
