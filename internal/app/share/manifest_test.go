package share

import (
	"strings"
	"testing"
)

func TestPathsThatLeadElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	for name, all := range map[string][]Entry{
		"up":                   {{Kind: KindFile, Path: "../x"}},
		"up inside":            {{Kind: KindFolder, Path: "a"}, {Kind: KindFile, Path: "a/../../x"}},
		"absolute":             {{Kind: KindFile, Path: "/etc/passwd"}},
		"empty":                {{Kind: KindFile, Path: ""}},
		"empty part":           {{Kind: KindFolder, Path: "a"}, {Kind: KindFile, Path: "a//b"}},
		"dot":                  {{Kind: KindFile, Path: "."}},
		"zero byte":            {{Kind: KindFile, Path: "a\x00b"}},
		"long name":            {{Kind: KindFile, Path: strings.Repeat("x", 256)}},
		"deep":                 {{Kind: KindFile, Path: strings.Repeat("x/", 300) + "x"}},
		"twice":                {{Kind: KindFile, Path: "a"}, {Kind: KindFile, Path: "a"}},
		"in no folder":         {{Kind: KindFile, Path: "a/b"}},
		"in a file":            {{Kind: KindFile, Path: "a"}, {Kind: KindFile, Path: "a/b"}},
		"through a link":       {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: "."}, {Kind: KindFile, Path: "a/l/x"}},
		"link up":              {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: "../../x"}},
		"link to the root":     {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: "/etc"}},
		"link to its place":    {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: ".."}},
		"link by a detour":     {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: "b/../../.."}},
		"link over a link":     {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: "m/.."}},
		"link to a drive":      {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: "C:x"}},
		"link with backslash":  {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l", Target: `..\..\x`}},
		"link that is a root":  {{Kind: KindLink, Path: "l", Target: "x"}},
		"link to nothing":      {{Kind: KindFolder, Path: "a"}, {Kind: KindLink, Path: "a/l"}},
		"file with a target":   {{Kind: KindFile, Path: "a", Target: "b"}},
		"folder with a size":   {{Kind: KindFolder, Path: "a", Size: 1}},
		"of an unknown kind":   {{Kind: 9, Path: "a"}},
		"folder after its own": {{Kind: KindFile, Path: "a/b"}, {Kind: KindFolder, Path: "a"}},
	} {
		var m manifest
		refused := false
		for _, e := range all {
			refused = m.add(e) != nil
			if refused {
				break
			}
		}
		if !refused {
			t.Errorf("%s: taken", name)
		}
	}
	var m manifest
	for _, e := range []Entry{
		{Kind: KindFolder, Path: "a"},
		{Kind: KindFolder, Path: "a/..."},
		{Kind: KindFile, Path: "a/.../x y"},
		{Kind: KindLink, Path: "a/.../l", Target: "../.../x y"},
		{Kind: KindFile, Path: "-"},
		{Kind: KindFile, Path: "CON"},
	} {
		must(t, m.add(e))
	}
}

// Sizes whose sum is more than a number holds would pass for almost nothing.
func TestSizesDoNotBeginAgain(t *testing.T) {
	t.Parallel()
	m := manifest{bytes: maxBytes - 2}
	must(t, m.add(Entry{Kind: KindFile, Path: "a", Size: 2}))
	if err := m.add(Entry{Kind: KindFile, Path: "b", Size: 1}); err == nil || m.bytes != maxBytes {
		t.Errorf("one byte more: %v, %d bytes", err, m.bytes)
	}
}

func TestNamesForWindows(t *testing.T) {
	t.Parallel()
	n := naming{windows: true, folds: true}
	for name, want := range map[string]string{
		"plain.txt": "plain.txt", "a:b": "a_b", `a\b`: "a_b", "what?": "what_", "end.": "end_", "end ": "end_", "tab\t": "tab_",
		"CON": "_CON", "con.txt": "_con.txt", "COM1": "_COM1", "com12": "com12", "lpt¹.x": "_lpt¹.x", "nul ": "nul_", "console": "console",
	} {
		if got := n.fit(name); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
	got := localNames([]Entry{
		{Kind: KindFolder, Path: "A?"},
		{Kind: KindFile, Path: "A?/x"},
		{Kind: KindFile, Path: "A?/X"},
		{Kind: KindFolder, Path: "a_"},
		{Kind: KindFile, Path: "a_/x"},
	}, n)
	if want := "A_ A_/x A_/X (2) a_ (2) a_ (2)/x"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, " "), want)
	}
}

func TestPrintableNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"naïve (2).txt": "naïve (2).txt", "a\x1b[2Jb": "a�[2Jb", "\xff": "�", "a\nb": "a�b"} {
		if got := Printable(name); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
}
