package share

import (
	"path"
	"runtime"
	"strings"
	"unicode/utf8"
)

// naming is what a system asks of names.
type naming struct {
	windows bool // forbids some
	folds   bool // takes names that differ in case for one
}

var system = naming{windows: runtime.GOOS == "windows", folds: runtime.GOOS == "windows" || runtime.GOOS == "darwin"}

// localNames are the paths of entries as they can be on a system, each unlike the others.
func localNames(entries []Entry, n naming) []string {
	out := make([]string, len(entries))
	folders := map[string]string{".": "."}
	used := make(map[string]bool)
	for i, e := range entries {
		above := folders[path.Dir(e.Path)]
		name := n.fit(path.Base(e.Path))
		if used[n.key(path.Join(above, name))] {
			name = free(name, func(s string) bool { return used[n.key(path.Join(above, s))] })
		}
		out[i] = path.Join(above, name)
		used[n.key(out[i])] = true
		if e.Kind == KindFolder {
			folders[e.Path] = out[i]
		}
	}
	return out
}

// key is the same for names that a system cannot tell apart.
func (n naming) key(name string) string {
	if n.folds {
		return strings.ToLower(name)
	}
	return name
}

// fit is a name with what Windows forbids replaced: device names, some characters, and
// dots and spaces at the end.
func (n naming) fit(name string) string {
	if !n.windows {
		return name
	}
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || r == utf8.RuneError || strings.ContainsRune(`<>:"/\|?*`, r) {
			return '_'
		}
		return r
	}, name)
	if trimmed := strings.TrimRight(name, " ."); trimmed != name {
		name = trimmed + "_"
	}
	stem, _, _ := strings.Cut(name, ".")
	switch s := strings.ToUpper(strings.TrimRight(stem, " ")); {
	case s == "CON", s == "PRN", s == "AUX", s == "NUL", s == "CONIN$", s == "CONOUT$",
		(strings.HasPrefix(s, "COM") || strings.HasPrefix(s, "LPT")) && isPort(s[3:]):
		name = "_" + name
	}
	return name
}

// isPort reports whether COM or LPT with that behind it is a device.
func isPort(s string) bool {
	return len(s) == 1 && s[0] >= '0' && s[0] <= '9' || s == "¹" || s == "²" || s == "³"
}
