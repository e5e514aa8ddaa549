package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Position is a place in a file, counted from 1. The zero Position is none.
type Position struct{ Line, Column int }

func (p Position) compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Line, o.Line), cmp.Compare(p.Column, o.Column))
}

// entry is a table or a key of a file.
type entry struct {
	path  []string // items of arrays are numbered: forward.0
	table bool
	start int // where the last part of its name stands
	end   int
	at    Position
}

// outline is all entries of a file in their order, without what stands in inline
// tables and lists.
type outline []entry

// outlineOf reads a text that is known to be TOML.
func outlineOf(text []byte) (out outline) {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	items := make(map[string]int)
	for p.NextExpression() {
		n := p.Expression()
		if n.Kind != unstable.Table && n.Kind != unstable.ArrayTable && n.Kind != unstable.KeyValue {
			continue
		}
		e := entry{table: n.Kind != unstable.KeyValue}
		first := true
		for k := n.Key(); k.Next(); first = false {
			e.path = append(e.path, string(k.Node().Data))
			e.start = int(k.Node().Raw.Offset)
			e.end = e.start + int(k.Node().Raw.Length)
			if first {
				e.at = position(text, e.start)
			}
		}
		if n.Kind == unstable.ArrayTable {
			name := strings.Join(e.path, ".")
			e.path = []string{name + "." + strconv.Itoa(items[name])}
			items[name]++
		}
		if e.table {
			table = e.path
		} else {
			e.path = slices.Concat(table, e.path)
		}
		out = append(out, e)
	}
	return out
}

// at is where something stands; with no place of its own, where what it is in does.
func (o outline) at(path ...string) Position {
	for ; len(path) > 0; path = path[:len(path)-1] {
		for _, e := range o {
			if slices.Equal(e.path, path) {
				return e.at
			}
		}
	}
	return Position{}
}

// position is the place of an offset; columns count characters.
func position(text []byte, offset int) Position {
	before := string(text[:offset])
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return Position{1 + strings.Count(before, "\n"), 1 + len([]rune(line))}
}
