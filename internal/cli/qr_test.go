package cli

import (
	"strings"
	"testing"
	"unicode/utf8"

	"rsc.io/qr"
)

// What is drawn has the modules of the code, each in its half of a character, and a
// border that is empty.
func TestQRCodeIsDrawnWhole(t *testing.T) {
	t.Parallel()
	const text = "bodkin join --server bodkin://192.0.2.10:3478/tt3ikwd4dmyqjw3qf2pphv7mzhjlcqcnsr3vv5aqeoh3ojsnzxqa 42-lantern-copper"
	drawn, err := drawQR(text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	if len(lines) != (want.Size+2*quiet+1)/2 {
		t.Errorf("%d lines for %d modules", len(lines), want.Size)
	}
	for y, line := range lines {
		if utf8.RuneCountInString(line) != want.Size+2*quiet {
			t.Errorf("line %d has %d characters", y, utf8.RuneCountInString(line))
		}
		for x, r := range []rune(line) {
			halves := map[rune][2]bool{' ': {}, '█': {true, true}, '▀': {true, false}, '▄': {false, true}}[r]
			for half, black := range halves {
				if is := want.Black(x-quiet, 2*y+half-quiet); is != black {
					t.Fatalf("module %d, %d is black: %v", x-quiet, 2*y+half-quiet, black)
				}
			}
		}
	}
	if _, err := drawQR(strings.Repeat("x", 5000)); err == nil {
		t.Error("drew what is too much for a code")
	}
}
