package cli

import (
	"errors"
	"slices"
	"testing"
)

func TestWordsOfACommand(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"/usr/sbin/sshd -i":              {"/usr/sbin/sshd", "-i"},
		"  a \t b\nc ":                   {"a", "b", "c"},
		`'/opt/my tools/x' -m "it's ok"`: {"/opt/my tools/x", "-m", "it's ok"},
		`pre'fix 'ed`:                    {"prefix ed"},
		`a "" ''`:                        {"a", "", ""},
		`back\slash $HOME *`:             {`back\slash`, "$HOME", "*"},
		"é ü":                            {"é", "ü"},
	} {
		if got, err := words(text); !slices.Equal(got, want) || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]error{
		"": errNoWords, " \t": errNoWords, `a "b`: errQuote, `it's`: errQuote,
	} {
		if got, err := words(text); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
