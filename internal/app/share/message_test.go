package share

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// samples are the messages and frames that docs/share.md shows, of one small transfer.
func samples() map[string][]byte {
	id := transferID(bytes.Repeat([]byte{0x1d}, 16))
	body := func(k kind, b []byte) []byte { return appendMessage(nil, k, b) }
	entries := appendEntry(nil, Entry{Kind: KindFolder, Path: "photos", Mode: 0o755, Time: stamp{1700000000, 0}})
	entries = appendEntry(entries, Entry{Kind: KindFile, Path: "photos/a.jpg", Mode: 0o644, Time: stamp{1700000000, 5}, Size: 300000})
	entries = appendEntry(entries, Entry{Kind: KindLink, Path: "photos/b", Mode: 0o777, Time: stamp{1700000000, 0}, Target: "a.jpg"})
	o := offer{form: formFiles, label: [16]byte(bytes.Repeat([]byte{0x1a}, 16)), roots: 1, name: "photos", entries: 3, files: 1, bytes: 300000}
	one := hash(bytes.Repeat([]byte{0xc1}, 32))
	return map[string][]byte{
		"hello":   body(kindHello, hello{version, roleSend, id}.append(nil)),
		"join":    body(kindJoin, id[:]),
		"offer":   body(kindOffer, o.append(nil)),
		"entries": body(kindEntries, entries),
		"skip":    body(kindSkip, span{0, 1}.append(nil)),
		"have":    body(kindHave, have{1, 0, []hash{one}}.append(nil)),
		"accept":  body(kindAccept, []byte{4}),
		"got":     body(kindGot, binary.AppendUvarint(nil, 300000)),
		"alive":   body(kindAlive, nil),
		"lost":    body(kindLost, lost{1, "it is gone"}.append(nil)),
		"sent":    body(kindSent, nil),
		"done":    body(kindDone, nil),
		"fail":    body(kindFail, appendFail(failSpace, "no space")),
		"piece":   frame{framePiece, 1, 1, 37856, one}.append(nil),
		"end":     frame{frameEnd, 1, 1, 300000, one}.append(nil),
	}
}

func TestDocumentHasTheMessages(t *testing.T) {
	t.Parallel()
	const file = "../../../docs/share.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := samples()
	blocks := regexp.MustCompile("(?ms)^```hex share-(\\S+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	for _, m := range blocks {
		var all strings.Builder
		for line := range strings.Lines(m[2]) {
			line, _, _ = strings.Cut(line, "  ")
			all.WriteString(strings.TrimSpace(line))
		}
		got, err := hex.DecodeString(all.String())
		if err != nil || !bytes.Equal(got, want[m[1]]) {
			t.Errorf("%s: block share-%s is %x, want %x, %v", file, m[1], got, want[m[1]], err)
		}
	}
	if len(blocks) != len(want) {
		t.Errorf("%s has %d blocks, want %d", file, len(blocks), len(want))
	}
}

// parse reads the body of any message, and gives it back as it would be written.
func parse(k kind, b []byte) (again []byte, err error) {
	switch k {
	case kindHello:
		h, err := parseHello(b)
		if h.version != version {
			return b, err
		}
		return h.append(nil), err
	case kindJoin:
		id, err := parseJoin(b)
		return id[:], err
	case kindOffer:
		o, err := parseOffer(b)
		return o.append(nil), err
	case kindEntries:
		all, err := parseEntries(b)
		for _, e := range all {
			again = appendEntry(again, e)
		}
		return again, err
	case kindSkip:
		all, err := parseSkip(b)
		for _, s := range all {
			again = s.append(again)
		}
		return again, err
	case kindHave:
		h, err := parseHave(b)
		return h.append(nil), err
	case kindAccept:
		n, err := parseAccept(b)
		return binary.AppendUvarint(nil, uint64(n)), err
	case kindGot:
		n, err := parseGot(b)
		return binary.AppendUvarint(nil, uint64(n)), err
	case kindLost:
		l, err := parseLost(b)
		return l.append(nil), err
	case kindFail:
		code, reason, err := parseFail(b)
		return appendFail(code, reason), err
	default:
		return b, nil
	}
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	for name, b := range samples() {
		if name == "piece" || name == "end" {
			f, err := readFrame(bufio.NewReader(bytes.NewReader(b)))
			if got := f.append(nil); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: %x, want %x, %v", name, got, b, err)
			}
			continue
		}
		k, body, err := readMessage(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if again, err := parse(k, body); err != nil || !bytes.Equal(again, body) {
			t.Errorf("%s: %x, want %x, %v", name, again, body, err)
		}
		for n := range len(b) {
			_, _, err := readMessage(bufio.NewReader(bytes.NewReader(b[:n])))
			if n == 0 && !errors.Is(err, io.EOF) || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, cut after %d bytes: %v", name, n, err)
			}
		}
	}
}

func FuzzControl(f *testing.F) {
	for name, b := range samples() {
		if name != "piece" && name != "end" {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			k, body, err := readMessage(r)
			if err != nil {
				return
			}
			again, err := parse(k, body)
			if err != nil {
				continue
			}
			// Numbers may have been longer than they need be: then it is the same anyway.
			if _, err := parse(k, again); err != nil || len(again) > len(body) {
				t.Fatalf("%d: %x became %x, %v", k, body, again, err)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(samples()["piece"])
	f.Add(samples()["end"])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readFrame(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if x.kind == framePiece && x.length > maxPiece || x.length > maxSize || x.index > maxEntries {
			t.Fatalf("%+v", x)
		}
		again, err := readFrame(bufio.NewReader(bytes.NewReader(x.append(nil))))
		if err != nil || !reflect.DeepEqual(again, x) {
			t.Fatalf("%+v became %+v, %v", x, again, err)
		}
	})
}

// Whatever a manifest says, what passes stays in its tree.
func FuzzManifest(f *testing.F) {
	_, body, _ := readMessage(bufio.NewReader(bytes.NewReader(samples()["entries"])))
	f.Add(body)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseEntries(b)
		if err != nil {
			return
		}
		var m manifest
		for _, e := range all {
			if m.add(e) != nil {
				continue
			}
			if strings.HasPrefix(e.Path, "/") || strings.Contains("/"+e.Path+"/", "/../") || strings.HasPrefix(e.Target, "/") {
				t.Fatalf("%q -> %q", e.Path, e.Target)
			}
		}
		for _, n := range []naming{{}, {windows: true, folds: true}, {folds: true}} {
			seen := make(map[string]bool)
			for i, name := range localNames(m.entries, n) {
				if seen[n.key(name)] || strings.Contains("/"+name+"/", "/../") || strings.Count(name, "/") != strings.Count(m.entries[i].Path, "/") {
					t.Fatalf("%q became %q", m.entries[i].Path, name)
				}
				seen[n.key(name)] = true
			}
		}
	})
}
