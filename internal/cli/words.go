package cli

import (
	"errors"
	"strings"
)

var (
	errNoWords = errors.New("it is empty")
	errQuote   = errors.New("a quote does not end")
)

// words splits a command line at spaces, tabs and line ends. Quotes of either
// kind keep what is between them together; nothing else is special.
func words(text string) (out []string, err error) {
	var word strings.Builder
	var quote rune
	begun := false
	end := func() {
		if begun {
			out = append(out, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, r := range text {
		switch {
		case r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case strings.ContainsRune(" \t\r\n", r):
			end()
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	switch {
	case quote != 0:
		return nil, errQuote
	case len(out) == 0:
		return nil, errNoWords
	}
	return out, nil
}
