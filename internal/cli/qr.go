package cli

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the empty border of a QR code, in modules (ISO/IEC 18004 asks for four).
const quiet = 4

// printQR draws a text as a QR code on standard error, for a camera. Two modules stand
// one above the other in a character, black on white whatever the terminal's colours.
func (a *app) printQR(text string) error {
	drawn, err := drawQR(text)
	if err != nil {
		return err
	}
	for line := range strings.Lines(drawn) {
		line = strings.TrimSuffix(line, "\n")
		if isTerminal(a.err) {
			line = "\x1b[30;107m" + line + "\x1b[0m"
		}
		a.say("%s", line)
	}
	return nil
}

// drawQR draws with the lower and upper halves of characters, black ones.
func drawQR(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("QR code of %d bytes: %w", len(text), err)
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			switch top, bottom := code.Black(x, y), code.Black(x, y+1); {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
