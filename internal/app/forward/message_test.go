package forward

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"bodkin"
	"bodkin/peer"
)

// The bytes of every message.
func TestMessages(t *testing.T) {
	t.Parallel()
	for want, got := range map[string][]byte{
		"0101010009" + hex.EncodeToString([]byte("[::1]:443")): request{opConnect, TCP, "[::1]:443"}.bytes(),
		"0102020006" + hex.EncodeToString([]byte("nas:53")):    request{opAsk, UDP, "nas:53"}.bytes(),
		"0103030002" + hex.EncodeToString([]byte("/x")):        request{opListen, Unix, "/x"}.bytes(),
		"01040100080000000000000001":                           request{opTake, TCP, "\x00\x00\x00\x00\x00\x00\x00\x01"}.bytes(),
		"01000000":                                             reply{}.bytes(),
		"01010000":                                             reply{status: statusNotAllowed}.bytes(),
		"010700026e6f":                                         reply{statusFailed, "no"}.bytes(),
		"0000026869":                                           appendFrame(nil, frameDatagram, []byte("hi")),
		"010000":                                               appendFrame(nil, frameRefused, nil),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("%x instead of %s", got, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(request{opConnect, TCP, "localhost:22"}.bytes())
	f.Add(request{opListen, UDP, ":1"}.bytes())
	f.Add(request{opConnect, Unix, "/x"}.bytes())
	f.Add(request{opTake, TCP, "12345678"}.bytes())
	f.Add([]byte{2, 1, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := q.bytes(); !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x was read as %x", b, again)
		}
		w := Wish{Endpoint{q.network, q.text}, q.op == opListen}
		if w.check() == nil && q.network != Unix {
			// What passes is what the rules think that it is.
			if e, err := parse(w.String(), "?"); err != nil || e != w.Endpoint {
				t.Fatalf("%q passed, and is %v, %v", q.text, e, err)
			}
		}
		_ = Rules{{Network: TCP, Host: "*", Last: 1}}.Allow(newID, w)
	})
}

var newID = peer.NewKey([32]byte{1}).ID()

func FuzzReply(f *testing.F) {
	f.Add(reply{}.bytes())
	f.Add(reply{statusFailed, "too many open files"}.bytes())
	f.Add([]byte{1, 9, 0, 1, 27})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := readReply(bytes.NewReader(b))
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			refused.Wish = Wish{Endpoint: Endpoint{TCP, "x:1"}}
			if text := refused.Error(); text == "" || strings.ContainsAny(text, "\x1b\n\r") {
				t.Fatalf("said %q", text)
			}
		}
	})
}

func FuzzFlowFrame(f *testing.F) {
	f.Add(appendFrame(nil, frameDatagram, []byte("x")))
	f.Add(appendFrame(nil, frameRefused, nil))
	f.Add([]byte{0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, buf := bytes.NewReader(b), make([]byte, maxUDP)
		for {
			before := r.Len()
			kind, body, err := readFrame(r, buf)
			if err != nil {
				return
			}
			if again := appendFrame(nil, kind, body); !bytes.Equal(again, b[len(b)-before:len(b)-r.Len()]) {
				t.Fatalf("%x was read as %x", b, again)
			}
		}
	})
}

// Packets in any order, lost and doubled, never make a datagram that was not sent.
func FuzzJoin(f *testing.F) {
	f.Add([]byte{0, 1, 2}, uint64(1))
	f.Add([]byte{1, 7, 2, 2, 7, 3}, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		var j joiner
		for len(b) > 0 { // what anybody may send
			n := min(len(b), 1+int(b[0])%8)
			j.join(b[:n])
			b = b[n:]
		}
		var s splitter
		rnd := rand.New(rand.NewPCG(seed, 0))
		j = joiner{}
		sent := make(map[string]bool)
		var packets [][]byte
		for i := range 40 {
			d := bytes.Repeat([]byte{byte(i)}, rnd.IntN(2*maxHalf+1))
			sent[string(d)] = true
			first, second := s.packets(d)
			packets = append(packets, bytes.Clone(first))
			if second != nil {
				packets = append(packets, bytes.Clone(second))
			}
		}
		for i := range packets { // a little out of order
			if k := i + rnd.IntN(3); k < len(packets) {
				packets[i], packets[k] = packets[k], packets[i]
			}
		}
		for _, p := range packets {
			if d, whole := j.join(p); whole && !sent[string(d)] {
				t.Fatalf("%d bytes of %v were never sent", len(d), d[:min(1, len(d))])
			}
		}
	})
}

func TestDatagramsOfEverySize(t *testing.T) {
	t.Parallel()
	var s splitter
	var j joiner
	for n := range 2*maxHalf + 2 {
		d := bytes.Repeat([]byte{byte(n)}, n)
		first, second := s.packets(d)
		if len(first) > bodkin.MaxDatagram || len(second) > bodkin.MaxDatagram {
			t.Fatalf("%d bytes travel in %d and %d", n, len(first), len(second))
		}
		switch {
		case n <= maxWhole && second != nil, n > 2*maxHalf && first != nil, n > maxWhole && n <= 2*maxHalf && second == nil:
			t.Fatalf("%d bytes travel in %d and %d", n, len(first), len(second))
		case first == nil:
			continue
		}
		got, whole := j.join(bytes.Clone(first))
		if second != nil {
			if whole {
				t.Fatal("half a datagram was taken for a whole")
			}
			got, whole = j.join(second)
		}
		if !whole || !bytes.Equal(got, d) {
			t.Fatalf("%d bytes became %d, %v", n, len(got), whole)
		}
	}
}

func TestStrangeVersionsAreNamed(t *testing.T) {
	t.Parallel()
	if _, err := readRequest(strings.NewReader("\x02\x01\x01\x00\x00")); !errors.Is(err, errVersion) {
		t.Error(err)
	}
	if _, err := readReply(strings.NewReader("\x02\x00\x00\x00")); !errors.Is(err, errVersion) {
		t.Error(err)
	}
	if _, err := readReply(strings.NewReader("\x01\x00")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
