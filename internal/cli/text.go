package cli

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// lines are a text of lines with a name in front, for people.
type lines struct{ b strings.Builder }

func (l *lines) add(name, format string, args ...any) {
	_, _ = fmt.Fprintf(&l.b, "%-17s  "+format+"\n", append([]any{name}, args...)...)
}

// wrap adds a long text in several lines, those of an item ("- ...") indented.
func (l *lines) wrap(name, text string) {
	const width = 76
	indent := ""
	if strings.HasPrefix(text, "- ") {
		indent = "  "
	}
	words := strings.Fields(text)
	line := words[0]
	for _, word := range words[1:] {
		if len(line)+1+len(word) > width {
			l.add(name, "%s", line)
			name, line = "", indent+word
			continue
		}
		line += " " + word
	}
	l.add(name, "%s", line)
}

func (l *lines) blank() { l.b.WriteByte('\n') }

func (l *lines) text() string { return strings.TrimSuffix(l.b.String(), "\n") }

// count is a number of things: 1 answer, 2 answers.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// size is a number of bytes for people, in powers of 1000 as rates are.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for value >= 999.95 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", value, " kMGTPE"[unit])
}

// span is a time that went by, for people: its two largest units.
func span(d time.Duration) string {
	d = d.Truncate(time.Second)
	days := d / (24 * time.Hour)
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// list is what there is, or a word for nothing.
func list(texts []string) string {
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}

func endpoints(es []netip.AddrPort) string {
	var out []string
	for _, e := range es {
		out = append(out, e.String())
	}
	return list(out)
}
