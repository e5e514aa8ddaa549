package page

import (
	"cmp"
	"embed"
	"html/template"
	"io"
	"slices"
	"time"

	"bodkin/internal/matrix/trace"
)

// Report is what a page shows.
type Report struct {
	Command string // that makes the same page again
	Facts   []Fact
	Names   []Name // of the rows and columns
	// Cells are the results by asker, then by asked; nil where a pair was left
	// out.
	Cells [][]*Cell
}

// Fact is a line of the page's head.
type Fact struct{ Term, Text string }

// Name is a row and a column.
type Name struct{ Name, Text string }

// Cell is what the runs of a pair came to.
type Cell struct {
	Runs    int
	Times   []time.Duration // to direct, of the runs that became so
	Packets float64         // of both sides to open holes, a run
	Relayed float64         // bytes, a run
	// Limit is RTT(A,S)+RTT(A,B), before which no run can be direct.
	Limit time.Duration
	Why   []Count // what was in the way of the other runs, the commonest first
	Kept  []Run
}

// Count is how often something was the case.
type Count struct {
	Text  string
	Times int
}

// Run is one run with all its packets.
type Run struct {
	Number  int // from 1
	Direct  bool
	Outcome string
	Trace   trace.Trace
}

// Share is the share of a cell's runs that became direct, from 0 to 1.
func (c *Cell) Share() float64 {
	if c.Runs == 0 {
		return 0
	}
	return float64(len(c.Times)) / float64(c.Runs)
}

// sorted are the times in order.
func (c *Cell) sorted() []time.Duration {
	return slices.SortedFunc(slices.Values(c.Times), cmp.Compare)
}

//go:embed page.html page.css page.js
var files embed.FS

var pageTemplate = template.Must(template.New("page.html").ParseFS(files, "page.html"))

func file(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(b)
}

// Write writes the page.
func (r Report) Write(w io.Writer) error {
	data, err := r.encode()
	if err != nil {
		return err
	}
	return pageTemplate.Execute(w, struct {
		Report
		Style  template.CSS
		Script template.JS
		Data   template.JS
		Map    heatMap
	}{r, template.CSS(file("page.css")), template.JS(file("page.js")), template.JS(data), r.heatMap()})
}
